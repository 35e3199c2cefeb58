//! Which ports of the nodes each `OtelAgent` has, as the caches say.

use std::sync::PoisonError;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::{NodePorts, PORT_IN_USE, PortUser, Problem, port_problem};

use super::context::Context;
use super::observe::{created, refusal};
use crate::cache::Decoded;

/// The problem of an object that needs ports which another one has. Without a problem, it has its ports from now
/// on.
pub(super) fn problem(context: &Context, agent: &OtelAgent) -> Option<Problem> {
    NodePorts::wanted(&agent.spec)?;
    let known = context.stores.agents.state();
    let given = &context.given_ports;
    let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = |metadata: &ObjectMeta, agent: Option<&OtelAgent>| {
        let is_given = given.get(metadata.uid.as_deref().unwrap_or_default());
        let is_given = is_given == Some(&metadata.generation);
        user(context, metadata, agent, is_given)
    };
    let others = known.iter().filter(|other| is_asking(context, other));
    let others = others.filter(|other| other.metadata.uid != agent.metadata.uid);
    let others: Vec<PortUser> = others
        .map(|other| {
            let asking = other.agent.as_ref().ok().filter(|agent| is_accepted(agent));
            seen(&other.metadata, asking)
        })
        .collect();
    let me = seen(&agent.metadata, Some(agent));
    let problem = port_problem(&me, agent.spec.ports, &others);
    let uid = agent.uid().unwrap_or_default();
    match problem {
        None => given.insert(uid, agent.metadata.generation),
        Some(_) => given.remove(&uid),
    };
    problem
}

/// Only platform namespaces have agents on nodes, and an object that is deleted takes them with it.
fn is_asking(context: &Context, other: &Decoded) -> bool {
    let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
    other.metadata.deletion_timestamp.is_none() && context.environment.is_platform(namespace)
}

/// Whether nothing but its ports is wrong with a spec.
fn is_accepted(agent: &OtelAgent) -> bool {
    refusal(agent).is_none_or(|reason| reason == PORT_IN_USE)
}

fn user(
    context: &Context,
    metadata: &ObjectMeta,
    asking: Option<&OtelAgent>,
    is_given: bool,
) -> PortUser {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let wanted = asking.and_then(|agent| NodePorts::wanted(&agent.spec));
    let running = Mode::ALL.into_iter().filter_map(|mode| {
        let found = context.stores.daemon_set(&namespace, &name, mode)?;
        NodePorts::running(mode, &found)
    });
    let given = wanted.clone().filter(|_| is_given);
    PortUser {
        created: created(metadata),
        running: running.chain(given).collect(),
        namespace,
        name,
        wanted,
    }
}
