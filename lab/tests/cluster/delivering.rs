//! Whether telemetry gets through, on real nodes: one `OtelAgent` whose upstream fails in one way after the other.

use std::time::Duration;

use demo::apps::{self, App};
use demo::wait::{Seen, until};
use serde_json::{Value, json};

use super::{World, condition, world};
use crate::test_scale::is_full;

const NAMESPACE: &str = "delivering";
/// A minute until an agent says so, then a round of questions, and a roll-out before.
const PATIENCE: Duration = Duration::from_mins(5);
const UPSTREAM: &str = "http://otel-collector.observability.svc:4317";

#[test]
fn delivering_names_the_upstreams_error_and_where_it_is() {
    let Some(world) = world("whether telemetry gets through") else {
        return;
    };
    // Its agents are probed at a socket in their pod, and asked at their node's address.
    world.agent(NAMESPACE, NAMESPACE, "mode: HostNetwork");
    world.until_serving(NAMESPACE, "HostNetwork");
    let app = App {
        namespace: NAMESPACE.into(),
        ..App::go_sdk()
    };
    apps::apply(&world.kubectl, &[app]).unwrap();
    until_said(&world, "True", &["2 of 2 agents deliver"]);
    cut_off_one_node(&world);

    let typo = json!({"endpoint": UPSTREAM.replace("collector", "colector")});
    world.patch(NAMESPACE, &json!({"spec": {"export": typo}}));
    let [one, two] = nodes(&world).map(|node| format!("node {node}"));
    let parts = [
        "2 of 2 agents do not deliver: otlp_grpc: ",
        "otel-colector",
        &one,
        &two,
    ];
    until_said(&world, "False", &parts);
    until_shown(&world);
    // With `make test-full`: it takes three minutes more.
    if is_full() {
        wrong_token_of_sidecars(&world);
    }
    world.end_namespace(NAMESPACE);
}

/// The API server takes no wrong token. The agents of the old route have their pods no longer.
fn wrong_token_of_sidecars(world: &World) {
    let token = json!({
        "endpoint": "https://kubernetes.default.svc:443", "protocol": "http", "tls": {"insecureSkipVerify": true},
        "headers": [{"name": "authorization", "value": "Bearer wrong"}],
    });
    world.patch(
        NAMESPACE,
        &json!({"spec": {"mode": "Sidecar", "export": token}}),
    );
    world.until_serving(NAMESPACE, "Sidecar");
    apps::roll(&world.kubectl, NAMESPACE).unwrap();
    let parts = [
        "agents asked do not deliver: otlp_http: HTTP status 401",
        "pod delivering/go-sdk-",
    ];
    until_said(world, "False", &parts);
}

/// As a policy of the network would, which the bed's network plugin does not enforce.
fn cut_off_one_node(world: &World) {
    let Some(bed) = world.bed("a node without its upstream", "dropping packets of a node") else {
        return;
    };
    let pods: Value = world
        .kubectl
        .get(&[
            "pods",
            "--namespace=observability",
            "--selector=app.kubernetes.io/name=otel-collector",
        ])
        .unwrap();
    let upstream = &pods["items"][0];
    let address = upstream["status"]["podIP"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let nodes = nodes(world);
    let cut = nodes
        .iter()
        .position(|node| upstream["spec"]["nodeName"] != **node)
        .unwrap();
    let number = u8::try_from(cut).unwrap() + 1;
    bed.cut_off(number, address, true).unwrap();
    let named = format!("(node {})", nodes[cut]);
    until_said(
        world,
        "False",
        &["1 of 2 agents do not deliver: otlp_grpc: ", &named],
    );
    bed.cut_off(number, address, false).unwrap();
    until_said(world, "True", &["2 of 2 agents deliver"]);
}

fn nodes(world: &World) -> [String; 2] {
    world.cluster.node_names().unwrap().try_into().unwrap()
}

fn until_said(world: &World, status: &str, parts: &[&str]) {
    until_delivering(world, NAMESPACE, status, parts);
}

/// Waits until the condition of an `OtelAgent` has this status, and all of these parts in its message.
pub(super) fn until_delivering(world: &World, name: &str, status: &str, parts: &[&str]) {
    let what = format!("Delivering {status} of {name}: {parts:?}");
    until(&what, PATIENCE, || {
        let agent = world.get(name);
        let found = condition(&agent["status"], "Delivering");
        let message = found["message"].as_str().unwrap_or_default();
        let holds = found["status"] == status && parts.iter().all(|part| message.contains(part));
        Ok(Seen::check(holds, found.to_string()))
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until the leader, and no other, shows the condition as a metric, and kubectl as a column.
fn until_shown(world: &World) {
    let shown = r#"otelagent_condition{namespace="otelagent-system",name="delivering",otelagent="otelagent-system.delivering",type="Delivering",status="False"} 1"#;
    let operators = [
        "pods",
        "--namespace=otelagent-system",
        "--selector=app.kubernetes.io/component=operator",
    ];
    until("the metric", PATIENCE, || {
        let pods: Value = world.kubectl.get(&operators)?;
        let mut leaders = 0;
        for pod in super::names(&pods) {
            let path = format!("/api/v1/namespaces/otelagent-system/pods/{pod}:8080/proxy/metrics");
            let page = world.kubectl.run(&["get", "--raw", &path])?;
            leaders += usize::from(page.lines().any(|line| line == shown));
        }
        Ok(Seen::check(leaders == 1, format!("{leaders} show it")))
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let row = [
        "get",
        "oa",
        NAMESPACE,
        "--namespace=otelagent-system",
        "--no-headers",
    ];
    let row = world.kubectl.run(&row).unwrap();
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        columns[3..5],
        ["True", "False"],
        "Ready and delivering: {row}"
    );
}
