//! The Secret with the webhook's CA is deleted: the status says so while pods are still injected, and the operator
//! fills it again once it is back.

use otelagent_core::build::Choice;
use otelagent_core::names;
use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};

use super::callee::Callee;
use super::installed::{self, InstalledOperator, apply_side, begin, until_condition};
use super::server::Server;

const SECRETS: &str = "/api/v1/namespaces/otelagent-system/secrets";

/// What the Secret holds.
async fn stored(server: &Server) -> Value {
    let path = format!("{SECRETS}/{}", names::ca_secret(names::WEBHOOK));
    server.get(&path).await.body["data"].clone()
}

/// Waits until a pod created now is injected.
async fn until_injected(server: &Server) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-"},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
    server
        .until("a pod is injected", async || {
            let answer = server.dry_run("shop", &pod).await;
            let is_injected = answer.label(names::LABEL_AGENT).is_some();
            is_injected.then_some(()).ok_or(format!("{answer:?}"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_ca_is_told_while_pods_are_injected_and_is_the_same_once_it_is_back() {
    let Some((bed, server)) = begin("a CA that is deleted", "ca").await else {
        return;
    };
    let callee = Callee::start_with_what_is_kept(&bed).await;
    let settings = InjectionSettings {
        engine: Choice::Webhook,
        webhook_url: Some(callee.url().to_owned()),
        ..InjectionSettings::default()
    };
    let operator = InstalledOperator::start(&bed, settings).await;
    apply_side(&server, json!({})).await;
    let is_active = |injected: &Value| injected["reason"] == "Active";
    until_condition(&server, "the webhook", "Injected", is_active).await;
    until_injected(&server).await;
    let before = stored(&server).await;
    assert!(before[names::CA_KEY].is_string(), "{before}");

    let secret = names::ca_secret(names::WEBHOOK);
    let deleted = server.delete_at(SECRETS, &secret).await;
    assert!(deleted.is_ok(), "{deleted:?}");
    until_condition(&server, "told", "Injected", |injected| {
        let message = injected["message"].as_str().unwrap_or_default();
        injected["status"] == "True"
            && injected["reason"] == "CaNotKept"
            && message.contains(&secret)
            && message.contains("apply manifests/webhook")
    })
    .await;
    until_injected(&server).await;

    let empty = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": secret}});
    let applied = server.apply_at(SECRETS, &secret, &empty).await;
    assert!(applied.is_ok(), "{applied:?}");
    until_condition(&server, "mended", "Injected", is_active).await;
    assert_eq!(stored(&server).await, before);
    until_injected(&server).await;
    installed::end(operator, bed).await;
}
