//! Which `OtelAgent`s may select the same pods, and which exist.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use otelagent_api::{ACCEPTED, OtelAgent, ResourceExt};

use crate::build::{Environment, is_permitted, may_select, selection};
use crate::inject::Selection;
use crate::inject::precedence::Candidate;
use crate::names;

/// Why the current generation of the spec was refused, if so: the reason of the condition.
pub fn refusal(agent: &OtelAgent) -> Option<&str> {
    let status = agent.status.as_ref();
    let mut conditions = status.iter().flat_map(|status| &status.conditions);
    let refused = conditions.find(|condition| {
        condition.type_ == ACCEPTED
            && condition.status == "False"
            && condition.observed_generation == agent.metadata.generation
    });
    refused.map(|condition| condition.reason.as_str())
}

/// When an object was created, as a text that sorts by time.
pub fn created(metadata: &ObjectMeta) -> String {
    let created = metadata.creation_timestamp.as_ref();
    created.map(|time| time.0.to_string()).unwrap_or_default()
}

/// Whether two `OtelAgent`s may select the same pods: in different namespaces only if one is a platform
/// namespace.
pub fn may_meet(one: &ObjectMeta, other: &ObjectMeta, platform: &BTreeSet<String>) -> bool {
    let (one, other) = (&one.namespace, &other.namespace);
    let is_platform = |name: &Option<String>| name.as_ref().is_some_and(|n| platform.contains(n));
    one == other || is_platform(one) || is_platform(other)
}

/// What an `OtelAgent` selects: by its spec or, if that was refused, by its active binding.
///
/// A tenant may write anything into its object at any moment, its status included. So the status alone does
/// not decide, or the object would take pods between a change and its refusal.
pub fn candidate(
    agent: &OtelAgent,
    environment: &Environment,
    active: impl FnOnce() -> Option<Selection>,
) -> Option<Candidate> {
    let namespace = agent.namespace().unwrap_or_default();
    let selection = if refusal(agent).is_some() || !is_permitted(agent, environment) {
        active().filter(|selection| may_select(&namespace, selection, environment))
    } else {
        selection(agent)
    }?;
    Some(Candidate {
        created: created(&agent.metadata),
        namespace,
        name: agent.name_any(),
        selection,
    })
}

/// The `OtelAgent`s that exist, by label.
pub struct KnownAgents<'a> {
    environment: &'a Environment,
    /// Their namespaces.
    namespaces: HashMap<String, String>,
}

impl<'a> KnownAgents<'a> {
    /// Those with these metadata.
    pub fn of<'b>(
        agents: impl IntoIterator<Item = &'b ObjectMeta>,
        environment: &'a Environment,
    ) -> Self {
        let namespaces = agents.into_iter().filter_map(|agent| {
            let (namespace, name) = (agent.namespace.clone()?, agent.name.as_deref()?);
            Some((names::agent_label(&namespace, name), namespace))
        });
        Self {
            environment,
            namespaces: namespaces.collect(),
        }
    }

    /// Whether the `OtelAgent` with this label exists and may act on pods of a namespace.
    pub fn reach(&self, label: &str, namespace: &str) -> bool {
        let of = self.namespaces.get(label);
        of.is_some_and(|of| of == namespace || self.environment.is_platform(of))
    }
}
