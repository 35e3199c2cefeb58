//! Writes objects: server-side apply, and deletion of exactly what was seen.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Resource, ResourceExt};
use otelagent_core::build::{ObjectOwner, corrections};
use otelagent_core::inject::kinds::ADMISSION_KINDS;
use otelagent_core::names;
use otelagent_core::reconcile::Intent;
use serde_json::{Value, json};

use super::context::{Context, Pass};
use super::error::{ControllerError, Result};

impl Pass<'_> {
    /// Applies an object, and returns its uid.
    ///
    /// # Errors
    /// [`ControllerError::NameTaken`] where somebody else made the object of its name.
    pub(super) async fn write(self, intent: &Intent) -> Result<Option<String>> {
        let target = Target {
            api: self.objects(intent.kind),
            kind: intent.kind,
            name: &intent.name,
            owner: &self.observation.owner(),
        };
        let written = target.write(&intent.body, intent.is_ours).await?;
        self.context.metrics.wrote(intent.kind, "apply");
        Ok(written.uid())
    }

    /// Deletes an object of the `OtelAgent`'s namespace exactly as it was seen, if it is the `OtelAgent`'s;
    /// the API server is asked where the object does not say so itself.
    pub(super) async fn delete_own(self, kind: &'static str, seen: &Value) -> Result<()> {
        let text = |key: &str| seen["metadata"][key].as_str().map(str::to_owned);
        let name = text("name").unwrap_or_default();
        let target = Target {
            api: self.objects(kind),
            kind,
            name: &name,
            owner: &self.observation.owner(),
        };
        if !target.owner.is_named_by(seen) && target.refuse_foreign().await.is_err() {
            return Ok(());
        }
        let seen = Preconditions {
            uid: text("uid"),
            resource_version: text("resourceVersion"),
        };
        delete(self.context, &target.api, kind, &name, seen).await
    }

    /// Objects of a kind: admission objects of the cluster, others of the `OtelAgent`'s own namespace.
    fn objects(self, kind: &str) -> Api<DynamicObject> {
        if ADMISSION_KINDS.contains(&kind) {
            return self.context.admission(kind);
        }
        let resource = if kind == Service::kind(&()) {
            ApiResource::erase::<Service>(&())
        } else {
            ApiResource::erase::<DaemonSet>(&())
        };
        let namespace = self.observation.agent.namespace().unwrap_or_default();
        Api::namespaced_with(self.context.client.clone(), &namespace, &resource)
    }
}

/// Deletes exactly the cluster-scoped object of this uid; without one it is known to be gone.
pub(crate) async fn delete_admission(
    context: &Context,
    kind: &'static str,
    name: &str,
    uid: Option<String>,
) -> Result<()> {
    if uid.is_none() {
        return Ok(());
    }
    let seen = Preconditions {
        uid,
        resource_version: None,
    };
    delete(context, &context.admission(kind), kind, name, seen).await
}

/// One object that is to be written.
struct Target<'a> {
    api: Api<DynamicObject>,
    kind: &'static str,
    name: &'a str,
    owner: &'a ObjectOwner,
}

impl Target<'_> {
    async fn write(&self, intent: &Value, is_ours: bool) -> Result<DynamicObject> {
        if !is_ours {
            self.refuse_foreign().await?;
        }
        let written = match self.apply(intent).await {
            Err(kube::Error::Api(status)) if status.is_invalid() => self.make_room(intent).await,
            other => other,
        };
        let action = format!("apply {} {}", self.kind, self.name);
        let written = written.map_err(ControllerError::api(action))?;
        tracing::info!(kind = self.kind, name = self.name, "applied");
        Ok(written)
    }

    async fn apply(&self, intent: &Value) -> kube::Result<DynamicObject> {
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        let intent = Patch::Apply(intent);
        self.api.patch(self.name, &parameters, &intent).await
    }

    /// Force takes over whatever bears the name, so what is not ours is refused first.
    async fn refuse_foreign(&self) -> Result<()> {
        let found = self.api.get_metadata_opt(self.name).await;
        let action = format!("read {} {}", self.kind, self.name);
        let found = found.map_err(ControllerError::api(action))?;
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
        let mut managers = stands.metadata.managed_fields.iter().flatten();
        let twice = managers.position(|entry| {
            entry.manager.as_deref() == Some(names::FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Update")
        });
        if let Some(at) = twice {
            let path = format!("/metadata/managedFields/{at}");
            let steps = vec![json!({"op": "remove", "path": path})];
            let version = stands.metadata.resource_version.clone();
            self.patch(version, steps).await?;
        }
        Ok(stands)
    }

    /// A JSON patch of exactly this version.
    async fn patch(&self, version: Option<String>, steps: Vec<Value>) -> kube::Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
        let steps = std::iter::once(test).chain(steps).collect();
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

/// Deletes an object as it was seen. Already gone is success.
async fn delete(
    context: &Context,
    api: &Api<DynamicObject>,
    kind: &'static str,
    name: &str,
    seen: Preconditions,
) -> Result<()> {
    let parameters = DeleteParams {
        preconditions: Some(seen),
        ..DeleteParams::background()
    };
    match api.delete(name, &parameters).await {
        Ok(_) => tracing::info!(name, "deleted"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(ControllerError::api(format!("delete {name}"))(error)),
    }
    context.metrics.wrote(kind, "delete");
    Ok(())
}
