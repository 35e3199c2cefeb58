//! Pods that come from `HostPort` to the host network are sent to second ports.

use otelagent_core::build::NodePorts;

use super::*;

const SELECTED: &str = "workloads: {namespaceSelector: {}}";

/// Where new pods of the host network are sent.
fn endpoint(world: &World) -> String {
    let desired = build(
        &world.valid_beside(Vec::new()),
        &world.environment,
        [Mode::HostNetwork],
    );
    desired.shown_endpoint(Mode::HostNetwork)
}

/// Where the agents on the host network listen for OTLP over gRPC.
fn listens(world: &World) -> Vec<u16> {
    let workload = world.workload(Mode::HostNetwork).expect("agents");
    let ports = workload["metadata"]["annotations"][names::ANNOTATION_NODE_PORTS].as_str();
    let configuration = names::agent_configuration("node", Mode::HostNetwork.kebab());
    let configuration = world.objects[&("ConfigMap", configuration)]["data"].to_string();
    let ports = ports.unwrap().split(',');
    let ports = ports.map(|port| port.parse::<u16>().unwrap());
    ports
        .filter(|port| {
            let is_configured = configuration.contains(&format!("_IP}}]:{port}"));
            assert!(
                is_configured || !is_for_grpc(*port),
                "{port}: {configuration}"
            );
            is_for_grpc(*port)
        })
        .collect()
}

fn is_for_grpc(port: u16) -> bool {
    port % 10_000 == 4317
}

fn change_to(world: &mut World, mode: Mode) {
    world.change(&agent(mode, SELECTED));
    settle(world, |_, _, _| {});
}

/// A pod of `HostPort` ran while the mode changed to the host network.
fn come_from_host_port() -> World {
    let mut world = World::of(Mode::HostPort);
    settle(&mut world, |_, _, _| {});
    world.create_pod();
    change_to(&mut world, Mode::HostNetwork);
    world
}

#[test]
fn pods_that_come_from_host_port_are_sent_to_second_ports_for_good() {
    let mut world = come_from_host_port();
    let second = "http://<node address>:14317";
    assert!(world.workload(Mode::HostPort).is_some());
    assert_eq!(endpoint(&world), second);
    assert_eq!(listens(&world), [4317, 14317]);

    world.pods.clear();
    world.create_pod();
    settle(&mut world, |_, _, _| {});
    assert!(world.workload(Mode::HostPort).is_none());
    assert_eq!(endpoint(&world), second);

    // Neither a deleted workload nor another mode lets the agents forget a pod.
    let name = names::agent_workload("node", Mode::HostNetwork.kebab());
    for mode in [Mode::HostNetwork, Mode::NodeLocal] {
        change_to(&mut world, mode);
        assert_eq!(listens(&world), [4317, 14317], "{mode}");
        let mut deleted = world.clone();
        deleted.objects.remove(&("DaemonSet", name.clone()));
        assert_eq!(endpoint(&deleted), second, "{mode}");
    }
}

#[test]
fn pods_that_come_from_elsewhere_are_sent_to_the_ports_of_the_spec() {
    for from in [Mode::NodeLocal, Mode::Sidecar, Mode::HostNetwork] {
        let mut world = World::of(from);
        settle(&mut world, |_, _, _| {});
        world.create_pod();
        change_to(&mut world, Mode::HostNetwork);
        assert_eq!(endpoint(&world), "http://<node address>:4317", "{from}");
        assert_eq!(listens(&world), [4317], "{from}");
    }
}

#[test]
fn second_ports_end_with_the_last_pod_that_uses_them() {
    let mut world = come_from_host_port();
    world.pods.clear();
    world.create_pod();
    change_to(&mut world, Mode::NodeLocal);
    assert_eq!(listens(&world), [4317, 14317]);
    world.pods.clear();
    settle(&mut world, |_, _, _| {});
    assert!(world.workload(Mode::HostNetwork).is_none());
    change_to(&mut world, Mode::HostNetwork);
    assert_eq!(listens(&world), [4317]);
}

#[test]
fn second_ports_are_none_where_others_have_them_or_they_are_too_high() {
    let mut world = World::of(Mode::HostPort);
    settle(&mut world, |_, _, _| {});
    world.change(&agent(Mode::HostNetwork, SELECTED));
    let other = |grpc: u16| {
        let spec = format!("mode: HostPort, ports: {{grpc: {grpc}, http: 4320}}");
        PortUser {
            created: "2026-01-01T00:00:00Z".into(),
            namespace: "otelagent-system".into(),
            name: "other".into(),
            wanted: NodePorts::wanted(&agent_with("otelagent-system", &spec).spec),
            running: Vec::new(),
        }
    };
    assert_eq!(world.valid_beside(vec![other(14317)]).second_ports, None);
    let second = world.valid_beside(vec![other(24317)]).second_ports;
    assert_eq!(second.map(|ports| ports.grpc), Some(14317));

    let high = "ports: {grpc: 60000, http: 60001}, workloads: {namespaceSelector: {}}";
    world.change(&agent(Mode::HostNetwork, high));
    assert_eq!(world.valid_beside(Vec::new()).second_ports, None);
}
