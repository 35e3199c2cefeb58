//! Asking the server itself, before anything is done that an old view must not decide.
//!
//! A watch can fall behind for as long as its connection lives, and one replica's caches may have been
//! filled long before it came to lead. What only adds can be put right once the cache has caught up; what
//! takes away or sends pods elsewhere cannot. So those steps are preceded by a few reads that name no
//! version, which the server answers as of now (KEP-2340). Whoever holds the lease is the only writer, so
//! what is read stays so.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams, PartialObjectMeta};
use kube::{Api, ResourceExt};

use super::context::Context;
use super::engine;
use super::error::ControllerError;
use super::observe::{self, InForce};
use super::slim::{Placement, SlimPod};
use super::stores::admission_resource;
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::ValidAgent;
use otelagent_core::names;

/// Fails unless the server has the spec that the cache has.
pub(crate) async fn spec(context: &Context, agent: &OtelAgent) -> Result<(), ControllerError> {
    let namespace = agent.namespace().unwrap_or_default();
    let api: Api<OtelAgent> = Api::namespaced(context.client.clone(), &namespace);
    let found = api
        .get_metadata_opt(&agent.name_any())
        .await
        .map_err(ControllerError::api("read the spec's generation"))?;
    let is_same = found.is_some_and(|live| {
        live.metadata.uid == agent.metadata.uid
            && live.metadata.generation == agent.metadata.generation
            && live.metadata.deletion_timestamp.is_none()
    });
    is_same
        .then_some(())
        .ok_or(ControllerError::StaleView("OtelAgent"))
}

/// What the server says now of what is `known` to be in force.
pub(crate) async fn in_force(
    context: &Context,
    valid: &ValidAgent,
    known: &InForce,
) -> Result<InForce, ControllerError> {
    let resource = admission_resource(engine::kind_in_force(context, known));
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource);
    let name = names::cluster_object(&valid.namespace, &valid.name, None);
    let query = ListParams::default()
        .fields(&format!("metadata.name={name}"))
        .limit(1);
    let found = api
        .list(&query)
        .await
        .map_err(ControllerError::api("read what is in force"))?;
    let own = found.items.iter().find(|binding| {
        let owner = binding.labels().get(names::LABEL_OWNER_UID);
        owner.is_some_and(|owner| *owner == valid.uid)
    });
    Ok(own.map(observe::in_force).unwrap_or_default())
}

/// Fails unless spec and binding are on the server what the caches have.
pub(crate) async fn view(
    context: &Context,
    agent: &OtelAgent,
    valid: &ValidAgent,
    known: &InForce,
) -> Result<(), ControllerError> {
    spec(context, agent).await?;
    if context.engine.is_ok() && in_force(context, valid, known).await? != *known {
        let kind = engine::kind_in_force(context, known);
        return Err(ControllerError::StaleView(kind));
    }
    Ok(())
}

/// Whether a mode's vehicle stands on the server as the caches have it, with no fewer nodes served. Always
/// so of a mode without one.
pub(crate) async fn workload_exists(
    context: &Context,
    valid: &ValidAgent,
    mode: Mode,
) -> Result<bool, ControllerError> {
    let Some(state) = observe::workload_state(&context.stores, valid, &context.environment, mode)
    else {
        return Ok(true);
    };
    let cached = context
        .stores
        .daemon_set(&valid.namespace, &valid.name, mode);
    let Some(cached) = cached else {
        return Ok(false);
    };
    let api = Api::<DaemonSet>::namespaced(context.client.clone(), &valid.namespace);
    let live = api
        .get_opt(&cached.name_any())
        .await
        .map_err(ControllerError::api("read an agent workload"))?;
    let is_same = live.as_ref().is_some_and(|live| {
        live.metadata.uid == cached.metadata.uid
            && live.metadata.generation == cached.metadata.generation
            && live.metadata.deletion_timestamp.is_none()
    });
    let counted = live.and_then(|live| live.status);
    if !is_same || counted.is_some_and(|status| status.number_ready >= state.ready.max(1)) {
        return Ok(is_same);
    }
    // The DaemonSet controller counts late, and only nodes that still want an agent.
    Ok(nodes_served(context, valid, mode).await? >= state.ready.max(1))
}

/// Nodes with a ready agent of a mode, as the server itself knows them.
async fn nodes_served(
    context: &Context,
    valid: &ValidAgent,
    mode: Mode,
) -> Result<i32, ControllerError> {
    let api = Api::<SlimPod>::namespaced(context.client.clone(), &valid.namespace);
    let selector = format!(
        "{}={},{}={mode}",
        names::LABEL_OWNER,
        valid.label(),
        names::LABEL_WORKLOAD
    );
    let found = api
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(ControllerError::api("count the ready agents"))?;
    let ready = found
        .items
        .iter()
        .filter(|pod| pod.ready && !pod.terminating);
    let nodes: BTreeSet<&str> = ready
        .filter_map(|pod| match &pod.node {
            Some(Placement::On(node)) => Some(node.as_str()),
            _ => None,
        })
        .collect();
    Ok(i32::try_from(nodes.len()).unwrap_or(i32::MAX))
}

/// Whether some live pod was given this mode, as the server itself knows it.
pub(crate) async fn is_used(
    context: &Context,
    valid: &ValidAgent,
    mode: Mode,
) -> Result<bool, ControllerError> {
    let api = Api::<PartialObjectMeta<Pod>>::all(context.client.clone());
    let selector = format!(
        "{}={},{}={mode}",
        names::LABEL_AGENT,
        valid.label(),
        names::LABEL_MODE
    );
    let query = ListParams::default()
        .labels(&selector)
        .fields("status.phase!=Succeeded,status.phase!=Failed")
        .limit(1);
    let found = api
        .list(&query)
        .await
        .map_err(ControllerError::api("count the users of an old path"))?;
    Ok(!found.items.is_empty())
}
