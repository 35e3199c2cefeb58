//! Writing objects: server-side apply where something differs, deletion with preconditions.
//!
//! Whether something differs is asked of the caches first, so a settled object costs no request.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::error::ControllerError;
use otelagent_core::build::{Object, ObjectOwner, ValidAgent, corrections, is_as_wanted};
use otelagent_core::names;

/// Annotation with a hash over the whole intent: fields that are no longer wanted show only there.
const APPLIED: &str = "otelagent.dev/applied";

/// Writes one namespaced object unless `live`, which bears its name, already is what is wanted. Returns
/// whether it wrote.
pub(crate) async fn object(
    client: &Client,
    agent: &ValidAgent,
    desired: &Object,
    annotations: &[(&str, String)],
    live: Option<&Value>,
) -> Result<bool, ControllerError> {
    let mut intent = desired.to_json();
    for (key, value) in annotations {
        intent["metadata"]["annotations"][*key] = Value::String(value.clone());
    }
    let target = Target {
        api: Api::namespaced_with(client.clone(), &agent.namespace, &resource(desired)),
        kind: desired.kind(),
        name: desired.name(),
        owner: &agent.owner(),
    };
    let written = target.write(&sealed(intent), live).await?;
    Ok(written.is_some())
}

/// Writes one cluster-scoped object unless `live`, which bears its name, already is what is wanted. Returns
/// what stands after a write, and `None` where there was nothing to write.
pub(crate) async fn cluster_object(
    client: &Client,
    owner: &ObjectOwner,
    (kind, resource): (&'static str, &ApiResource),
    intent: Value,
    live: Option<&Value>,
) -> Result<Option<DynamicObject>, ControllerError> {
    let intent = sealed(intent);
    let target = Target {
        api: Api::all_with(client.clone(), resource),
        kind,
        name: intent["metadata"]["name"].as_str().unwrap_or_default(),
        owner,
    };
    target.write(&intent, live).await
}

/// Whether an object is this `OtelAgent`'s, for the server is asked where it does not say so itself.
pub(crate) async fn is_ours(
    client: &Client,
    agent: &ValidAgent,
    desired: &Object,
    live: &Value,
) -> Result<bool, ControllerError> {
    let owner = agent.owner();
    if owner.is_named_by(live) {
        return Ok(true);
    }
    let target = Target {
        api: Api::namespaced_with(client.clone(), &agent.namespace, &resource(desired)),
        kind: desired.kind(),
        name: desired.name(),
        owner: &owner,
    };
    Ok(target.refuse_foreign().await.is_ok())
}

fn resource(desired: &Object) -> ApiResource {
    match desired {
        Object::DaemonSet(_) => ApiResource::erase::<DaemonSet>(&()),
        Object::Service(_) => ApiResource::erase::<Service>(&()),
    }
}

/// The intent with its own hash as an annotation.
fn sealed(mut intent: Value) -> Value {
    let digest = names::hash(&intent.to_string(), 16);
    intent["metadata"]["annotations"][APPLIED] = Value::String(digest);
    intent
}

/// One object that is to be written.
struct Target<'a> {
    api: Api<DynamicObject>,
    kind: &'static str,
    name: &'a str,
    owner: &'a ObjectOwner,
}

impl Target<'_> {
    async fn write(
        &self,
        intent: &Value,
        live: Option<&Value>,
    ) -> Result<Option<DynamicObject>, ControllerError> {
        let ours = live.filter(|live| self.owner.is_named_by(live));
        if ours.is_some_and(|live| is_as_wanted(live, intent)) {
            return Ok(None);
        }
        if ours.is_none() {
            self.refuse_foreign().await?;
        }
        let stands = match self.apply(intent).await {
            Err(kube::Error::Api(status)) if status.is_invalid() => self.make_room(intent).await,
            other => other,
        };
        let action = || format!("apply {} {}", self.kind, self.name);
        let stands = stands.map_err(|error| ControllerError::api(action())(error))?;
        tracing::info!(kind = self.kind, name = self.name, "applied");
        Ok(Some(stands))
    }

    async fn apply(&self, intent: &Value) -> kube::Result<DynamicObject> {
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        let intent = Patch::Apply(intent);
        self.api.patch(self.name, &parameters, &intent).await
    }

    /// Force takes over whatever bears the name, so what is not ours is refused first.
    async fn refuse_foreign(&self) -> Result<(), ControllerError> {
        let found = self.api.get_metadata_opt(self.name).await;
        let action = || format!("read {} {}", self.kind, self.name);
        let found = found.map_err(|error| ControllerError::api(action())(error))?;
        let found = found.and_then(|found| serde_json::to_value(found).ok());
        if found.is_none_or(|found| self.owner.owns(&found)) {
            return Ok(());
        }
        Err(ControllerError::NameTaken {
            kind: self.kind,
            name: self.name.into(),
        })
    }

    /// Whoever renames or renumbers an entry of a list makes it his own beside ours, and some lists cannot
    /// hold both (one port under two names): such entries go, then the intent is applied again.
    async fn make_room(&self, intent: &Value) -> kube::Result<DynamicObject> {
        if let Some(live) = self.api.get_opt(self.name).await? {
            let version = live.metadata.resource_version.clone();
            let live = serde_json::to_value(live).unwrap_or_default();
            self.patch(version, corrections(&live, intent)).await?;
        }
        let stands = self.apply(intent).await?;
        // What that patch wrote would stay once it is no longer applied: this manager must not own it twice.
        let managers = stands.metadata.managed_fields.iter().flatten();
        let twice = managers.enumerate().find(|(_, entry)| {
            entry.manager.as_deref() == Some(names::FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Update")
        });
        let twice = twice.map(
            |(at, _)| json!({"op": "remove", "path": format!("/metadata/managedFields/{at}")}),
        );
        let twice = twice.into_iter().collect();
        self.patch(stands.metadata.resource_version.clone(), twice)
            .await?;
        Ok(stands)
    }

    /// A JSON patch of exactly this version.
    async fn patch(&self, version: Option<String>, steps: Vec<Value>) -> kube::Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
        let steps: Vec<Value> = std::iter::once(test).chain(steps).collect();
        let steps = serde_json::from_value(Value::Array(steps)).map_err(kube::Error::SerdeError)?;
        let parameters = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let patch = Patch::<()>::Json(steps);
        self.api.patch(self.name, &parameters, &patch).await?;
        Ok(())
    }
}

/// Deletes exactly the object that was seen: same uid, same version. Already gone is success.
pub(crate) async fn delete_object(
    client: &Client,
    agent: &ValidAgent,
    desired: &Object,
    seen: &Value,
) -> Result<(), ControllerError> {
    let api =
        Api::<DynamicObject>::namespaced_with(client.clone(), &agent.namespace, &resource(desired));
    let seen = |key: &str| seen["metadata"][key].as_str().map(str::to_owned);
    delete_named(&api, desired.name(), seen("uid"), seen("resourceVersion")).await
}

/// Deletes the object of this uid and version, where they are given. Already gone is success.
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
