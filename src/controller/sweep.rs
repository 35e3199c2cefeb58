//! Removes cluster-scoped objects whose `OtelAgent` is gone.
//!
//! A namespaced object cannot own them, so the garbage collector does not delete them. A cache may lag, so
//! the sweep asks the server before it deletes anything.

use std::collections::{BTreeMap, HashSet};

use kube::api::DynamicObject;
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};

use super::apply;
use super::context::Context;
use super::error::{ControllerError, Result};
use otelagent_core::build::is_applied;
use otelagent_core::inject::kinds::ADMISSION_KINDS;
use otelagent_core::names;
use otelagent_core::read::Decoded;

/// One sweep. It compares `OtelAgent`s by uid: a recreated one is another object. An object that cannot be removed
/// keeps the later ones of its `OtelAgent`, and nobody else's; returns why.
pub(crate) async fn sweep(context: &Context) -> Vec<ControllerError> {
    let known = context.stores.agents.state();
    let alive: HashSet<String> = known.iter().filter_map(|agent| agent.uid()).collect();
    context.retain(&alive);
    let mut sweeper = Sweeper {
        context,
        gone: BTreeMap::new(),
    };
    let mut failures = Vec::new();
    for kind in ADMISSION_KINDS {
        let store = context.stores.admission.get(kind);
        for object in store.map(Store::state).unwrap_or_default() {
            let uid = object.labels().get(names::LABEL_OWNER_UID);
            let Some(uid) = uid.filter(|uid| !alive.contains(*uid)) else {
                continue;
            };
            let Err(error) = sweeper.remove(kind, &object, uid).await else {
                continue;
            };
            let is_away = error.reason() == "ApiUnreachable";
            sweeper.gone.insert(uid.clone(), false);
            failures.push(error);
            if is_away {
                return failures;
            }
        }
    }
    failures
}

struct Sweeper<'a> {
    context: &'a Context,
    /// By uid, whether an `OtelAgent` is gone and its objects can be removed.
    gone: BTreeMap<String, bool>,
}

impl Sweeper<'_> {
    /// Removes an object if the `OtelAgent` with this uid is gone and the operator created it.
    async fn remove(
        &mut self,
        kind: &'static str,
        object: &DynamicObject,
        uid: &str,
    ) -> Result<()> {
        let own_name = object.name_any();
        let Some((namespace, name)) = names::owner_of_cluster_object(&own_name) else {
            return Ok(());
        };
        let is_gone = if let Some(is_gone) = self.gone.get(uid) {
            *is_gone
        } else {
            let is_gone = is_gone(self.context, &namespace, &name, uid).await?;
            self.gone.insert(uid.to_owned(), is_gone);
            is_gone
        };
        if is_gone && is_ours(self.context, kind, &own_name).await? {
            apply::delete_admission(self.context, kind, &own_name, object.uid()).await?;
        }
        Ok(())
    }
}

/// Whether the operator created it; labels alone do not show that.
async fn is_ours(context: &Context, kind: &str, name: &str) -> Result<bool> {
    let live = context.admission(kind).get_metadata_opt(name).await;
    let live = live.map_err(ControllerError::api("look whose an object is"))?;
    let live = live.and_then(|live| serde_json::to_value(live).ok());
    Ok(live.is_some_and(|live| is_applied(&live)))
}

async fn is_gone(context: &Context, namespace: &str, name: &str, uid: &str) -> Result<bool> {
    // A raw object: an `OtelAgent` that cannot be decoded has no typed metadata either.
    let api: Api<Decoded> = Api::namespaced(context.client.clone(), namespace);
    let found = api.get_opt(name).await;
    let found = found.map_err(ControllerError::api("look for an owner"))?;
    Ok(found.and_then(|object| object.uid()).as_deref() != Some(uid))
}
