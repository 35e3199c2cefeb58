//! `Sidecar`: the agent as a native sidecar in each pod (KEP-753).
//!
//! A startup probe, so that containers after it find it listening; no readiness probe, which would take
//! the application out of its Services whenever telemetry stalls; no preStop, which starts with the
//! application's own shutdown and would end the agent too early.

use k8s_openapi::api::core::v1::Container;

use super::{Topology, variables_only};
use crate::build::{Environment, Object, Placement, ValidAgent, agent_config, agent_pod};
use crate::inject::{Moved, Recipe};
use crate::names;
use otelagent_api::Mode;

/// Where tokens are mounted (`DefaultAPITokenMountPath` of the service account admission plugin).
const TOKENS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

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

    fn endpoint(&self, agent: &ValidAgent, _: &Environment) -> String {
        format!("http://127.0.0.1:{}", agent.spec.ports.grpc)
    }

    fn recipe(&self, agent: &ValidAgent, environment: &Environment) -> Recipe {
        let at = |agent: &ValidAgent| Recipe {
            annotations: agent_pod::annotations(agent, self.placement()),
            sidecar: Some(json(&container(agent, environment))),
            ..variables_only(
                self.mode(),
                agent,
                &self.endpoint(agent, environment),
                false,
            )
        };
        let moved = agent.moved().map(|agent| at(&agent));
        Recipe {
            upstream_is_service: agent_config::sends_to_service(agent, self.placement()),
            volumes: agent_pod::volumes(agent, self.placement())
                .iter()
                .map(json)
                .collect(),
            moved: moved.and_then(|moved| {
                Some(Moved {
                    annotations: moved.annotations,
                    sidecar: moved.sidecar?,
                    env: moved.env,
                })
            }),
            ..at(agent)
        }
    }
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn container(agent: &ValidAgent, environment: &Environment) -> Container {
    let mut container = agent_pod::container(agent, environment, Placement::Sidecar);
    container.restart_policy = Some("Always".into());
    // Declared, so that a clash with the application's own is seen before it breaks the pod; without
    // names, so that nobody's Service or monitor takes them up.
    let mut ports = agent_pod::ports(agent, false);
    for port in &mut ports {
        port.name = None;
    }
    container.ports = Some(ports);
    container.startup_probe = Some(agent_pod::health_probe(agent, 1, 60));
    // The API server mounts the token of the application's service account into every container that has
    // nothing there, also into one that was injected: the agent must not have it.
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.push(agent_pod::mount(names::CONFIG_VOLUME, TOKENS, true));
    container
}
