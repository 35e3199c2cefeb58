//! Nodes without an agent: the status names what runs there, and whether the route can be used.

use demo::apps::{self, App};
use demo::images;
use serde_json::{Value, json};

use super::{World, condition, world};

#[test]
fn pods_on_a_node_without_their_modes_agent_are_named() {
    let Some(world) = world("pods without an agent on their node") else {
        return;
    };
    let nodes = world.cluster.node_names().unwrap();
    let only_first = format!(
        "mode: NodeLocal, agent: {{nodeSelector: {{kubernetes.io/hostname: {}}}}}",
        nodes[0]
    );
    world.agent("partly", "partly", &only_first);
    world.until_serving("partly", "NodeLocal");
    let app = App {
        namespace: "partly".into(),
        ..App::go_sdk()
    };
    // One pod on each node.
    apps::apply(&world.kubectl, &[app]).unwrap();
    let agent = world.until_status("partly", "the pod on the other node", |status| {
        status["pods"]["uncovered"] == 1
    });
    let ready = condition(&agent["status"], "Ready");
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("False"), &json!("PodsUncovered"))
    );
    let message = ready["message"].as_str().unwrap_or_default();
    let other = &nodes[1];
    let named = format!(
        "1 of 2 pods run on nodes without a ready agent of their mode (Deployment partly/go-sdk: 1; {other}, \
         which the agents leave out: it has label kubernetes.io/hostname={other}, not {})",
        nodes[0]
    );
    assert!(message.starts_with(&named), "{message}");

    world.patch("partly", &json!({"spec": {"agent": null}}));
    world.until_status("partly", "agents on both nodes", |status| {
        status["pods"]["uncovered"] == 0 && condition(status, "Ready")["reason"] == "Serving"
    });
    world.end_namespace("partly");
}

#[test]
fn node_with_a_taken_port_is_named_and_keeps_the_old_route() {
    let Some(world) = world("a node whose port is taken") else {
        return;
    };
    let nodes = world.cluster.node_names().unwrap();
    take_port(&world, &nodes[1]);
    world.agent("blocked", "nobody", "mode: NodeLocal");
    world.until_serving("blocked", "NodeLocal");
    world.patch("blocked", &json!({"spec": {"mode": "HostPort"}}));
    let named = format!(
        "HostPort is not ready, NodeLocal keeps serving: node {}: agent blocked-host-port-",
        nodes[1]
    );
    let agent = world.until_status("blocked", "the node and why", |status| {
        let message = condition(status, "Switching")["message"].as_str();
        message.is_some_and(|text| text.starts_with(&named) && text.contains("free ports"))
    });
    assert_eq!(agent["status"]["mode"], "NodeLocal");

    world.patch(
        "blocked",
        &json!({"spec": {"switchover": {"maxUnready": "50%"}}}),
    );
    world.until_serving("blocked", "HostPort");
    let agent = world.get("blocked");
    let message = condition(&agent["status"], "Ready")["message"].as_str();
    assert!(
        message.is_some_and(|message| message.contains(&format!("node {}", nodes[1]))),
        "named all the same: {message:?}"
    );
    world
        .kubectl
        .run(&["delete", "pod", "taker", "--namespace=default", "--now"])
        .unwrap();
}

/// A pod that holds the node's port for OTLP/gRPC.
fn take_port(world: &World, node: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "taker", "namespace": "default"},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [{
                "name": "taker", "image": images::LEDGER, "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 4317, "hostPort": 4317}],
            }],
        },
    });
    world.kubectl.apply(&pod.to_string()).unwrap();
    world.until(
        "the port taken",
        &["pod", "taker", "--namespace=default"],
        |pod: &Value| pod["spec"]["nodeName"] == node,
    );
}
