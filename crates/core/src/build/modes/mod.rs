//! The modes (design §2), one file each. A new mode is its file and its line in [`topology`].

mod daemon;
mod host_network;
mod host_port;
mod node_local;
mod sidecar;

use super::{Environment, Family, Object, Placement, ValidAgent};
use crate::inject::Recipe;
use crate::inject::environment::{self, HOST_IP};
use otelagent_api::{EnvFrom, Mode};

/// What a mode needs and what it gives to applications.
pub trait Topology: Sync {
    /// The mode.
    fn mode(&self) -> Mode;
    /// Where its agent listens.
    fn placement(&self) -> Placement;
    /// Its objects, vehicle first; none where the vehicle is in the application's pod.
    fn objects(&self, agent: &ValidAgent, environment: &Environment) -> Vec<Object>;
    /// The endpoint as applications are given it; may refer to the recipe's first variables.
    fn endpoint(&self, agent: &ValidAgent, environment: &Environment) -> String;
    /// What is injected into pods.
    fn recipe(&self, agent: &ValidAgent, environment: &Environment) -> Recipe;
}

/// The file that knows a mode.
pub fn topology(mode: Mode) -> &'static dyn Topology {
    match mode {
        Mode::Sidecar => &sidecar::Sidecar,
        Mode::HostPort => &host_port::HostPort,
        Mode::HostNetwork => &host_network::HostNetwork,
        Mode::NodeLocal => &node_local::NodeLocal,
    }
}

/// The endpoint of an agent that is reached by the address of the pod's node.
fn on_own_node(agent: &ValidAgent, environment: &Environment) -> String {
    let port = agent.spec.ports.grpc;
    match environment.nodes {
        Family::V4 => format!("http://$({HOST_IP}):{port}"),
        Family::V6 => format!("http://[$({HOST_IP})]:{port}"),
    }
}

fn overrides_env_from(agent: &ValidAgent) -> bool {
    let workloads = agent.spec.workloads.as_ref();
    workloads.is_some_and(|workloads| workloads.env_from == EnvFrom::Override)
}

/// The recipe of a mode that adds nothing but variables.
fn variables_only(mode: Mode, agent: &ValidAgent, endpoint: &str, with_host_ip: bool) -> Recipe {
    Recipe {
        agent: agent.label(),
        mode,
        annotations: std::collections::BTreeMap::new(),
        sidecar: None,
        upstream_is_service: false,
        volumes: Vec::new(),
        first: environment::first_variables(with_host_ip),
        env: environment::rules(endpoint, agent.sdk_flush),
        overrides_env_from: overrides_env_from(agent),
        reserved: [],
        moved: None,
    }
}
