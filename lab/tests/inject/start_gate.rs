//! Pods with a start gate on real API servers: wherever the application's pod is taken, it is taken with the gate, keeps
//! its quality of service, and is charged no more to a quota.

use otelagent_core::inject::policy::PolicyInput;
use otelagent_core::names;
use otelagent_test_support::recipes::{self, input};
use serde_json::{Value, json};
use testbed::KubernetesVersion;

use super::callee::Callee;
use super::server::{self, Server};

#[tokio::test(flavor = "multi_thread")]
async fn gated_pods_are_taken_as_without_the_gate_by_policy_on_1_37() {
    let release = KubernetesVersion::V1_37;
    if !server::is_possible("pods with a start gate on 1.37") {
        return;
    }
    let server = Server::of_release(release, None).await;
    taken_as_without_the_gate(&server, "gate-policy", async |input| {
        server.activate(input).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gated_pods_are_taken_as_without_the_gate_by_webhook_on_1_33() {
    if !server::is_possible("pods with a start gate on 1.33") {
        return;
    }
    let bed = tokio::task::spawn_blocking(|| server::bed_of(KubernetesVersion::V1_33));
    let bed = bed.await.unwrap();
    let server = Server::of(bed.kubeconfig(), None).await;
    let callee = Callee::start(bed, &server).await;
    taken_as_without_the_gate(&server, "gate-webhook", async |input| {
        server.activate_webhook(input, &callee.engine()).await;
    })
    .await;
}

/// A namespace in which hardly anything is admitted: the strictest Pod Security level, bounds of each container, and a
/// quota that demands amounts of each container and has room for one pod.
async fn strict(server: &Server, namespace: &str) {
    let level = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    server.namespace(namespace, level).await;
    let item = json!({
        "type": "Container",
        "min": {"cpu": "10m", "memory": "20Mi"},
        "max": {"cpu": "100m", "memory": "64Mi"},
    });
    let quota = json!({"hard": {
        "requests.cpu": "100m", "requests.memory": "64Mi", "limits.cpu": "100m", "limits.memory": "64Mi",
    }});
    for (kind, spec) in [
        ("LimitRange", json!({"limits": [item]})),
        ("ResourceQuota", quota),
    ] {
        let object =
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "it"}, "spec": spec});
        let path = format!("/api/v1/namespaces/{namespace}/{}s", kind.to_lowercase());
        let applied = server.apply_at(&path, "it", &object).await;
        assert!(applied.is_ok(), "{applied:?}");
    }
    // Until then the quota refuses every pod.
    server
        .until("the quota counts", async || {
            let path = format!("/api/v1/namespaces/{namespace}/resourcequotas/it");
            let quota = server.get(&path).await.body;
            if quota["status"]["hard"].is_object() {
                Ok(())
            } else {
                Err(quota.to_string())
            }
        })
        .await;
}

/// A pod of the strictest level whose containers have these resources.
fn pod(resources: &Value, more: Value) -> Value {
    let container = |name: &str| {
        json!({
            "name": name, "image": "app:1", "resources": resources,
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        })
    };
    let mut spec = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [container("migrate")],
        "containers": [container("app")],
    });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-"}, "spec": spec})
}

async fn taken_as_without_the_gate(
    server: &Server,
    name: &str,
    activate: impl AsyncFn(&PolicyInput),
) {
    let plain = format!("{name}-plain");
    let strict_name = format!("{name}-strict");
    server.namespace(&plain, json!({})).await;
    server.namespace(name, json!({})).await;
    strict(server, &strict_name).await;
    let gated = recipes::recipe("start-gate");
    activate(&input(name, name, &gated)).await;
    activate(&input(&strict_name, &strict_name, &gated)).await;

    let most = json!({"cpu": "100m", "memory": "64Mi"});
    for (class, resources) in [
        ("BestEffort", json!({})),
        ("Burstable", json!({"requests": {"cpu": "50m"}})),
        ("Guaranteed", json!({"limits": most, "requests": most})),
    ] {
        for more in [json!({}), json!({"restartPolicy": "Never"})] {
            let pod = pod(&resources, more);
            let without = server.dry_run(&plain, &pod).await;
            let with = server.dry_run(name, &pod).await;
            assert!(without.is_ok() && with.is_ok(), "{with:?}");
            let first = &with.body["spec"]["initContainers"][0];
            assert_eq!(first["name"], names::START_GATE);
            assert_eq!(without.body["status"]["qosClass"], class);
            assert_eq!(with.body["status"]["qosClass"], class);
            // The token that the pod has is given to its own containers only.
            let mounts = first["volumeMounts"].to_string();
            assert!(!mounts.contains("kube-api-access"), "{mounts}");
        }
    }

    // As much as the quota has left. Its own caches lag a little.
    let pod = pod(&json!({"limits": most, "requests": most}), json!({}));
    server
        .until("a gated pod in a strict namespace", async || {
            let taken = server.create_pod(&strict_name, &pod, true).await;
            if !taken.is_ok() {
                return Err(taken.body["message"].to_string());
            }
            let first = &taken.body["spec"]["initContainers"][0];
            if first["name"] == names::START_GATE {
                Ok(())
            } else {
                Err("no gate".into())
            }
        })
        .await;
}
