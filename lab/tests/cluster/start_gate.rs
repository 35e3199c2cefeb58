//! A node starts again with a burst of pods that wait for its agent: the first spans of every pod arrive. Twice, and with
//! `make test-full` five times.

use std::collections::BTreeMap;

use demo::steps::PLATFORM;
use demo::wait::{Seen, until};
use otelagent_core::names;
use serde_json::{Value, json};

use super::programs::{self, GO_HTTP, RUST_GRPC, pod, spec};
use super::{PATIENCE, World, condition, world};
use crate::test_scale::is_full;

/// Pods that start at once with the node.
const BURST: usize = 12;
/// Spans that each of them sends, from its first moment on. Go over HTTP never sends a batch again.
const COUNT: u64 = 20;
const FINITE: [&str; 2] = ["--count=20", "--rate=40"];

#[test]
fn first_spans_of_every_pod_arrive_after_its_node_starts_again() {
    let Some(world) = world("pods that wait for their agent on a node that starts") else {
        return;
    };
    let Some(bed) = world.bed("pods that wait for their agent", "powering a node off") else {
        return;
    };
    programs::apply(&world, &[programs::namespace("gate", true)]);
    // Longer than the test waits for anything: a pod that starts without its agent shows as lost spans, not as luck.
    make_agent(&world, "gate", "10m");
    let node = bed.node_names()[1].clone();
    let restarts = if is_full() { 5 } else { 2 };
    for restart in 0..restarts {
        bed.stop_node(2).unwrap();
        world.until("the node down", &["node", &node], |node: &Value| {
            condition(&node["status"], "Ready")["status"] != "True"
        });
        let pods: Vec<Value> = (0..BURST)
            .map(|nth| waiting("gate", &node, restart, nth))
            .collect();
        programs::apply(&world, &pods);
        bed.start_node(2).unwrap();
        let runs: BTreeMap<String, u64> = pods
            .iter()
            .map(|pod| (pod["metadata"]["name"].as_str().unwrap().to_owned(), COUNT))
            .collect();
        programs::until_all_arrived(&world, &runs, &["traces"]);
        passed_their_gate(&world, &runs);
    }
    world.until_status("gate", "agents on both nodes", |status| {
        status["agents"]["ready"] == 2
    });
    world.end_namespace("gate");
}

#[test]
fn pod_starts_without_its_agent_after_the_time_and_counts_as_uncovered() {
    let Some(world) = world("a pod whose agent does not come") else {
        return;
    };
    let nodes = world.cluster.node_names().unwrap();
    programs::apply(&world, &[programs::namespace("gate2", true)]);
    make_agent(&world, "gate2", "2s");
    let first = json!({"spec": {"agent": {"nodeSelector": {"kubernetes.io/hostname": nodes[0]}}}});
    world.patch("gate2", &first);
    world.until_status("gate2", "an agent on one node", |status| {
        status["agents"]["desired"] == 1 && status["agents"]["ready"] == 1
    });
    // An agent that is ending takes telemetry for a while.
    let agents = format!(
        "--selector={}={}",
        names::LABEL_OWNER,
        names::agent_label(PLATFORM, "gate2")
    );
    let place = format!("--field-selector=spec.nodeName={}", nodes[1]);
    world.until(
        "no agent on the other node",
        &["pods", "--namespace", PLATFORM, &agents, &place],
        |agents| agents["items"].as_array().is_some_and(Vec::is_empty),
    );
    let mut pod = waiting("gate2", &nodes[1], 0, 0);
    // It goes on running.
    pod["spec"]["containers"] = json!([RUST_GRPC.container(&[])]);
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    programs::apply(&world, &[pod]);
    world.until(
        "the pod started",
        &["pod", &name, "--namespace", "gate2"],
        |pod| pod["status"]["phase"] == "Running",
    );
    let said = gate_said(&world, "gate2", &name);
    assert!(said.contains("going on without one"), "{said}");
    world.until_status("gate2", "the pod uncovered", |status| {
        status["pods"]["uncovered"] == 1 && condition(status, "Ready")["reason"] == "PodsUncovered"
    });
    world.end_namespace("gate2");
}

fn make_agent(world: &World, name: &str, timeout: &str) {
    world.agent(name, name, "mode: HostPort");
    let gate = json!({"type": "Wait", "timeout": timeout});
    world.patch(name, &json!({"spec": {"workloads": {"startGate": gate}}}));
    world.until_serving(name, "HostPort");
}

/// A pod on the node, whatever its taints say: nothing schedules it, so it starts as soon as the kubelet sees it.
fn waiting(namespace: &str, node: &str, restart: usize, nth: usize) -> Value {
    let program = if nth.is_multiple_of(2) {
        GO_HTTP
    } else {
        RUST_GRPC
    };
    let mut spec = spec(&[program.container(&FINITE)]);
    spec["nodeName"] = node.into();
    spec["tolerations"] = json!([{"operator": "Exists"}]);
    pod(namespace, &format!("gate-{restart}-{nth}"), &spec)
}

/// Each waited, and says that the agent was there.
fn passed_their_gate(world: &World, runs: &BTreeMap<String, u64>) {
    for name in runs.keys() {
        let said = gate_said(world, "gate", name);
        assert!(
            said.starts_with("an agent takes telemetry at"),
            "{name}: {said}"
        );
    }
}

/// The line of a pod's gate. The kubelet of a node that has just started may not answer yet.
fn gate_said(world: &World, namespace: &str, name: &str) -> String {
    let words = [
        "logs",
        name,
        "--namespace",
        namespace,
        "--container",
        names::START_GATE,
    ];
    until("the words of the gate", PATIENCE, || {
        let said = world.kubectl.run(&words)?;
        Ok(if said.trim().is_empty() {
            Seen::NotYet(said)
        } else {
            Seen::Done(said)
        })
    })
    .unwrap_or_else(|error| panic!("{error}"))
}
