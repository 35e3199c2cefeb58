//! `HostNetwork`: a `DaemonSet` on the network of its node.
//!
//! The bundled agent declares no ports and binds with `SO_REUSEPORT`: the scheduler then sees no
//! conflict (KEP-1591) and two agents of one `OtelAgent` can share a node during an update or a hand-over from
//! `HostPort`. Their health endpoints share a port too, so the readiness probe uses a Unix socket in the pod.
//!
//! The node's rule for a host port takes the traffic of these agents too, and outlives its pod for a moment in which it
//! leads nowhere. So pods that come after `HostPort` are sent to second ports, see [`crate::reconcile::second_ports()`].

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Probe, Volume};

use super::daemon::{Rollout, agents};
use super::topology::{Topology, at_own_node, variables_only};
use crate::build::agent_pod::{self, RenderInput};
use crate::build::environment::Environment;
use crate::build::objects::Object;
use crate::build::valid_agent::{Placement, ValidAgent};
use otelagent_api::{Mode, Ports};

/// Volume and folder of the health socket.
const RUN_VOLUME: &str = "otelagent-run";
const RUN_DIRECTORY: &str = "/run/otelagent";

pub(super) const HOST_NETWORK: Topology = Topology {
    placement: Placement::Host,
    objects,
    node_ports,
    endpoint,
    recipe: |input| variables_only(Mode::HostNetwork, input, endpoint),
};

fn endpoint(agent: &ValidAgent, environment: &Environment) -> String {
    let ports = agent.second_ports.unwrap_or(agent.spec.ports);
    at_own_node(ports.grpc, environment)
}

fn objects(input: &RenderInput<'_>) -> Vec<Object> {
    let mode = Mode::HostNetwork;
    let mut container = agent_pod::container(input);
    let mut node_ports = node_ports(input.agent.spec.ports);
    let second = input.agent.second_ports.iter();
    node_ports.extend(second.flat_map(|ports| [ports.grpc, ports.http]));
    if input.agent.own_image().is_some() {
        container.readiness_probe = Some(agent_pod::health_probe(input.agent, 2, 2));
        let (volumes, rollout) = (Vec::new(), Rollout::Replace);
        return agents(input, mode, container, volumes, rollout, &node_ports);
    }
    let socket = format!("{RUN_DIRECTORY}/health.sock");
    container.env.get_or_insert_default().extend([
        agent_pod::variable("OTELAGENT_REUSE_PORT", &input.agent.label()),
        agent_pod::variable("OTELAGENT_HEALTH_SOCKET", &socket),
    ]);
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.push(agent_pod::mount(RUN_VOLUME, RUN_DIRECTORY, false));
    container.readiness_probe = Some(Probe {
        exec: Some(agent_pod::asks_itself(None)),
        period_seconds: Some(2),
        failure_threshold: Some(2),
        ..Probe::default()
    });
    let run = Volume {
        name: RUN_VOLUME.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".into()),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    };
    let (volumes, rollout) = (vec![run], Rollout::Surge);
    agents(input, mode, container, volumes, rollout, &node_ports)
}

/// All of the agent's ports are on the node's network.
fn node_ports(ports: Ports) -> Vec<u16> {
    vec![ports.grpc, ports.http, ports.metrics, ports.health]
}
