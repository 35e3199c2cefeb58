//! `LimitRange`s and `ResourceQuota`s that a sidecar exceeds. The condition `Injected` names them while they exist, and
//! only those that make the API server refuse the pod because of its sidecar.

use std::time::{Duration, Instant};

use otelagent_core::names;
use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};

use super::installed::{self, InstalledOperator, bed};
use super::server::{self, Server};

const AGENTS: &str = "/apis/otelagent.dev/v1alpha1/namespaces/otelagent-system/otelagents";
/// The longest time to wait for any result.
const PATIENCE: Duration = Duration::from_mins(5);

/// One object that demands something of pods, and what is reported of it, if anything.
struct Case {
    namespace: &'static str,
    kind: &'static str,
    spec: Value,
    reported: Option<&'static str>,
}

/// Sidecars have 50m of cpu and 64Mi of memory here, the application less than that, but where it must not. Beside
/// a container that limits its storage, they limit theirs to more than 64Mi, and request none.
fn cases() -> Vec<Case> {
    let range = |namespace, item, reported| Case {
        namespace,
        kind: "LimitRange",
        spec: json!({"limits": [item]}),
        reported,
    };
    let quota = |namespace, spec, reported| Case {
        namespace,
        kind: "ResourceQuota",
        spec,
        reported,
    };
    let container = |bounds: Value| {
        let mut item = bounds;
        item["type"] = json!("Container");
        item
    };
    vec![
        range(
            "shop-1",
            container(json!({"max": {"memory": "32Mi"}})),
            Some(
                "in namespace shop-1, LimitRange it allows each container at most 32Mi memory, and the agent has 64Mi",
            ),
        ),
        range(
            "shop-2",
            container(json!({"min": {"cpu": "100m"}})),
            Some(
                "in namespace shop-2, LimitRange it demands at least 100m cpu of each container, and the agent has 50m",
            ),
        ),
        range(
            "shop-3",
            json!({"type": "Pod", "max": {"cpu": "40m"}}),
            Some(
                "in namespace shop-3, LimitRange it allows each pod at most 40m cpu, and the agent alone has 50m",
            ),
        ),
        quota(
            "shop-4",
            json!({"hard": {"limits.memory": "60Mi", "pods": "10"}}),
            Some(
                "in namespace shop-4, ResourceQuota it has 0 of 60Mi limits.memory in use, and the agent alone needs 64Mi",
            ),
        ),
        // What a pod that is there already has left.
        quota(
            "shop-5",
            json!({"hard": {"requests.cpu": "60m"}}),
            Some(
                "in namespace shop-5, ResourceQuota it has 20m of 60m requests.cpu in use, and the agent alone needs 50m",
            ),
        ),
        quota(
            "shop-6",
            json!({"hard": {"cpu": "40m"}, "scopes": ["NotBestEffort"]}),
            Some(
                "in namespace shop-6, ResourceQuota it has 0 of 40m cpu in use, and the agent alone needs 50m",
            ),
        ),
        range(
            "shop-10",
            container(json!({"max": {"ephemeral-storage": "50Mi"}})),
            Some(
                "in namespace shop-10, LimitRange it allows each container at most 50Mi ephemeral-storage, and the agent has",
            ),
        ),
        range(
            "shop-11",
            container(
                json!({"min": {"ephemeral-storage": "10Mi"}, "default": {"ephemeral-storage": "200Mi"}}),
            ),
            Some(
                "in namespace shop-11, LimitRange it demands at least 10Mi ephemeral-storage of each container, and the agent has 0",
            ),
        ),
        Case {
            namespace: "shop-12",
            kind: "LimitRange",
            spec: json!({"limits": [
                {"type": "Pod", "max": {"ephemeral-storage": "50Mi"}},
                {"type": "Container", "default": {"ephemeral-storage": "10Mi"}},
            ]}),
            reported: Some(
                "in namespace shop-12, LimitRange it allows each pod at most 50Mi ephemeral-storage, and the agent alone has",
            ),
        },
        // These take the pod with its sidecar: bounds that it keeps, and defaults that are given to containers.
        range(
            "shop-7",
            container(
                json!({"min": {"cpu": "5m", "memory": "1Mi"}, "max": {"cpu": "1", "memory": "64Mi"},
                "default": {"cpu": "10m", "memory": "2Mi"}, "defaultRequest": {"cpu": "10m"},
                "maxLimitRequestRatio": {"cpu": "1"}}),
            ),
            None,
        ),
        quota(
            "shop-8",
            json!({"hard": {"requests.cpu": "1", "limits.cpu": "1", "requests.memory": "1Gi", "limits.memory": "1Gi"}}),
            None,
        ),
        quota(
            "shop-9",
            json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]}),
            None,
        ),
        range(
            "shop-13",
            container(json!({"min": {"ephemeral-storage": "10Mi"}})),
            None,
        ),
        range(
            "shop-14",
            container(
                json!({"max": {"ephemeral-storage": "1Gi"}, "default": {"ephemeral-storage": "10Mi"}}),
            ),
            None,
        ),
        quota(
            "shop-15",
            json!({"hard": {"limits.ephemeral-storage": "1Mi", "requests.ephemeral-storage": "1Mi"}}),
            None,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_limits_that_refuse_the_sidecar() {
    if !server::is_possible("limits on a real API server") {
        return;
    }
    let bed = tokio::task::spawn_blocking(|| bed("limits")).await.unwrap();
    let server = Server::of(bed.kubeconfig(), None).await;
    for case in cases() {
        server
            .namespace(case.namespace, json!({"team": "shop"}))
            .await;
    }
    // It demands the most, and is not selected.
    server.namespace("elsewhere", json!({})).await;
    let unselected = json!({"limits": [{"type": "Container", "max": {"cpu": "1m"}}]});
    demand(&server, "elsewhere", "LimitRange", &unselected).await;
    let standing = server.create_pod("shop-5", &app("20m", false), false).await;
    assert!(standing.is_ok(), "{standing:?}");
    let agent = json!({"apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent", "metadata": {"name": "side"},
        "spec": {"mode": "Sidecar", "export": {"endpoint": "http://c.o.svc:4317"},
            "agent": {"resources": {"limits": {"cpu": "50m", "memory": "64Mi"}}},
            "buffer": {"disk": {"size": "64Mi"}},
            "workloads": {"namespaceSelector": {"matchLabels": {"team": "shop"}},
                "podSelector": {"matchLabels": {"app": "shop"}}}}});
    let applied = server.apply_at(AGENTS, "side", &agent).await;
    assert!(applied.is_ok(), "{applied:?}");
    let operator = InstalledOperator::start(&bed, InjectionSettings::default()).await;
    until_injected(&server, "True", "are injected when they are created").await;

    for case in cases() {
        demand(&server, case.namespace, case.kind, &case.spec).await;
        // The demand of a minimum is met by the application itself.
        let cpu = if case.namespace == "shop-2" {
            "100m"
        } else {
            "10m"
        };
        let reported = case.reported.is_some();
        if let Some(words) = case.reported {
            until_injected(&server, "False", words).await;
        }
        until_taken(&server, case.namespace, &app(cpu, true), !reported).await;
        until_taken(&server, case.namespace, &app(cpu, false), true).await;
        if !reported {
            // What is said of the next one is said after this was seen.
            assert_eq!(
                injected(&server).await["status"],
                "True",
                "{}",
                case.namespace
            );
            continue;
        }
        let plural = format!("{}s", case.kind.to_lowercase());
        let path = format!("/api/v1/namespaces/{}/{plural}", case.namespace);
        let deleted = server.delete_at(&path, "it").await;
        assert!(deleted.is_ok(), "{deleted:?}");
        until_injected(&server, "True", "are injected when they are created").await;
    }
    installed::end(operator, bed).await;
}

async fn demand(server: &Server, namespace: &str, kind: &str, spec: &Value) {
    let object =
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "it"}, "spec": spec});
    let path = format!("/api/v1/namespaces/{namespace}/{}s", kind.to_lowercase());
    let applied = server.apply_at(&path, "it", &object).await;
    assert!(applied.is_ok(), "{applied:?}");
}

