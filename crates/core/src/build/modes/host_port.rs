//! `HostPort`: a `DaemonSet` whose pods claim a port of their node.
//!
//! Kubernetes lets no two pods of a node claim one port, so an update leaves a gap per node; surge would
//! hang with the new pod Pending.
//!
//! Where the cluster's network plugin maps no host ports, such a pod runs and applications cannot reach it. So the bundled agent
//! tries its node's port before it says that it is ready. Its startup probe asks by its own program, since of a probe
//! by HTTP the kubelet does not tell why it failed.

use k8s_openapi::api::core::v1::Probe;

use super::daemon::{Rollout, agents};
use super::topology::{Topology, on_own_node, variables_only};
use crate::build::agent_pod::{self, RenderInput};
use crate::build::objects::Object;
use crate::build::valid_agent::Placement;
use otelagent_api::{Mode, Ports};

pub(super) const HOST_PORT: Topology = Topology {
    placement: Placement::Pod,
    objects,
    node_ports,
    endpoint: on_own_node,
    recipe: |input| variables_only(Mode::HostPort, input, on_own_node),
};

fn objects(input: &RenderInput<'_>) -> Vec<Object> {
    let mut container = agent_pod::container(input);
    container.ports = Some(agent_pod::ports(input.agent, true));
    container.readiness_probe = Some(agent_pod::health_probe(input.agent, 1, 2));
    if input.agent.own_image().is_none() {
        let port = input.agent.spec.ports.grpc.to_string();
        let tried = agent_pod::variable("OTELAGENT_NODE_PORT", &port);
        container.env.get_or_insert_default().push(tried);
        container.startup_probe = Some(own_probe(input.agent.spec.ports));
    }
    let (mode, rollout) = (Mode::HostPort, Rollout::Replace);
    let node_ports = node_ports(input.agent.spec.ports);
    let volumes = Vec::new();
    agents(input, mode, container, volumes, rollout, &node_ports)
}

/// Passes once the agent is ready, and never has the agent restarted.
fn own_probe(ports: Ports) -> Probe {
    let health = format!("127.0.0.1:{}", ports.health);
    Probe {
        exec: Some(agent_pod::asks_itself(Some(health))),
        period_seconds: Some(1),
        timeout_seconds: Some(5),
        failure_threshold: Some(i32::MAX),
        ..Probe::default()
    }
}

/// Health and metrics stay on the pod's own network.
fn node_ports(ports: Ports) -> Vec<u16> {
    vec![ports.grpc, ports.http]
}
