//! Require and Prefer where the local agent is gone.

use std::time::{Duration, Instant};

use demo::apps::{self, App};
use demo::ledger::Client;
use demo::routes;
use demo::wait::{Seen, until};
use serde_json::json;

use super::{PATIENCE, World, world};

const NAMESPACE: &str = "routing";

#[test]
fn without_a_local_agent_only_prefer_leaves_the_node() {
    let Some(world) = world("routing on two real nodes") else {
        return;
    };
    let nodes = world.cluster.node_names().unwrap();
    let (with_agent, without) = (&nodes[0], &nodes[1]);
    let spec = |routing: &str| {
        format!(
            "mode: NodeLocal, nodeLocal: {{routing: {routing}}}, agent: {{nodeSelector: {{kubernetes.io/hostname: {with_agent}}}}}, \
             config: {{processors: {{resource/via: {{attributes: [\
             {{key: otelagent.via.pod, value: '${{env:OTELAGENT_POD_NAME}}', action: upsert}}, \
             {{key: otelagent.via.node, value: '${{env:OTELAGENT_NODE_NAME}}', action: upsert}}]}}}}, \
             service: {{pipelines: {{traces: {{processors: [memory_limiter, resource/via]}}}}}}}}"
        )
    };
    world.agent("route", NAMESPACE, &spec("Require"));
    world.until_serving("route", "NodeLocal");
    let app = App {
        namespace: NAMESPACE.into(),
        ..App::go_sdk()
    };
    apps::apply(&world.kubectl, &[app]).unwrap();
    let pods = apps::pods(&world.kubectl, NAMESPACE).unwrap();
    let on = |node: &str| {
        pods.iter()
            .find(|pod| pod.node == node)
            .expect("a pod on each node")
            .name
            .clone()
    };
    let (local, lonely) = (on(with_agent), on(without));

    wait_for_spans(&world, &local);
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(10) {
        assert_eq!(
            via(&world, &lonely),
            Vec::<String>::new(),
            "Require: nothing may pass the other node's agent"
        );
        std::thread::sleep(Duration::from_millis(500));
    }

    world.patch(
        "route",
        &json!({"spec": {"nodeLocal": {"routing": "Prefer"}}}),
    );
    wait_for_spans(&world, &lonely);
    assert_eq!(
        via(&world, &lonely),
        std::slice::from_ref(with_agent),
        "Prefer: the other node's agent takes them"
    );
    world.end_namespace(NAMESPACE);
}

/// Nodes of the agents that a run's spans came through.
fn via(world: &World, run: &str) -> Vec<String> {
    // A run that the ledger has not heard of has no detail.
    let resources = Client::new(&world.kubectl)
        .run(run)
        .map(|detail| detail.resources)
        .unwrap_or_default();
    let (through, unsigned) = routes::agents(&resources);
    assert_eq!(unsigned, 0, "every span passed an agent");
    through.into_iter().map(|via| via.node).collect()
}

fn wait_for_spans(world: &World, run: &str) {
    until(&format!("spans of {run}"), PATIENCE, || {
        let via = via(world, run);
        Ok(Seen::check(!via.is_empty(), "none"))
    })
    .unwrap();
}
