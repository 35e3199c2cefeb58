//! Restarts that would do no good: new pods would not be injected, or not be created, or nothing would create them.

use http::Method;
use kube::Client;
use serde_json::{Value, json};

use super::{
    PLATFORM, create, deploy, deployments, for_label, injected, until_counted, until_right, world,
};
use crate::simulated::kubelet::register;
use crate::threats::bed::{Caller, condition, config, is_possible, sidecar};

/// When a Deployment was restarted last; null if never.
async fn restarted_at(admin: &Caller, namespace: &str, name: &str) -> Value {
    let path = format!("{}/{name}", deployments(namespace));
    let found = admin.must(Method::GET, &path, &Value::Null).await;
    let annotations = &found["spec"]["template"]["metadata"]["annotations"];
    annotations["kubectl.kubernetes.io/restartedAt"].clone()
}

/// Waits until a condition has this reason and its message these words.
async fn until_says(
    admin: &Caller,
    (namespace, name): (&str, &str),
    type_: &str,
    [reason, words]: [&str; 2],
) {
    let is_so = |status: &Value| {
        let found = condition(status, type_);
        let message = found["message"].as_str().unwrap_or_default();
        found["reason"] == reason && message.contains(words)
    };
    let what = format!("{type_} {reason}: {words}");
    admin.until_status(namespace, name, &what, is_so).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_would_not_be_injected_again_are_named_and_never_restarted() {
    if !is_possible("pods that would not be injected again") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    admin.namespace("r-again", json!({"again": "yes"})).await;
    let own = (PLATFORM, "r-again");
    let mut spec = for_label("HostPort", "again");
    spec["ports"] = json!({"grpc": 24317, "http": 24318});
    create(&admin, own.0, own.1, &spec).await;
    admin.until_injecting(own.0, own.1).await;
    deploy(&admin, "r-again", "cart", &json!({})).await;
    deploy(&admin, "r-again", "cni", &json!({"hostNetwork": true})).await;
    until_counted(&admin, own, &[("current", 4)]).await;

    let sidecars = json!({"mode": "Sidecar", "workloads": {"restart": "Rolling"}});
    assert!(admin.change(own.0, own.1, &sidecars).await.is_ok());
    until_counted(&admin, own, &[("current", 2), ("stale", 2)]).await;
    let why =
        "Deployment r-again/cni: its new pods would not be injected: it is on the host network";
    until_says(&admin, own, "Restarting", ["NotRestartable", why]).await;
    let why = "2 pods would not be injected again if they were restarted (Deployment r-again/cni: it is on the host network";
    until_says(&admin, own, "Switching", ["OldRouteInUse", why]).await;
    until_right(world, own.0, own.1).await;
    let of_cart = restarted_at(&admin, "r-again", "cart").await;
    assert!(of_cart.is_string(), "what a restart repairs is restarted");

    // Pods that are not selected any more keep what they have, too.
    let others = json!({"workloads": {
        "podSelector": {"matchLabels": {"app": "till"}}, "flushInterval": "1s",
    }});
    assert!(admin.change(own.0, own.1, &others).await.is_ok());
    until_counted(&admin, own, &[("current", 0), ("stale", 4)]).await;
    let why = "Deployment r-again/cart: its new pods would not be injected: this OtelAgent does not select it any more";
    until_says(&admin, own, "Restarting", ["NotRestartable", why]).await;
    until_right(world, own.0, own.1).await;
    assert_eq!(restarted_at(&admin, "r-again", "cart").await, of_cart);
    assert_eq!(restarted_at(&admin, "r-again", "cni").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn workload_waits_while_a_limit_would_refuse_its_new_pods() {
    if !is_possible("a limit that refuses sidecars while workloads restart") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    let own = ("r-limit", "own");
    admin.namespace("r-limit", json!({})).await;
    create(&admin, own.0, own.1, &sidecar(&json!({}))).await;
    admin.until_injecting(own.0, own.1).await;
    deploy(&admin, "r-limit", "cart", &json!({})).await;
    until_counted(&admin, own, &[("current", 2)]).await;

    let small = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "16Mi"}}]}});
    let ranges = "/api/v1/namespaces/r-limit/limitranges";
    admin.must(Method::POST, ranges, &small).await;
    let is_refused = |status: &Value| injected(status)[1] == "PodsRefused";
    admin
        .until_status(own.0, own.1, "PodsRefused", is_refused)
        .await;
    let rolling = json!({"workloads": {"restart": "Rolling", "flushInterval": "1s"}});
    assert!(admin.change(own.0, own.1, &rolling).await.is_ok());
    let why = "Deployment r-limit/cart: its new pods would be refused: LimitRange small allows each container at most 16Mi";
    until_says(&admin, own, "Restarting", ["Waiting", why]).await;
    until_right(world, own.0, own.1).await;
    assert_eq!(restarted_at(&admin, "r-limit", "cart").await, Value::Null);

    let small = format!("{ranges}/small");
    admin.must(Method::DELETE, &small, &Value::Null).await;
    until_counted(&admin, own, &[("current", 2), ("stale", 0)]).await;
    until_right(world, own.0, own.1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_whose_deployment_was_deleted_without_them_are_left_to_the_user() {
    if !is_possible("pods without their Deployment") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    let own = ("r-cascade", "own");
    admin.namespace("r-cascade", json!({})).await;
    create(&admin, own.0, own.1, &sidecar(&json!({}))).await;
    admin.until_injecting(own.0, own.1).await;
    deploy(&admin, "r-cascade", "cart", &json!({})).await;
    until_counted(&admin, own, &[("current", 2)]).await;
    // As kubectl delete --cascade=orphan.
    let options =
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"});
    let cart = format!("{}/cart", deployments("r-cascade"));
    admin.must(Method::DELETE, &cart, &options).await;
    let rolling = json!({"workloads": {"restart": "Rolling", "flushInterval": "1s"}});
    assert!(admin.change(own.0, own.1, &rolling).await.is_ok());
    let why = "Deployment r-cascade/cart: it does not exist, so nothing would replace its pods: delete them";
    until_says(&admin, own, "Restarting", ["NotRestartable", why]).await;
    until_right(world, own.0, own.1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_where_no_agent_runs_are_told_and_not_restarted() {
    if !is_possible("pods on a virtual node") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    let client = Client::try_from(config(world.bed.kubeconfig(), None).await).unwrap();
    let labels = json!({"kubernetes.io/os": "linux", "kubernetes.io/hostname": "r-virtual"});
    let taint = json!({"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"});
    let node =
        json!({"metadata": {"name": "r-virtual", "labels": labels}, "spec": {"taints": [taint]}});
    register(&client, node, 40).await;
    admin
        .namespace("r-virtual", json!({"virtual": "yes"}))
        .await;
    let own = (PLATFORM, "r-virtual");
    let mut spec = for_label("NodeLocal", "virtual");
    spec["workloads"]["restart"] = json!("Rolling");
    create(&admin, own.0, own.1, &spec).await;
    admin.until_injecting(own.0, own.1).await;
    let there = json!({
        "nodeSelector": {"kubernetes.io/hostname": "r-virtual"},
        "tolerations": [{"operator": "Exists"}],
    });
    deploy(&admin, "r-virtual", "cart", &there).await;
    until_counted(&admin, own, &[("current", 2), ("uncovered", 2)]).await;
    let why = "Deployment r-virtual/cart: its pods are where no agent runs, and new ones may be, too: node r-virtual";
    until_says(&admin, own, "Restarting", ["NotRestartable", why]).await;
    until_right(world, own.0, own.1).await;
    assert_eq!(restarted_at(&admin, "r-virtual", "cart").await, Value::Null);
    let node = "/api/v1/nodes/r-virtual";
    admin.must(Method::DELETE, node, &Value::Null).await;
}
