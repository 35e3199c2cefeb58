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
use crate::switching::WantedAgents;
use otelagent_api::Mode;

/// What an `OtelAgent` needs, by mode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// The requested modes.
    pub modes: BTreeMap<Mode, DesiredMode>,
}

/// The objects of one mode, and what applications get.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredMode {
    /// Its objects, in the order in which they are written; none where the agent runs in the application's pod.
    pub objects: Vec<Object>,
    /// Hash of the agent workload's pod template, as its label says; empty without one.
    pub template: String,
    /// Fingerprint of the agents' configuration, as they say it; empty without an agent workload.
    pub configuration: String,
    /// The recipe for pods.
    pub recipe: Recipe,
    /// The endpoint as applications get it; may refer to the recipe's first variables.
    pub endpoint: String,
}

impl Desired {
    /// The objects of a mode; none if it was not requested.
    pub fn objects(&self, mode: Mode) -> &[Object] {
        self.modes.get(&mode).map_or(&[], |mode| &mode.objects)
    }

    /// What a mode's agents should be; nothing without an agent workload.
    pub fn agents(&self, mode: Mode) -> WantedAgents<'_> {
        let mode = self.modes.get(&mode);
        mode.map_or(WantedAgents::default(), |mode| WantedAgents {
            template: &mode.template,
            configuration: Some(&mode.configuration),
        })
    }

    /// The configurations of agents on nodes, in any mode.
    pub fn configurations(&self) -> BTreeSet<String> {
        let all = self.modes.values().map(|mode| &mode.configuration);
        all.filter(|one| !one.is_empty()).cloned().collect()
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

/// Renders what each of these modes needs, once per mode. No other function renders objects.
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
    let text = template.map(|_| configuration.text.as_str());
    DesiredMode {
        template: template.unwrap_or_default().to_owned(),
        configuration: text.map(agent_config::fingerprint).unwrap_or_default(),
        objects,
        recipe: (topology.recipe)(&input),
        endpoint: (topology.endpoint)(agent, environment),
    }
}
