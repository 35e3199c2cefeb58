//! What every mode must define, and what several modes share.

use std::collections::BTreeMap;

use crate::build::agent_pod::RenderInput;
use crate::build::environment::{Environment, IpFamily};
use crate::build::objects::Object;
use crate::build::start_gate::start_gate;
use crate::build::valid_agent::{Placement, ValidAgent};
use crate::inject::Recipe;
use crate::inject::environment::{self, HOST_IP};
use otelagent_api::{EnvFrom, Mode, Ports};

/// The objects of a mode, and what applications get.
pub(crate) struct Topology {
    /// Where its agent listens.
    pub(crate) placement: Placement,
    /// Its objects, in the order in which they are written; none where the agent runs in the application's pod.
    pub(crate) objects: fn(&RenderInput<'_>) -> Vec<Object>,
    /// The ports that it takes of the nodes on which its agents run.
    pub(crate) node_ports: fn(Ports) -> Vec<u16>,
    /// The endpoint as applications get it; may refer to the recipe's first variables.
    pub(crate) endpoint: fn(&ValidAgent, &Environment) -> String,
    /// The recipe for pods.
    pub(crate) recipe: fn(&RenderInput<'_>) -> Recipe,
}

/// The endpoint of an agent on the pod's own node, by the node's address.
pub(super) fn on_own_node(agent: &ValidAgent, environment: &Environment) -> String {
    at_own_node(agent.spec.ports.grpc, environment)
}

/// The same at another port.
pub(super) fn at_own_node(port: u16, environment: &Environment) -> String {
    match environment.nodes {
        IpFamily::V4 => format!("http://$({HOST_IP}):{port}"),
        IpFamily::V6 => format!("http://[$({HOST_IP})]:{port}"),
    }
}

/// The recipe of a mode that adds only variables.
pub(super) fn variables_only(
    mode: Mode,
    input: &RenderInput<'_>,
    endpoint: fn(&ValidAgent, &Environment) -> String,
) -> Recipe {
    let agent = input.agent;
    let endpoint = endpoint(agent, input.environment);
    let workloads = agent.spec.workloads.as_ref();
    Recipe {
        agent: agent.label(),
        mode,
        annotations: BTreeMap::new(),
        joined_annotations: BTreeMap::new(),
        sidecar: None,
        upstream_is_service: false,
        start_gate: start_gate(mode, input, &endpoint),
        volumes: Vec::new(),
        storage_limit: None,
        first: environment::first_variables(endpoint.contains(HOST_IP)),
        env: environment::rules(&endpoint, agent.sdk_flush, agent.own_image().is_some()),
        overrides_env_from: workloads.is_some_and(|own| own.env_from == EnvFrom::Override),
        reserved: [],
        moved: None,
    }
}
