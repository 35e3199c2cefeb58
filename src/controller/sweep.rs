//! Removing cluster-scoped objects whose `OtelAgent` is gone.
//!
//! They cannot be owned by a namespaced object, so nothing collects them but this. A cache may lag:
//! the server itself is asked before anything is deleted.

use std::collections::{BTreeMap, HashSet};

use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};

use super::apply;
use super::context::Context;
use super::error::{ControllerError, Result};
use crate::cache::Decoded;
use otelagent_core::build::is_applied;
use otelagent_core::inject::kinds::ADMISSION_KINDS;
use otelagent_core::names;

/// One sweep. `OtelAgent`s are known by uid: one that was deleted and made again is another.
pub(crate) async fn sweep(context: &Context) -> Result<()> {
    let known = context.stores.agents.state();
    let alive: HashSet<String> = known.iter().filter_map(|agent| agent.uid()).collect();
    context.retain(&alive);
    let mut gone: BTreeMap<String, bool> = BTreeMap::new();
    for kind in ADMISSION_KINDS {
        let store = context.stores.admission.get(kind);
        for object in store.map(Store::state).unwrap_or_default() {
            let uid = object.labels().get(names::LABEL_OWNER_UID);
            let Some(uid) = uid.filter(|uid| !alive.contains(*uid)) else {
                continue;
            };
            let own_name = object.name_any();
            let Some((namespace, name)) = names::owner_of_cluster_object(&own_name) else {
                continue;
            };
            if !gone.contains_key(uid) {
                let is_gone = is_gone(context, &namespace, &name, uid).await?;
                gone.insert(uid.clone(), is_gone);
            }
            if gone[uid] && is_ours(context, kind, &own_name).await? {
                apply::delete_admission(context, kind, &own_name, object.uid()).await?;
            }
        }
    }
    Ok(())
}

/// Whether this operator made it: labels alone are anybody's.
async fn is_ours(context: &Context, kind: &str, name: &str) -> Result<bool> {
    let live = context.admission(kind).get_metadata_opt(name).await;
    let live = live.map_err(ControllerError::api("look whose an object is"))?;
    let live = live.and_then(|live| serde_json::to_value(live).ok());
    Ok(live.is_some_and(|live| is_applied(&live)))
}

async fn is_gone(context: &Context, namespace: &str, name: &str, uid: &str) -> Result<bool> {
    // The object itself: of one that cannot be read not even its metadata could.
    let api: Api<Decoded> = Api::namespaced(context.client.clone(), namespace);
    let found = api.get_opt(name).await;
    let found = found.map_err(ControllerError::api("look for an owner"))?;
    Ok(found.and_then(|object| object.uid()).as_deref() != Some(uid))
}
