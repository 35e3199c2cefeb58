//! What an `OtelAgent` needs in each mode, each mode rendered once.

use std::collections::{BTreeMap, BTreeSet};

use super::agent_config;
use super::agent_pod::RenderInput;
use super::environment::Environment;
use super::modes::topology;
use super::objects::Object;
use super::valid_agent::ValidAgent;
use crate::inject::Recipe;
use crate::inject::environment::HOST_IP;
use otelagent_api::Mode;

/// What an `OtelAgent` needs, by mode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// The modes that were asked for.
    pub modes: BTreeMap<Mode, DesiredMode>,
}

/// What one mode needs, and what it gives to applications.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredMode {
    /// Its objects, the agent workload first; none where the agent runs in the application's pod.
    pub objects: Vec<Object>,
    /// Hash of the agent workload's pod template, as its label says; empty without one.
    pub template: String,
    /// What is injected into pods.
    pub recipe: Recipe,
    /// The endpoint as applications are given it; may refer to the recipe's first variables.
    pub endpoint: String,
}

impl Desired {
    /// The objects of a mode; none of one that was not asked for.
    pub fn objects(&self, mode: Mode) -> &[Object] {
        self.modes.get(&mode).map_or(&[], |mode| &mode.objects)
    }

    /// Hash of a mode's pod template; empty without one.
    pub fn template(&self, mode: Mode) -> &str {
        self.modes.get(&mode).map_or("", |mode| &mode.template)
    }

    /// What a mode injects.
    pub fn recipe(&self, mode: Mode) -> Option<&Recipe> {
        self.modes.get(&mode).map(|mode| &mode.recipe)
    }

    /// Where a mode's applications send, as a person reads it.
    pub fn shown_endpoint(&self, mode: Mode) -> String {
        let endpoint = self.modes.get(&mode).map(|mode| mode.endpoint.as_str());
        let address = format!("$({HOST_IP})");
        endpoint
            .unwrap_or_default()
            .replace(&address, "<node address>")
    }
}

/// Renders what each of these modes needs. Nothing else renders an object: a call for a mode renders that
/// mode's objects once.
pub fn build(
    agent: &ValidAgent,
    environment: &Environment,
    modes: impl IntoIterator<Item = Mode>,
) -> Desired {
    let modes: BTreeSet<Mode> = modes.into_iter().collect();
    let render = |mode| (mode, render(agent, environment, mode));
    Desired {
        modes: modes.into_iter().map(render).collect(),
    }
}

fn render(agent: &ValidAgent, environment: &Environment, mode: Mode) -> DesiredMode {
    let topology = topology(mode);
    let configuration = agent_config::configuration(agent, topology.placement);
    let input = RenderInput {
        agent,
        environment,
        configuration: &configuration,
    };
    let objects = (topology.objects)(&input);
    let template = objects.iter().find_map(Object::template);
    DesiredMode {
        template: template.unwrap_or_default().to_owned(),
        objects,
        recipe: (topology.recipe)(&input),
        endpoint: (topology.endpoint)(agent, environment),
    }
}
