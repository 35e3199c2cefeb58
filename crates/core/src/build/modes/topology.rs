//! What every mode must say, and what several modes share.

use std::collections::BTreeMap;

use crate::build::agent_pod::RenderInput;
use crate::build::environment::{Environment, IpFamily};
use crate::build::objects::Object;
use crate::build::valid_agent::{Placement, ValidAgent};
use crate::inject::Recipe;
use crate::inject::environment::{self, HOST_IP};
use otelagent_api::{EnvFrom, Mode};

/// What a mode needs, and what it gives to applications.
pub(crate) trait Topology: Sync {
    /// The mode.
    fn mode(&self) -> Mode;
    /// Where its agent listens.
    fn placement(&self) -> Placement;
    /// Its objects, the agent workload first; none where the agent runs in the application's pod.
    fn objects(&self, input: &RenderInput<'_>) -> Vec<Object>;
    /// The endpoint as applications are given it; may refer to the recipe's first variables.
    fn endpoint(&self, agent: &ValidAgent, environment: &Environment) -> String;
    /// What is injected into pods.
    fn recipe(&self, input: &RenderInput<'_>) -> Recipe;
}

/// The endpoint of an agent on the pod's own node, by the node's address.
pub(super) fn on_own_node(agent: &ValidAgent, environment: &Environment) -> String {
    let port = agent.spec.ports.grpc;
    match environment.nodes {
        IpFamily::V4 => format!("http://$({HOST_IP}):{port}"),
        IpFamily::V6 => format!("http://[$({HOST_IP})]:{port}"),
    }
}

fn overrides_env_from(agent: &ValidAgent) -> bool {
    let workloads = agent.spec.workloads.as_ref();
    workloads.is_some_and(|workloads| workloads.env_from == EnvFrom::Override)
}

/// The recipe of a mode that adds nothing but variables.
pub(super) fn variables_only(
    mode: Mode,
    agent: &ValidAgent,
    endpoint: &str,
    with_host_ip: bool,
) -> Recipe {
    Recipe {
        agent: agent.label(),
        mode,
        annotations: BTreeMap::new(),
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
