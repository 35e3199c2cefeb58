//! Pods that cannot be injected, and selections that hold nothing.

use http::Method;
use serde_json::{Value, json};

use super::{
    PLATFORM, create, deploy, deployments, for_label, injected, until_right, until_said, world,
};
use crate::threats::bed::{condition, is_possible, sidecar};

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_cannot_be_injected_are_named_and_never_restarted() {
    if !is_possible("pods that cannot be injected") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    admin.namespace("u-shop", json!({})).await;
    deploy(&admin, "u-shop", "cart", &json!({})).await;
    deploy(&admin, "u-shop", "cni", &json!({"hostNetwork": true})).await;
    let rolling = |interval: &str| {
        sidecar(&json!({"workloads": {"restart": "Rolling", "flushInterval": interval}}))
    };
    create(&admin, "u-shop", "own", &rolling("500ms")).await;
    for interval in ["500ms", "1s", "2s", "3s"] {
        assert!(
            admin
                .change("u-shop", "own", &rolling(interval))
                .await
                .is_ok()
        );
        let settled = [
            ("current", 2),
            ("stale", 0),
            ("missed", 2),
            ("uninjectable", 2),
        ];
        let own = ("u-shop", "own");
        let said = until_said(&admin, own, "PodsNotInjectable", &settled).await;
        let (is_injected, message) = said;
        assert_eq!(is_injected, "True", "{message}");
        for named in ["Deployment u-shop/cni", "host network"] {
            assert!(message.contains(named), "{named} in: {message}");
        }
        assert!(!message.contains("restart"), "{message}");
        until_right(world, "u-shop", "own").await;
    }
    let restarted = async |name: &str| {
        let path = format!("{}/{name}", deployments("u-shop"));
        let found = admin.must(Method::GET, &path, &Value::Null).await;
        found["spec"]["template"]["metadata"]["annotations"].is_object()
    };
    assert!(
        restarted("cart").await,
        "what a restart repairs is restarted"
    );
    assert!(!restarted("cni").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_that_selects_nothing_says_what_to_write() {
    if !is_possible("an OtelAgent that selects nothing") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    create(
        &admin,
        PLATFORM,
        "u-label",
        &for_label("NodeLocal", "unlabelled"),
    )
    .await;
    let is_said = |status: &Value| injected(status)[1] == "SelectsNothing";
    let what = "telling that it selects nothing";
    let status = admin.until_status(PLATFORM, "u-label", what, is_said).await;
    let command = "kubectl label namespace NAME unlabelled=yes";
    assert!(injected(&status)[2].contains(command), "{status}");
    until_right(world, PLATFORM, "u-label").await;
    admin
        .namespace("u-label", json!({"unlabelled": "yes"}))
        .await;
    admin.until_injecting(PLATFORM, "u-label").await;

    create(&admin, PLATFORM, "u-own", &sidecar(&json!({}))).await;
    let is_said = |status: &Value| {
        let accepted = condition(status, "Accepted");
        accepted["status"] == "False" && accepted["reason"] == "SelectsNothing"
    };
    admin.until_status(PLATFORM, "u-own", what, is_said).await;
}
