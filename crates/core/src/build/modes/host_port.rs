//! `HostPort`: a `DaemonSet` whose pods claim a port of their node.
//!
//! Kubernetes lets no two pods of a node claim one port, so an update leaves a gap per node; surge would
//! hang with the new pod Pending.

use super::daemon::{Parts, Rollout, daemon_set};
use super::{Topology, on_own_node, variables_only};
use crate::build::{Environment, Object, Placement, ValidAgent, agent_pod};
use crate::inject::Recipe;
use crate::names;
use otelagent_api::Mode;

pub(super) struct HostPort;

impl Topology for HostPort {
    fn mode(&self) -> Mode {
        Mode::HostPort
    }

    fn placement(&self) -> Placement {
        Placement::Pod
    }

    fn objects(&self, agent: &ValidAgent, environment: &Environment) -> Vec<Object> {
        let mut container = agent_pod::container(agent, environment, self.placement());
        container.ports = Some(agent_pod::ports(agent, true));
        container.readiness_probe = Some(agent_pod::health_probe(agent, 1, 2));
        let parts = Parts::of(self, container, Rollout::Replace);
        let name = names::agent_workload(&agent.name, self.mode().kebab());
        vec![Object::DaemonSet(Box::new(daemon_set(agent, name, parts)))]
    }

    fn endpoint(&self, agent: &ValidAgent, environment: &Environment) -> String {
        on_own_node(agent, environment)
    }

    fn recipe(&self, agent: &ValidAgent, environment: &Environment) -> Recipe {
        let endpoint = self.endpoint(agent, environment);
        variables_only(self.mode(), agent, &endpoint, true)
    }
}
