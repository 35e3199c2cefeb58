//! A queue on disk in real pods, on a volume that the agent can write to as its user.

use demo::apps::{self, App};
use demo::steps;
use demo::wait::{Seen, until};
use serde_json::json;

use super::{PATIENCE, World, world};

const NAMESPACE: &str = "durable";

#[test]
fn node_agents_and_sidecars_use_a_queue_on_disk() {
    let Some(world) = world("a queue on disk on real nodes") else {
        return;
    };
    let spec = "mode: NodeLocal, buffer: {disk: {size: 16Mi}}";
    world.agent("durable", NAMESPACE, spec);
    world.until_serving("durable", "NodeLocal");
    let pods = world.names("pods");
    let agents: Vec<_> = pods
        .iter()
        .filter(|pod| pod.starts_with("durable-node-local-"))
        .collect();
    assert_eq!(agents.len(), 2, "one on each node: {pods:?}");
    for agent in agents {
        until_on_disk(&world, steps::PLATFORM, agent);
    }

    world.patch("durable", &json!({"spec": {"mode": "Sidecar"}}));
    world.until_serving("durable", "Sidecar");
    let app = App {
        namespace: NAMESPACE.into(),
        ..App::go_sdk()
    };
    apps::apply(&world.kubectl, &[app]).unwrap();
    for pod in apps::pods(&world.kubectl, NAMESPACE).unwrap() {
        until_on_disk(&world, NAMESPACE, &pod.name);
    }
    world.end_namespace(NAMESPACE);
}

/// Waits until an agent says of the queue of each signal that it is where it should be.
fn until_on_disk(world: &World, namespace: &str, pod: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:8888/proxy/metrics");
    until(&format!("{pod}: queues on disk"), PATIENCE, || {
        let metrics = world.kubectl.run(&["get", "--raw", &path])?;
        let failing: Vec<_> = metrics
            .lines()
            .filter(|line| line.starts_with("otelagent_storage_failing"))
            .collect();
        let works = failing.len() == 3 && failing.iter().all(|line| line.ends_with(" 0"));
        Ok(Seen::check(works, format!("{failing:?}")))
    })
    .unwrap_or_else(|error| panic!("{error}"));
}
