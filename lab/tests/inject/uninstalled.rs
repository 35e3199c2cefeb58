//! A server without admission policies that inject, on which only `manifests/default` is installed: what needs no
//! injection works, and the rest is told, until the webhook is installed.

use std::time::Duration;

use kube::Client;
use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};
use testbed::{Bed, KubernetesVersion};

use super::callee::Callee;
use super::installed::{self, InstalledOperator};
use super::server::{self, Server};
use crate::simulated::kubelet;

/// The longest time to wait for any result.
const PATIENCE: Duration = Duration::from_mins(4);
const OPERATOR: &str = "system:serviceaccount:otelagent-system:otelagent-operator";

fn kubectl(bed: &Bed, words: &[&str]) {
    let mut command = bed.kubectl();
    let output = command.args(words).current_dir(demo::repository()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "kubectl {words:?}: {output:?}");
}

fn older_bed() -> Bed {
    let name = format!("uninstalled-{}", std::process::id());
    let bed = Bed::builder()
        .name(name)
        .kubernetes(KubernetesVersion::V1_35)
        // The scheduler is a newer one, and would wait for kinds that this server does not have.
        .scheduler_arg("--emulated-version=kube=1.35");
    let bed = bed.start().expect("a control plane");
    kubectl(&bed, &["apply", "-k", "manifests/default"]);
    let crd = "crd/otelagents.otelagent.dev";
    kubectl(&bed, &["wait", "--for=condition=Established", crd]);
    bed
}

fn path(namespace: &str) -> String {
    format!("/apis/otelagent.dev/v1alpha1/namespaces/{namespace}/otelagents")
}

async fn apply(server: &Server, namespace: &str, name: &str, spec: Value) {
    let agent = json!({"apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent", "metadata": {"name": name}, "spec": spec});
    let applied = server.apply_at(&path(namespace), name, &agent).await;
    assert!(applied.is_ok(), "{applied:?}");
}

/// Waits until the status is about the present spec and has these reasons of `Ready` and `Injected`.
async fn until(server: &Server, namespace: &str, name: &str, reasons: [&str; 2]) {
    let begun = std::time::Instant::now();
    loop {
        let agent = server
            .get(&format!("{}/{name}", path(namespace)))
            .await
            .body;
        let status = &agent["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let reason = |type_: &str| {
            let mut conditions = conditions.iter();
            let found = conditions.find(|condition| condition["type"] == type_);
            found.map_or(Value::Null, |found| found["reason"].clone())
        };
        let is_current = status["observedGeneration"] == agent["metadata"]["generation"];
        if is_current && [reason("Ready"), reason("Injected")] == reasons {
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{name}, {reasons:?}: {status:#}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_mode_without_workloads_serves_and_the_missing_webhook_is_told_on_1_35() {
    if !server::is_possible("an older server without the webhook") {
        return;
    }
    let bed = tokio::task::spawn_blocking(older_bed).await.unwrap();
    let server = Server::of(bed.kubeconfig(), None).await;
    let admin = Client::try_from(Server::config(bed.kubeconfig(), None).await).unwrap();
    kubelet::start(&admin).await;
    server.namespace("shop", json!({})).await;
    let callee = Callee::start_with_what_is_kept(&bed).await;
    let settings = InjectionSettings {
        webhook_url: Some(callee.url().to_owned()),
        ..InjectionSettings::default()
    };
    let owner = Some("otelagent-owner");
    let operator = InstalledOperator::start_as(&bed, settings, Some(OPERATOR), owner).await;

    let export = json!({"endpoint": "http://c.o.svc:4317"});
    let platform = "otelagent-system";
    apply(
        &server,
        platform,
        "plain",
        json!({"mode": "HostPort", "export": export}),
    )
    .await;
    until(&server, platform, "plain", ["Serving", "NoWorkloads"]).await;

    let selecting = |interval: &str| {
        json!({"mode": "NodeLocal", "export": export, "ports": {"grpc": 14317, "http": 14318}, "workloads": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
            "flushInterval": interval,
        }})
    };
    apply(&server, platform, "selecting", selecting("500ms")).await;
    apply(
        &server,
        "shop",
        "side",
        json!({"mode": "Sidecar", "export": export, "workloads": {}}),
    )
    .await;
    let missing = ["WebhookNotInstalled"; 2];
    until(&server, platform, "selecting", missing).await;
    until(&server, "shop", "side", missing).await;
    // Later changes are carried out, too.
    apply(&server, platform, "selecting", selecting("700ms")).await;
    until(&server, platform, "selecting", missing).await;
    let plain = json!({"mode": "HostNetwork", "export": export});
    apply(&server, platform, "plain", plain).await;
    until(&server, platform, "plain", ["Serving", "NoWorkloads"]).await;

    for part in ["owner", "rbac", "authority"] {
        kubectl(
            &bed,
            &["apply", "-f", &format!("manifests/webhook/{part}.yaml")],
        );
    }
    until(&server, platform, "selecting", ["Serving", "Active"]).await;
    until(&server, "shop", "side", ["Serving", "Active"]).await;
    installed::end(operator, bed).await;
}
