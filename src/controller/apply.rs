//! Writing objects: server-side apply where something differs, deletion with preconditions.
//!
//! Whether something differs is asked of the caches first, so a settled object costs no request.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;

use super::error::ControllerError;
use crate::desired::{Object, ValidAgent, is_as_wanted};
use crate::names;

/// Annotation with a hash over the whole intent: fields that are no longer wanted show only there.
const APPLIED: &str = "otelagent.dev/applied";

/// Writes one namespaced object unless `live` already is what is wanted. Returns whether it wrote.
pub(crate) async fn object(
    client: &Client,
    agent: &ValidAgent,
    desired: &Object,
    annotations: &[(&str, String)],
    live: Option<&Value>,
) -> Result<bool, ControllerError> {
    let resource = match desired {
        Object::DaemonSet(_) => ApiResource::erase::<DaemonSet>(&()),
        Object::Service(_) => ApiResource::erase::<Service>(&()),
    };
    let mut intent = desired.to_json();
    for (key, value) in annotations {
        intent["metadata"]["annotations"][*key] = Value::String(value.clone());
    }
    let intent = sealed(intent);
    if live.is_some_and(|live| is_as_wanted(live, &intent)) {
        return Ok(false);
    }
    let api = Api::namespaced_with(client.clone(), &agent.namespace, &resource);
    if live.is_none() {
        refuse_foreign(&api, agent, desired).await?;
    }
    apply(&api, desired.kind(), desired.name(), &intent).await?;
    Ok(true)
}

/// Writes one cluster-scoped object unless `live` already is what is wanted. Returns what stands after a
/// write, and `None` where there was nothing to write.
pub(crate) async fn cluster_object(
    client: &Client,
    resource: &ApiResource,
    intent: Value,
    live: Option<&Value>,
) -> Result<Option<DynamicObject>, ControllerError> {
    let intent = sealed(intent);
    if live.is_some_and(|live| is_as_wanted(live, &intent)) {
        return Ok(None);
    }
    let name = intent["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    apply(
        &Api::all_with(client.clone(), resource),
        &resource.kind,
        &name,
        &intent,
    )
    .await
    .map(Some)
}

/// The intent with its own hash as an annotation.
fn sealed(mut intent: Value) -> Value {
    let digest = names::hash(&intent.to_string(), 16);
    intent["metadata"]["annotations"][APPLIED] = Value::String(digest);
    intent
}

async fn apply(
    api: &Api<DynamicObject>,
    kind: &str,
    name: &str,
    intent: &Value,
) -> Result<DynamicObject, ControllerError> {
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let stands = api
        .patch(name, &parameters, &Patch::Apply(intent))
        .await
        .map_err(ControllerError::api(format!("apply {kind} {name}")))?;
    tracing::info!(kind, name, "applied");
    Ok(stands)
}

/// Force takes over whatever bears the name, so what is not ours is refused first.
async fn refuse_foreign(
    api: &Api<DynamicObject>,
    agent: &ValidAgent,
    desired: &Object,
) -> Result<(), ControllerError> {
    let found = api
        .get_opt(desired.name())
        .await
        .map_err(ControllerError::api(format!(
            "read {} {}",
            desired.kind(),
            desired.name()
        )))?;
    let is_ours = |object: &DynamicObject| {
        object
            .owner_references()
            .iter()
            .any(|owner| owner.uid == agent.uid)
    };
    match found {
        Some(object) if !is_ours(&object) => Err(ControllerError::NameTaken {
            kind: desired.kind(),
            name: desired.name().into(),
        }),
        _ => Ok(()),
    }
}

/// Deletes exactly the object that was seen: same uid, same version. Already gone is success.
pub(crate) async fn delete<K>(api: &Api<K>, seen: &K) -> Result<(), ControllerError>
where
    K: Resource + Clone + Debug + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    delete_named(api, &seen.name_any(), seen.uid(), seen.resource_version()).await
}

/// As [`delete`], for kinds known at run time only.
pub(crate) async fn delete_named<K>(
    api: &Api<K>,
    name: &str,
    uid: Option<String>,
    resource_version: Option<String>,
) -> Result<(), ControllerError>
where
    K: Clone + Debug + serde::de::DeserializeOwned,
{
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version,
        }),
        ..DeleteParams::background()
    };
    match api.delete(name, &parameters).await {
        Ok(_) => {
            tracing::info!(name, "deleted");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(ControllerError::api(format!("delete {name}"))(error)),
    }
}
