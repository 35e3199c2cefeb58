//! `HostPort`: a `DaemonSet` whose pods claim a port of their node.
//!
//! Kubernetes lets no two pods of a node claim one port, so an update leaves a gap per node; surge would
//! hang with the new pod Pending.

use super::daemon::{Parts, Rollout, daemon_set};
use super::topology::{Topology, on_own_node, variables_only};
use crate::build::agent_pod::{self, RenderInput};
use crate::build::environment::Environment;
use crate::build::objects::Object;
use crate::build::valid_agent::{Placement, ValidAgent};
use crate::inject::Recipe;
use otelagent_api::Mode;

pub(super) struct HostPort;

impl Topology for HostPort {
    fn mode(&self) -> Mode {
        Mode::HostPort
    }

    fn placement(&self) -> Placement {
        Placement::Pod
    }

    fn objects(&self, input: &RenderInput<'_>) -> Vec<Object> {
        let agent = input.agent;
        let mut container = agent_pod::container(input);
        container.ports = Some(agent_pod::ports(agent, true));
        container.readiness_probe = Some(agent_pod::health_probe(agent, 1, 2));
        let parts = Parts::of(self.mode(), container, Rollout::Replace);
        vec![Object::DaemonSet(Box::new(daemon_set(input, parts)))]
    }

    fn endpoint(&self, agent: &ValidAgent, environment: &Environment) -> String {
        on_own_node(agent, environment)
    }

    fn recipe(&self, input: &RenderInput<'_>) -> Recipe {
        let endpoint = self.endpoint(input.agent, input.environment);
        variables_only(self.mode(), input.agent, &endpoint, true)
    }
}
