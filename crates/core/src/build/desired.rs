//! Everything that must exist for a valid `OtelAgent`, rendered once per mode.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use otelagent_api::Mode;

use super::objects::Object;
use super::{Environment, ValidAgent, topology};
use crate::inject::Recipe;
use crate::inject::environment::HOST_IP;
use crate::names;

/// The objects of the modes that may be needed.
pub struct Desired<'a> {
    agent: &'a ValidAgent,
    environment: &'a Environment,
    modes: BTreeMap<Mode, DesiredMode>,
}

struct DesiredMode {
    objects: Vec<Object>,
    /// Hash of the pod template; empty where there is none.
    template: String,
    /// Rendered when it is asked for: only the serving mode's is.
    recipe: OnceLock<Recipe>,
}

impl<'a> Desired<'a> {
    /// Renders the objects of each of these modes.
    pub fn build(
        agent: &'a ValidAgent,
        environment: &'a Environment,
        modes: impl IntoIterator<Item = Mode>,
    ) -> Self {
        let render = |mode| {
            let objects = topology(mode).objects(agent, environment);
            let mode_desired = DesiredMode {
                template: objects.iter().find_map(template).unwrap_or_default(),
                objects,
                recipe: OnceLock::new(),
            };
            (mode, mode_desired)
        };
        Self {
            agent,
            environment,
            modes: modes.into_iter().map(render).collect(),
        }
    }

    /// The objects of a mode, agent workload first.
    pub fn objects(&self, mode: Mode) -> &[Object] {
        self.modes.get(&mode).map_or(&[], |mode| &mode.objects)
    }

    /// Hash of the template of a mode's agent pods; empty in mode Sidecar.
    pub fn template(&self, mode: Mode) -> &str {
        self.modes.get(&mode).map_or("", |mode| &mode.template)
    }

    /// What a mode injects.
    pub fn recipe(&self, mode: Mode) -> Option<&Recipe> {
        let recipe = || topology(mode).recipe(self.agent, self.environment);
        let mode = self.modes.get(&mode)?;
        Some(mode.recipe.get_or_init(recipe))
    }

    /// Where a mode's applications send, for a person.
    pub fn endpoint(&self, mode: Mode) -> String {
        let endpoint = topology(mode).endpoint(self.agent, self.environment);
        endpoint.replace(&format!("$({HOST_IP})"), "<node address>")
    }
}

fn template(object: &Object) -> Option<String> {
    let Object::DaemonSet(object) = object else {
        return None;
    };
    let template = &object.spec.as_ref()?.template;
    let labels = template.metadata.as_ref()?.labels.as_ref()?;
    labels.get(names::LABEL_TEMPLATE).cloned()
}
