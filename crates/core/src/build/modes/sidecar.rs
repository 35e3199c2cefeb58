//! `Sidecar`: the agent as a native sidecar in each pod (KEP-753).
//!
//! It has a startup probe, so that later containers find it listening. It has no readiness probe, which would
//! take the application out of its Services whenever telemetry stalls, and no preStop hook, which runs with
//! the application's own shutdown and would end the agent too early.

use k8s_openapi::api::core::v1::Container;

use super::topology::{Topology, variables_only};
use crate::build::agent_config;
use crate::build::agent_pod::{self, RenderInput};
use crate::build::environment::Environment;
use crate::build::valid_agent::{Placement, ValidAgent};
use crate::inject::{Moved, Recipe};
use crate::names;
use otelagent_api::Mode;

pub(super) const SIDECAR: Topology = Topology {
    placement: Placement::Sidecar,
    objects: |_| Vec::new(),
    node_ports: |_| Vec::new(),
    endpoint,
    recipe,
};

fn endpoint(agent: &ValidAgent, _: &Environment) -> String {
    format!("http://127.0.0.1:{}", agent.spec.ports.grpc)
}

fn recipe(input: &RenderInput<'_>) -> Recipe {
    let moved = input.agent.moved().and_then(|agent| {
        let configuration = agent_config::render(&agent, Placement::Sidecar);
        // Ports that the user's configuration names do not move with the others.
        let moves = configuration.unreachable.is_empty();
        let recipe = at_its_ports(&RenderInput {
            agent: &agent,
            configuration: &configuration,
            ..*input
        });
        moves.then(|| Moved {
            annotations: recipe.annotations,
            sidecar: recipe.sidecar.unwrap_or_default(),
            env: recipe.env,
        })
    });
    Recipe {
        upstream_is_service: input.configuration.sends_to_service,
        volumes: std::iter::once(agent_pod::sidecar_configuration())
            .chain(agent_pod::volumes(input))
            .map(|volume| json(&volume))
            .collect(),
        joined_annotations: agent_pod::evictable_volumes(input),
        storage_limit: agent_pod::storage_limit(input).map(|limit| limit.0),
        moved,
        ..at_its_ports(input)
    }
}

/// The parts of the recipe that depend on the agent's ports.
fn at_its_ports(input: &RenderInput<'_>) -> Recipe {
    Recipe {
        annotations: agent_pod::annotations(&input.configuration.text),
        sidecar: Some(json(&container(input))),
        ..variables_only(Mode::Sidecar, input, endpoint)
    }
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn container(input: &RenderInput<'_>) -> Container {
    let agent = input.agent;
    let mut container = agent_pod::container(input);
    container.restart_policy = Some("Always".into());
    // Declared, so that a conflict with the application's ports is found before it breaks the pod; without
    // names, so that no Service or monitor selects them.
    let mut ports = agent_pod::ports(agent, false);
    for port in &mut ports {
        port.name = None;
    }
    container.ports = Some(ports);
    container.startup_probe = Some(agent_pod::health_probe(agent, 1, 60));
    // The agent must not have the application's token.
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.push(agent_pod::mount(
        names::CONFIG_VOLUME,
        agent_pod::TOKENS,
        true,
    ));
    container
}