/// An application with so much cpu, and whether it wants to be injected.
fn app(cpu: &str, injected: bool) -> Value {
    let amounts = json!({"cpu": cpu, "memory": "2Mi"});
    let mut labels = json!({"app": "shop"});
    if !injected {
        labels[names::LABEL_INJECT] = json!("false");
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-", "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "app:1",
            "resources": {"requests": amounts, "limits": amounts}}]}})
}

/// Until the API server takes the pod, or refuses it: its own caches lag a little.
async fn until_taken(server: &Server, namespace: &str, pod: &Value, wanted: bool) {
    let begun = Instant::now();
    loop {
        let answer = server.dry_run(namespace, pod).await;
        let is_injected = answer.label(names::LABEL_AGENT).is_some();
        let wants_it = pod["metadata"]["labels"][names::LABEL_INJECT].is_null();
        if answer.is_ok() == wanted && (!wanted || is_injected == wants_it) {
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{namespace}, taken should be {wanted}: {answer:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn injected(server: &Server) -> Value {
    let agent = server.get(&format!("{AGENTS}/side")).await;
    let conditions = agent.body["status"]["conditions"].as_array().cloned();
    let mut conditions = conditions.unwrap_or_default().into_iter();
    conditions
        .find(|condition| condition["type"] == "Injected")
        .unwrap_or_default()
}

async fn until_injected(server: &Server, status: &str, words: &str) {
    let begun = Instant::now();
    loop {
        let condition = injected(server).await;
        let message = condition["message"].as_str().unwrap_or_default();
        if condition["status"] == status && message.contains(words) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{words}: {condition}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
