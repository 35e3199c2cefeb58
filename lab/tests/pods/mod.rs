//! What becomes of pods that an `OtelAgent` should have and does not have: orphans, pods that cannot be injected,
//! pods of an `OtelAgent` that selects nothing; and workloads that somebody claims are being restarted.
//!
//! The operator is the real controller on a real control plane, with the rights of the installed `ServiceAccount`.
//! Nodes and their pods are simulated. Two of its platform namespaces lack the operator's Role, and one of them does
//! not exist: every test here shows that the operator starts nevertheless.

mod argo;
mod orphans;
mod platform;
mod restarts;
mod uninjectable;

use std::sync::OnceLock;
use std::time::Duration;

use http::Method;
use kube::Client;
use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};

use crate::client::direct_config;
use crate::simulated::kubelet;
use crate::status_checker::mismatches_within;
use crate::threats::bed::{Caller, PLATFORM, ThreatBed, agent_path, condition, settings};

/// A platform namespace that lacks the operator's Role.
const WITHOUT_ROLE: &str = "observability";
/// A platform namespace that does not exist.
const MISSING: &str = "nowhere";
/// How long the status may lag behind the cluster before it counts as wrong.
const LAG: Duration = Duration::from_mins(2);

/// The bed that these tests share, with its operator. It ends with this process, which it watches.
pub(crate) async fn world() -> &'static ThreatBed {
    static WORLD: OnceLock<ThreatBed> = OnceLock::new();
    let made = tokio::task::spawn_blocking(|| {
        WORLD.get_or_init(|| {
            let world = ThreatBed::start("pods", |bed| bed);
            world.kubectl(&["apply", "-k", "manifests/restart"]);
            kubelet::start_apart(world.bed.kubeconfig(), |_| ());
            let mut settings = settings(InjectionSettings::default());
            let further = [WITHOUT_ROLE, MISSING].map(str::to_owned);
            settings.platform_namespaces.extend(further);
            world.run_operator(settings);
            world
        })
    });
    made.await.unwrap()
}

pub(crate) fn deployments(namespace: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/deployments")
}

/// A Deployment whose pods every level of Pod Security accepts, unless `more` of their spec says otherwise.
pub(crate) fn deployment(name: &str, replicas: usize, more: &Value) -> Value {
    let labels = json!({"app": name});
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut spec = json!({
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "app", "image": "app:1", "securityContext": security}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": spec},
    }})
}

pub(crate) async fn deploy(admin: &Caller, namespace: &str, name: &str, more: &Value) {
    let path = deployments(namespace);
    admin
        .must(Method::POST, &path, &deployment(name, 2, more))
        .await;
}

/// An `OtelAgent` of the platform that selects namespaces with this label.
pub(crate) fn for_label(mode: &str, key: &str) -> Value {
    json!({"mode": mode, "export": {"endpoint": "http://c.o.svc:4317"},
        "workloads": {"namespaceSelector": {"matchLabels": {key: "yes"}}}})
}

pub(crate) async fn create(admin: &Caller, namespace: &str, name: &str, spec: &Value) {
    let answer = admin.agent(namespace, name, spec).await;
    assert!(answer.is_ok(), "{answer:?}");
}

async fn delete(admin: &Caller, namespace: &str, name: &str) {
    let path = agent_path(namespace, name);
    admin.must(Method::DELETE, &path, &Value::Null).await;
}

/// Waits until the status has these counts of pods.
pub(crate) async fn until_counted(
    admin: &Caller,
    (namespace, name): (&str, &str),
    counts: &[(&str, usize)],
) -> Value {
    let is_so = |status: &Value| {
        counts
            .iter()
            .all(|(key, count)| status["pods"][*key] == *count)
    };
    let what = format!("{counts:?}");
    admin.until_status(namespace, name, &what, is_so).await
}

/// Waits until `Injected` has this reason with these counts; its status and message.
async fn until_said(
    admin: &Caller,
    (namespace, name): (&str, &str),
    reason: &str,
    counts: &[(&str, usize)],
) -> (String, String) {
    let is_so = |status: &Value| {
        let are_counted = |(key, count): &(&str, usize)| status["pods"][*key] == *count;
        injected(status)[1] == reason && counts.iter().all(are_counted)
    };
    let what = format!("{reason} {counts:?}");
    let status = admin.until_status(namespace, name, &what, is_so).await;
    let [is_injected, _, message] = injected(&status);
    (is_injected, message)
}

/// The status agrees with the documentation.
pub(crate) async fn until_right(world: &ThreatBed, namespace: &str, name: &str) {
    let client = Client::try_from(direct_config(world.bed.kubeconfig()).await).unwrap();
    let found = mismatches_within(&client, namespace, name, LAG)
        .await
        .unwrap();
    assert!(found.is_empty(), "{namespace}/{name}: {found:#?}");
}

/// Status, reason and message of the condition `Injected`.
fn injected(status: &Value) -> [String; 3] {
    let condition = condition(status, "Injected");
    ["status", "reason", "message"]
        .map(|key| condition[key].as_str().unwrap_or_default().to_owned())
}
