//! Every mode, end to end.

use std::time::Duration;

use demo::apps;
use demo::ledger;
use demo::steps::{self, Topology};
use demo::tally::Tracker;
use demo::wait::{self, Seen};

use super::{PATIENCE, World, world};

const TOPOLOGIES: [Topology; 5] = [
    Topology::NodeLocalRequire,
    Topology::HostPort,
    Topology::HostNetwork,
    Topology::Sidecar,
    Topology::NodeLocalPrefer,
];

#[test]
fn each_mode_delivers_spans_through_the_own_nodes_or_pods_agent() {
    let Some(world) = world("every mode on two real nodes") else {
        return;
    };
    let kubectl = &world.kubectl;
    steps::apply_agent(kubectl).unwrap();
    steps::wait_serving(kubectl, TOPOLOGIES[0]).unwrap();
    steps::apply_apps(kubectl).unwrap();
    let mut tracker = Tracker::default();
    for topology in TOPOLOGIES {
        steps::switch(kubectl, topology).unwrap();
        steps::wait_serving(kubectl, topology).unwrap();
        tracker.look(kubectl, apps::NAMESPACE).unwrap();
        steps::roll_apps(kubectl, topology).unwrap();
        let routes = steps::wait_routed(kubectl, topology).unwrap();
        assert_eq!(
            routes.len(),
            4,
            "two programs with two pods each: {routes:?}"
        );
        steps::wait_switched(kubectl).unwrap();
        let workloads = world.names("daemonsets");
        assert_eq!(
            workloads,
            expected_workload(topology),
            "{topology}: no older agent workload is left"
        );
        for route in routes {
            assert_eq!(route.unsigned, 0, "{topology}: every span passed an agent");
            check_attributes(&world, topology, &route.from);
        }
    }
    let tally = tracker
        .settle(kubectl, apps::NAMESPACE, Duration::from_secs(30))
        .unwrap();
    println!("four switches under load: {tally:?}");
    assert!(tally.received > 1000, "{tally:?}");

    world
        .kubectl
        .run(&["delete", steps::AGENT, "--namespace", steps::PLATFORM])
        .unwrap();
    world.end_all_agents();
    // The end of a policy takes a second or more to arrive at the API server.
    wait::until("a new pod left alone", PATIENCE, || {
        let labels = world.dry_run_pod(apps::NAMESPACE)?["metadata"]["labels"].to_string();
        Ok(Seen::check(!labels.contains("otelagent.dev"), labels))
    })
    .unwrap();
    apps::roll(kubectl, apps::NAMESPACE).unwrap();
    for pod in apps::pods(kubectl, apps::NAMESPACE).unwrap() {
        assert!(
            !pod.labels.to_string().contains("otelagent.dev"),
            "left alone once the object is gone: {pod:?}"
        );
    }
    world.end_namespace(apps::NAMESPACE);
}

fn expected_workload(topology: Topology) -> Vec<String> {
    let suffix = match topology {
        Topology::NodeLocalRequire | Topology::NodeLocalPrefer => "node-local",
        Topology::HostPort => "host-port",
        Topology::HostNetwork => "host-network",
        Topology::Sidecar => return Vec::new(),
    };
    vec![format!("node-{suffix}")]
}

/// What the pod was configured to say of itself, and what the agent adds.
fn check_attributes(world: &World, topology: Topology, pod: &apps::AppPod) {
    let client = ledger::Client::new(&world.kubectl);
    let resource = wait::until("spans in the ledger", super::PATIENCE, || {
        let resources = client.run(&pod.name)?.resources;
        let found = resources
            .into_iter()
            .find(|resource| resource.signal == "traces");
        Ok(found.map_or_else(|| wait::Seen::NotYet(String::new()), wait::Seen::Done))
    })
    .unwrap();
    let expected = [
        ("k8s.namespace.name", apps::NAMESPACE),
        ("k8s.pod.name", &pod.name),
        ("k8s.node.name", &pod.node),
        ("k8s.container.name", "app"),
        ("k8s.deployment.name", &pod.app),
        ("service.name", &pod.app),
        ("deployment.environment.name", "demo"),
    ];
    for (key, value) in expected {
        assert_eq!(
            resource.attribute(key),
            Some(value),
            "{topology}: {key} of {resource:?}"
        );
    }
    assert!(
        resource
            .attribute("k8s.pod.uid")
            .is_some_and(|uid| uid.len() == 36),
        "{resource:?}"
    );
    if topology != Topology::NodeLocalPrefer {
        assert_eq!(
            resource.attribute("host.name"),
            Some(pod.node.as_str()),
            "{topology}: stamped by the node's agent"
        );
    }
}
