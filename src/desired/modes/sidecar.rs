//! `Sidecar`: the agent as a native sidecar in each pod (KEP-753).
//!
//! A startup probe, so that containers after it find it listening; no readiness probe, which would take
//! the application out of its Services whenever telemetry stalls; no preStop, which starts with the
//! application's own shutdown and would end the agent too early.

use super::{Topology, variables_only};
use crate::api::Mode;
use crate::desired::{Environment, Object, Placement, ValidAgent, agent_pod};
use crate::inject::Recipe;

pub(super) struct Sidecar;

impl Topology for Sidecar {
    fn mode(&self) -> Mode {
        Mode::Sidecar
    }

    fn placement(&self) -> Placement {
        Placement::Sidecar
    }

    fn objects(&self, _: &ValidAgent, _: &Environment) -> Vec<Object> {
        Vec::new()
    }

    fn endpoint(&self, agent: &ValidAgent) -> String {
        format!("http://127.0.0.1:{}", agent.spec.ports.grpc)
    }

    fn recipe(&self, agent: &ValidAgent, environment: &Environment) -> Recipe {
        let mut container = agent_pod::container(agent, environment, self.placement());
        container.restart_policy = Some("Always".into());
        // Declared, so that a clash with the application's own is seen before it breaks the pod; without
        // names, so that nobody's Service or monitor takes them up.
        let mut ports = agent_pod::ports(agent, false);
        for port in &mut ports {
            port.name = None;
        }
        container.ports = Some(ports);
        container.startup_probe = Some(agent_pod::health_probe(1, 60));
        let json = |value: serde_json::Result<serde_json::Value>| value.unwrap_or_default();
        Recipe {
            annotations: agent_pod::annotations(agent, self.placement()),
            sidecar: Some(json(serde_json::to_value(container))),
            volumes: agent_pod::volumes(agent, self.placement())
                .iter()
                .map(|volume| json(serde_json::to_value(volume)))
                .collect(),
            ..variables_only(self.mode(), agent, &self.endpoint(agent), false)
        }
    }
}
