//! The engine changes on a running cluster, also one of two releases at a time, and the CA of the webhook expires, while
//! pods are created. Every pod is injected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use demo::{Kubectl, wait};
use k8s_openapi::ByteString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use otelagent_core::build::Choice;
use otelagent_core::names;
use otelagent_operator::controller::InjectionSettings;
use otelagent_webhook::ca::Ca;
use serde_json::{Value, json};
use testbed::KubernetesVersion;
use tokio::task::JoinHandle;

use super::callee::Callee;
use super::installed::{self, AGENTS, InstalledOperator, apply_side, bed, begin};
use super::server::{self, Server};

/// The longest time to wait for any result.
const PATIENCE: Duration = Duration::from_mins(4);
/// Of one CA; the next is made at two thirds.
const LIFE: Duration = Duration::from_secs(150);
const AGENT: &str = "shop.side";
/// How often the API server has asked each engine about pods of applications.
const ASKED_POLICY: [&str; 2] = [
    "apiserver_mutating_admission_policy_check_total{",
    "policy_binding=\"otelagent.shop.side\"",
];
const ASKED_WEBHOOK: [&str; 2] = [
    "apiserver_admission_webhook_admission_duration_seconds_count{",
    "name=\"pods.injection.otelagent.dev\"",
];

#[tokio::test(flavor = "multi_thread")]
async fn change_of_engine_or_ca_loses_no_pod() {
    let Some((bed, server)) = begin("a change of the engine on a real API server", "engines").await
    else {
        return;
    };
    let (server, kubectl) = (Arc::new(server), Kubectl::new(&bed.kubectl()));
    apply_side(&server, json!({})).await;
    let callee = Callee::start_with_what_is_kept(&bed).await;
    let choosing = |engine| InjectionSettings {
        engine,
        webhook_url: Some(callee.url().to_owned()),
        ca_file: None,
        ca_lifetime: LIFE,
        ..InjectionSettings::default()
    };

    let operator = InstalledOperator::start(&bed, choosing(Choice::Policy)).await;
    until(&server, "injected by policy", |seen| {
        seen.injected && seen.bindings == 1 && seen.configurations.is_empty()
    })
    .await;
    let creator = DryRunCreator::start(server.clone());

    operator.end().await;
    let before = asked(&kubectl, ASKED_WEBHOOK).unwrap();
    let operator = InstalledOperator::start(&bed, choosing(Choice::Webhook)).await;
    until(&server, "both engines", |seen| {
        seen.injected && seen.bindings == 1 && seen.policies == 1 && seen.configurations.len() == 1
    })
    .await;
    until_asked(&kubectl, ASKED_WEBHOOK, before);
    a_day_passes(&server, "mutatingwebhookconfigurations").await;
    until(&server, "the webhook alone", |seen| {
        seen.injected && seen.bindings == 0 && seen.policies == 0 && seen.configurations.len() == 1
    })
    .await;
    // One CA, then two that are trusted, then the new one signs, then the old one is forgotten.
    until(&server, "two CAs trusted", |seen| seen.trusted == 2).await;
    until(&server, "the new CA alone", |seen| {
        seen.trusted == 1 && seen.injected
    })
    .await;

    operator.end().await;
    let before = asked(&kubectl, ASKED_POLICY).unwrap();
    let operator = InstalledOperator::start(&bed, choosing(Choice::Auto)).await;
    until(&server, "both engines", |seen| {
        seen.injected && seen.bindings == 1 && seen.configurations.len() == 1
    })
    .await;
    until_asked(&kubectl, ASKED_POLICY, before);
    a_day_passes(&server, "mutatingadmissionpolicybindings").await;
    until(&server, "policies alone", |seen| {
        seen.injected && seen.bindings == 1 && seen.configurations.is_empty()
    })
    .await;
    let (created, missed) = creator.end().await;
    assert!(
        missed.is_empty(),
        "{} of {created}: {missed:?}",
        missed.len()
    );
    assert!(created > 500, "{created} pods were created");

    let deleted = server.delete_at(AGENTS, "side").await;
    assert!(deleted.is_ok(), "{deleted:?}");
    until(&server, "nothing left", |seen| {
        seen.bindings == 0 && seen.policies == 0 && seen.configurations.is_empty()
    })
    .await;
    installed::end(operator, bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_of_two_releases_loses_no_pod_on_1_35() {
    if !server::is_possible("API servers of two releases on one etcd") {
        return;
    }
    let (bed, older) = tokio::task::spawn_blocking(|| {
        let bed = bed("releases");
        let older = bed.start_second_apiserver_of(KubernetesVersion::V1_35);
        (bed, older.expect("another API server"))
    })
    .await
    .unwrap();
    let newer = Arc::new(Server::of(bed.kubeconfig(), None).await);
    let older_server = Arc::new(Server::of(&older, None).await);
    newer.namespace("shop", json!({})).await;
    apply_side(&newer, json!({})).await;
    let callee = Callee::start_with_what_is_kept(&bed).await;
    let settings = || InjectionSettings {
        webhook_url: Some(callee.url().to_owned()),
        ..InjectionSettings::default()
    };

    // Before the upgrade, and while its first servers are new.
    let operator = InstalledOperator::start_at(&older, settings()).await;
    until(&older_server, "the webhook", |seen| {
        seen.injected && seen.configurations.len() == 1
    })
    .await;
    let creators = [&older_server, &newer].map(|server| DryRunCreator::start(server.clone()));
    operator.end().await;
    let operator = InstalledOperator::start(&bed, settings()).await;
    until(&newer, "both engines", |seen| {
        seen.injected && seen.bindings == 1 && seen.configurations.len() == 1
    })
    .await;
    // Longer than an older policy stays.
    let bound = bound_at(&newer, "mutatingadmissionpolicybindings").await;
    until(&newer, "both engines a minute later", |seen| {
        assert_eq!(seen.configurations.len(), 1, "{seen:?}");
        Timestamp::now().duration_since(bound) > SignedDuration::from_mins(1)
    })
    .await;
    for creator in creators {
        let (created, missed) = creator.end().await;
        assert!(
            missed.is_empty(),
            "{} of {created}: {missed:?}",
            missed.len()
        );
        assert!(created > 200, "{created} pods were created");
    }
    a_day_passes(&newer, "mutatingadmissionpolicybindings").await;
    until(&newer, "policies alone", |seen| {
        seen.injected && seen.bindings == 1 && seen.configurations.is_empty()
    })
    .await;
    installed::end(operator, bed).await;
}

/// How often the API server has asked an engine, by its own count.
fn asked(kubectl: &Kubectl, [metric, label]: [&str; 2]) -> demo::Result<f64> {
    let page = kubectl.run(&["get", "--raw", "/metrics"])?;
    let counts = page
        .lines()
        .filter(|line| line.starts_with(metric) && line.contains(label));
    let counts = counts.filter_map(|line| line.rsplit(' ').next());
    Ok(counts.map(|count| count.parse::<f64>().unwrap()).sum())
}

/// Waits until the API server asks an engine about the pods of applications. In the day that an engine stays, each
/// API server learns the next one's binding; where the day is skipped, only this shows it.
fn until_asked(kubectl: &Kubectl, engine: [&str; 2], before: f64) {
    let look = || {
        let count = asked(kubectl, engine)?;
        Ok(wait::Seen::check(count > before, format!("{count} times")))
    };
    let what = format!("{engine:?} is asked");
    let waited = tokio::task::block_in_place(|| wait::until(&what, PATIENCE, look));
    waited.unwrap_or_else(|error| panic!("{error}"));
}

/// Moves the time at which the active binding was bound a day back.
async fn a_day_passes(server: &Server, plural: &str) {
    let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    let name = "otelagent.shop.side";
    let before = bound_at(server, plural).await - SignedDuration::from_hours(24);
    let live = server.get(&format!("{path}/{name}")).await.body;
    let aged = json!({
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {"name": name, "annotations": {names::ANNOTATION_BOUND_AT: before.to_string()}},
    });
    let applied = server.apply_at(&path, name, &aged).await;
    assert!(applied.is_ok(), "{applied:?}");
}

/// Since when the binding binds what it does, once it is there: its canary comes before it.
async fn bound_at(server: &Server, plural: &str) -> Timestamp {
    let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}/otelagent.shop.side");
    let begun = Instant::now();
    loop {
        let live = server.get(&path).await.body;
        let at = live["metadata"]["annotations"][names::ANNOTATION_BOUND_AT].as_str();
        if let Some(at) = at {
            return at.parse().expect("a time");
        }
        assert!(begun.elapsed() < PATIENCE, "{live:#}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Creates pods by dry-run, one after the other, and notes those that are not injected.
pub(super) struct DryRunCreator {
    stop: Arc<AtomicBool>,
    running: JoinHandle<(usize, Vec<String>)>,
}

impl DryRunCreator {
    pub(super) fn start(server: Arc<Server>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let running = tokio::spawn(async move {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-"},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
            let (mut created, mut missed, begun) = (0, Vec::new(), Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                let answer = server.dry_run("shop", &pod).await;
                let sidecars = answer.body["spec"]["initContainers"]
                    .as_array()
                    .map_or(0, Vec::len);
                let is_injected = answer.label(names::LABEL_AGENT) == Some(AGENT) && sidecars == 1;
                if !is_injected {
                    let at = begun.elapsed().as_secs_f32();
                    missed.push(format!(
                        "after {at} s: {} {}",
                        answer.status, answer.body["message"]
                    ));
                }
                created += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (created, missed)
        });
        Self { stop, running }
    }

    pub(super) async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.unwrap()
    }
}

/// The state of the cluster.
#[derive(Debug)]
struct Seen {
    injected: bool,
    bindings: usize,
    policies: usize,
    configurations: Vec<String>,
    /// How many CAs the webhook configuration trusts, if they are those in the Secret.
    trusted: usize,
}

async fn look(server: &Server) -> Seen {
    let agent = server
        .get("/apis/otelagent.dev/v1alpha1/namespaces/shop/otelagents/side")
        .await;
    let conditions = agent.body["status"]["conditions"].as_array().cloned();
    let injected = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Injected" && condition["status"] == "True");
    let items = async |plural: &str| {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
        let list = server.get(&path).await.body["items"].as_array().cloned();
        let ours = |item: &Value| {
            item["metadata"]["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("otelagent."))
        };
        list.unwrap_or_default()
            .into_iter()
            .filter(ours)
            .collect::<Vec<_>>()
    };
    let configurations = items("mutatingwebhookconfigurations").await;
    let secret = format!(
        "/api/v1/namespaces/otelagent-system/secrets/{}",
        names::ca_secret(names::WEBHOOK)
    );
    let secret = server.get(&secret).await.body["data"][names::CA_KEY].clone();
    let kept = serde_json::from_value::<ByteString>(secret).ok();
    let kept = kept.and_then(|bytes| Ca::parse(&String::from_utf8(bytes.0).unwrap()));
    let kept = kept.unwrap_or_default().bundle(Timestamp::now());
    let trusts = |configuration: &Value| {
        let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].clone();
        serde_json::from_value::<ByteString>(bundle).is_ok_and(|bundle| bundle.0 == kept.as_bytes())
    };
    Seen {
        injected,
        bindings: items("mutatingadmissionpolicybindings").await.len(),
        policies: items("mutatingadmissionpolicies").await.len(),
        trusted: if configurations.iter().any(trusts) {
            kept.matches("BEGIN").count()
        } else {
            0
        },
        configurations: configurations
            .iter()
            .map(|configuration| configuration["metadata"]["name"].to_string())
            .collect(),
    }
}

async fn until(server: &Server, what: &str, is_so: impl Fn(&Seen) -> bool) {
    let begun = Instant::now();
    loop {
        let seen = look(server).await;
        if is_so(&seen) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
