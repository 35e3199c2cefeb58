//! Pods of an `OtelAgent` that is gone, or that another one has overtaken.

use http::Method;
use otelagent_core::names;
use serde_json::json;

use super::{
    PLATFORM, create, delete, deploy, for_label, until_counted, until_right, until_said, world,
};
use crate::threats::bed::{is_possible, pod, sidecar};

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_pods_are_named_and_restarted_by_whoever_selects_them() {
    if !is_possible("pods of a deleted OtelAgent") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    admin.namespace("o-shop", json!({"orphans": "yes"})).await;
    create(
        &admin,
        PLATFORM,
        "o-old",
        &for_label("NodeLocal", "orphans"),
    )
    .await;
    admin.until_injecting(PLATFORM, "o-old").await;
    deploy(&admin, "o-shop", "cart", &json!({})).await;
    until_counted(&admin, (PLATFORM, "o-old"), &[("injected", 2)]).await;

    delete(&admin, PLATFORM, "o-old").await;
    create(
        &admin,
        PLATFORM,
        "o-new",
        &for_label("NodeLocal", "orphans"),
    )
    .await;
    let orphaned = [("injected", 0), ("missed", 2), ("orphaned", 2)];
    let new = (PLATFORM, "o-new");
    let (_, message) = until_said(&admin, new, "PodsOrphaned", &orphaned).await;
    for named in ["otelagent-system.o-old", "Deployment o-shop/cart: 2"] {
        assert!(message.contains(named), "{named} in: {message}");
    }
    until_right(world, PLATFORM, "o-new").await;

    let rolling = json!({"workloads": {"restart": "Rolling"}});
    assert!(admin.change(PLATFORM, "o-new", &rolling).await.is_ok());
    let repaired = [
        ("injected", 2),
        ("current", 2),
        ("missed", 0),
        ("orphaned", 0),
    ];
    until_counted(&admin, (PLATFORM, "o-new"), &repaired).await;
    until_right(world, PLATFORM, "o-new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_agent_has_the_pods_of_its_predecessor() {
    if !is_possible("an OtelAgent that is created again") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    admin.namespace("o-again", json!({})).await;
    create(&admin, "o-again", "own", &sidecar(&json!({}))).await;
    admin.until_injecting("o-again", "own").await;
    deploy(&admin, "o-again", "cart", &json!({})).await;
    until_counted(&admin, ("o-again", "own"), &[("current", 2)]).await;

    delete(&admin, "o-again", "own").await;
    let another = sidecar(&json!({"workloads": {"flushInterval": "1s"}}));
    create(&admin, "o-again", "own", &another).await;
    let expected = [
        ("injected", 2),
        ("stale", 2),
        ("missed", 0),
        ("orphaned", 0),
    ];
    until_counted(&admin, ("o-again", "own"), &expected).await;
    until_right(world, "o-again", "own").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_stays_with_its_agent_and_is_missed_by_the_one_that_takes_it_over() {
    if !is_possible("a selection that moves") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    admin.namespace("o-move", json!({})).await;
    let of = |app: &str| {
        let selector = json!({"podSelector": {"matchLabels": {"app": app}}});
        sidecar(&json!({"workloads": selector}))
    };
    create(&admin, "o-move", "first", &of("cart")).await;
    admin.until_injecting("o-move", "first").await;
    create(&admin, "o-move", "second", &of("till")).await;
    admin.until_injecting("o-move", "second").await;
    deploy(&admin, "o-move", "cart", &json!({})).await;
    until_counted(&admin, ("o-move", "first"), &[("current", 2)]).await;

    assert!(admin.change("o-move", "first", &of("none")).await.is_ok());
    until_counted(
        &admin,
        ("o-move", "first"),
        &[("current", 2), ("missed", 0)],
    )
    .await;
    assert!(admin.change("o-move", "second", &of("cart")).await.is_ok());
    let taken = [("injected", 0), ("missed", 2), ("orphaned", 0)];
    let second = ("o-move", "second");
    let (_, message) = until_said(&admin, second, "PodsMissed", &taken).await;
    assert!(message.contains("OtelAgent o-move.first"), "{message}");
    for agent in ["first", "second"] {
        until_right(world, "o-move", agent).await;
    }
    // The older one has precedence again.
    assert!(admin.change("o-move", "first", &of("cart")).await.is_ok());
    until_counted(&admin, ("o-move", "second"), &[("missed", 0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_of_the_same_name_in_another_namespace_makes_no_orphans_and_saves_none() {
    if !is_possible("two OtelAgents of one name") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    for namespace in ["o-one", "o-two"] {
        admin.namespace(namespace, json!({})).await;
        create(&admin, namespace, "twin", &sidecar(&json!({}))).await;
        admin.until_injecting(namespace, "twin").await;
    }
    deploy(&admin, "o-two", "cart", &json!({})).await;
    // Neither may an OtelAgent of a tenant act on other namespaces, whatever a pod's label says.
    let claim = pod(json!({names::LABEL_AGENT: "o-one.twin"}));
    admin
        .must(Method::POST, "/api/v1/namespaces/o-two/pods", &claim)
        .await;
    let expected = [("injected", 2), ("missed", 1), ("orphaned", 1)];
    until_counted(&admin, ("o-two", "twin"), &expected).await;
    delete(&admin, "o-one", "twin").await;
    until_counted(&admin, ("o-two", "twin"), &expected).await;
    until_right(world, "o-two", "twin").await;
}
