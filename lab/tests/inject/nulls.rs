//! What an API server keeps of a null in `spec.config`: the operator has to know what it means.

use serde_json::{Value, json};

use super::installed;
use super::server::{self, Server};

const AGENTS: &str = "/apis/otelagent.dev/v1alpha1/namespaces/otelagent-system/otelagents";

fn agent(name: &str) -> Value {
    json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
        "metadata": {"name": name, "namespace": "otelagent-system"},
        "spec": {
            "mode": "NodeLocal",
            "export": {"endpoint": "http://c.o.svc:4317"},
            "config": {"receivers": {"otlp": {"protocols": {"grpc": null, "http": {"endpoint": null}}}}, "service": null},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn null_in_spec_config_is_kept_when_it_is_created_or_applied() {
    if !server::is_possible("a null in spec.config on a real API server") {
        return;
    }
    let bed = tokio::task::spawn_blocking(|| installed::bed("nulls"))
        .await
        .unwrap();
    let server = Server::of(bed.kubeconfig(), None).await;
    let created = server.create_at(AGENTS, &agent("created")).await;
    assert!(created.is_ok(), "{created:?}");
    let applied = server.apply_at(AGENTS, "applied", &agent("applied")).await;
    assert!(applied.is_ok(), "{applied:?}");
    for name in ["created", "applied"] {
        let kept = server.get(&format!("{AGENTS}/{name}")).await;
        assert_eq!(
            kept.body["spec"]["config"],
            agent(name)["spec"]["config"],
            "{name}"
        );
    }
    tokio::task::spawn_blocking(|| bed.stop())
        .await
        .unwrap()
        .unwrap();
}
