//! A platform namespace in which the operator has no rights.

use http::Method;
use serde_json::{Value, json};

use super::{PLATFORM, WITHOUT_ROLE, create, for_label, world};
use crate::simulated::cluster::platform;
use crate::threats::bed::{agent_path, condition, is_possible, sidecar, until};

#[tokio::test(flavor = "multi_thread")]
async fn platform_namespace_without_rights_concerns_its_own_agents_only() {
    if !is_possible("a platform namespace without its Role") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    admin
        .namespace(WITHOUT_ROLE, json!({"platforms": "yes"}))
        .await;
    create(&admin, WITHOUT_ROLE, "p-here", &sidecar(&json!({}))).await;
    let path = agent_path(WITHOUT_ROLE, "p-here");
    let ready = async || condition(&admin.get(&path).await.body["status"], "Ready");
    let says = async |key: &str, value: &str| {
        let ready = ready().await;
        let is_so = ready[key] == value;
        is_so
            .then_some(ready.clone())
            .ok_or_else(|| ready.to_string())
    };
    let told = until("the missing rights", async || {
        says("reason", "PlatformRightsMissing").await
    });
    let told = told.await;
    let message = told["message"].as_str().unwrap_or_default();
    for named in [WITHOUT_ROLE, "apply manifests/platform-namespace"] {
        assert!(message.contains(named), "{named} in: {message}");
    }
    create(
        &admin,
        PLATFORM,
        "p-there",
        &for_label("NodeLocal", "platforms"),
    )
    .await;
    admin.until_injecting(PLATFORM, "p-there").await;

    for (path, object) in platform(WITHOUT_ROLE).into_iter().skip(1) {
        admin.must(Method::POST, &path, &object).await;
    }
    until("the rights are known", async || {
        says("status", "True").await
    })
    .await;

    // A namespace that is deleted while the operator runs takes nobody along.
    let namespace = format!("/api/v1/namespaces/{WITHOUT_ROLE}");
    admin.must(Method::DELETE, &namespace, &Value::Null).await;
    until("the namespace is gone", async || {
        let found = admin.get(&namespace).await;
        (found.status == 404)
            .then_some(())
            .ok_or_else(|| found.body.to_string())
    })
    .await;
    admin
        .namespace("p-later", json!({"platforms": "yes"}))
        .await;
    admin.until_injecting(PLATFORM, "p-there").await;
    let by = until("injection goes on", async || {
        admin.injected_by("p-later").await.ok_or_else(String::new)
    });
    assert_eq!(by.await, "otelagent-system.p-there");
}
