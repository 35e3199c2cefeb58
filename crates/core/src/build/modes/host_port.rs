//! `HostPort`: a `DaemonSet` whose pods claim a port of their node.
//!
//! Kubernetes lets no two pods of a node claim one port, so an update leaves a gap per node; surge would
//! hang with the new pod Pending.

use super::daemon::{Rollout, daemon_set};
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
    let (mode, rollout) = (Mode::HostPort, Rollout::Replace);
    let node_ports = node_ports(input.agent.spec.ports);
    let volumes = Vec::new();
    vec![daemon_set(
        input,
        mode,
        container,
        volumes,
        rollout,
        &node_ports,
    )]
}

/// Health and metrics stay on the pod's own network.
fn node_ports(ports: Ports) -> Vec<u16> {
    vec![ports.grpc, ports.http]
}
