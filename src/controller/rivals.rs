//! Other `OtelAgent`s that select the same pods, as the caches know them.
//!
//! Whoever owns one may write anything into it, its status included, at any moment. So what it takes from
//! others follows from where it stands, never from what it says of itself.

use std::cell::Cell;
use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, ResourceExt};

use super::context::Context;
use super::injection::binding;
use super::observe;
use otelagent_api::{ACCEPTED, OtelAgent};
use otelagent_core::build::{MAX_PER_NAMESPACE, is_permitted, selection};
use otelagent_core::inject::precedence::{self, Candidate};
use otelagent_core::names;

/// Those that come before one and may select a pod of it, oldest first.
pub(crate) fn winners(context: &Context, agent: &OtelAgent) -> Vec<Candidate> {
    let Some(me) = candidate(context, agent) else {
        return Vec::new();
    };
    let all = context.stores.agents.state();
    let others = all.iter().filter_map(|other| other.0.as_ref().ok());
    let platform = &context.environment.platform_namespaces;
    let others: Vec<Candidate> = others
        .filter(|other| may_meet(&agent.metadata, &other.metadata, platform))
        .filter_map(|other| candidate(context, other))
        .collect();
    let winners = precedence::preceding(&me, &others).into_iter();
    winners.cloned().collect()
}

/// Whether two may select the same pods: those of different namespaces only where one is a platform's.
pub(crate) fn may_meet(one: &ObjectMeta, other: &ObjectMeta, platform: &BTreeSet<String>) -> bool {
    let (one, other) = (&one.namespace, &other.namespace);
    let is_platform = |name: &Option<String>| name.as_ref().is_some_and(|n| platform.contains(n));
    one == other || is_platform(one) || is_platform(other)
}

/// How many `OtelAgent`s of its namespace are older than one, counted as far as it matters: there may be
/// thousands.
pub(crate) fn older(context: &Context, agent: &OtelAgent) -> usize {
    let own = &agent.metadata;
    let counted = Cell::new(0);
    let _enough = context.stores.agents.find(|other| {
        let other = other.meta();
        if other.namespace == own.namespace && rank(other) < rank(own) {
            counted.set(counted.get() + 1);
        }
        counted.get() == MAX_PER_NAMESPACE
    });
    counted.get()
}

fn rank(of: &ObjectMeta) -> (Option<&Time>, Option<&String>) {
    (of.creation_timestamp.as_ref(), of.name.as_ref())
}

/// An `OtelAgent` as a rival for pods: by its spec, or by what is in force where its spec was refused.
fn candidate(context: &Context, agent: &OtelAgent) -> Option<Candidate> {
    let conditions = agent
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let is_refused = conditions.iter().any(|condition| {
        condition.type_ == ACCEPTED
            && condition.status == "False"
            && condition.observed_generation == agent.metadata.generation
    });
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    // Not judged by its status alone: between a change and the refusal, or where its owner writes the
    // status, it would take pods that are not its own.
    let selection = if is_refused || !is_permitted(agent, &context.environment) {
        let name = names::cluster_object(&namespace, &name, None);
        let found = binding(context, &name, |_| true)?;
        observe::in_force(&found).selection
    } else {
        selection(agent)
    }?;
    let created = agent
        .creation_timestamp()
        .map(|time| time.0.to_string())
        .unwrap_or_default();
    Some(Candidate {
        created,
        namespace,
        name,
        selection,
    })
}
