//! Writes objects: server-side apply, and deletion of exactly the observed objects.

use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Resource, ResourceExt};
use otelagent_core::build::{ObjectOwner, corrections, last_other_manager};
use otelagent_core::in_full;
use otelagent_core::inject::kinds::ADMISSION_KINDS;
use otelagent_core::names;
use otelagent_core::reconcile::contest::Turn;
use otelagent_core::reconcile::{Intent, Mount};
use serde_json::{Value, json};

use super::context::{Context, Reconciliation};
use super::error::{ControllerError, Result};

/// Pods that are changed at the same time.
const MOUNTS_AT_A_TIME: usize = 16;

impl Reconciliation<'_> {
    /// Applies an object, and returns its uid. Leaves a contested object alone until its turn, see
    /// [`Self::uncontested`], and one that the admission of others would change again.
    ///
    /// # Errors
    /// [`ControllerError::NameTaken`] if an object of this name belongs to somebody else.
    pub(super) async fn write(self, intent: &Intent) -> Result<Option<String>> {
        let owner = self.observation.owner();
        if let Some(change) = &intent.undoes {
            if self.context.is_left_to_admission(&owner.uid, intent) {
                return Ok(None);
            }
            if let Turn::Wait(_) = self.context.turn(&owner.uid, intent, change) {
                return Ok(None);
            }
        }
        let target = Target {
            api: self.objects(intent.kind),
            kind: intent.kind,
            name: &intent.name,
            owner: &owner,
        };
        let written = target.write(&intent.body, intent.is_ours).await?;
        self.context.metrics.wrote(intent.kind, "apply");
        let uid = written.uid();
        let remains = intent.remains(&serde_json::to_value(written).unwrap_or_default());
        if remains.is_some() {
            let (kind, name) = (intent.kind, &intent.name);
            tracing::info!(
                kind,
                name,
                "other people's admission has changed what was applied"
            );
        }
        self.context.leave_to_admission(&owner.uid, intent, remains);
        Ok(uid)
    }

    /// Checks that no other writer keeps undoing what was written.
    ///
    /// # Errors
    /// [`ControllerError::Contested`].
    pub(super) async fn uncontested(self) -> Result<()> {
        let uid = self.observation.owner().uid;
        let Some((kind, name, left)) = self.context.contested(&uid) else {
            return Ok(());
        };
        let live = self.objects(kind).get_metadata_opt(&name).await;
        let live = live.map_err(ControllerError::api(format!("read {kind} {name}")))?;
        let live = live.and_then(|live| serde_json::to_value(live).ok());
        let manager = live.as_ref().and_then(last_other_manager);
        Err(ControllerError::Contested {
            kind,
            name,
            manager: manager.unwrap_or("somebody").to_owned(),
            left,
        })
    }

    /// Deletes an object in the `OtelAgent`'s namespace exactly as it was observed, if it belongs to the
    /// `OtelAgent`. If the cached object does not name its owner, asks the API server.
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

    /// Changes an annotation of agents' pods, so that their kubelets mount what has changed. A pod for which that fails
    /// gets it later, as its kubelet looks at every pod once a minute or two.
    pub(super) async fn mount(self, mount: &Mount) {
        let namespace = self.observation.agent.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &namespace);
        let annotations = json!({names::ANNOTATION_CONFIG_WRITTEN: mount.configuration});
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let parameters = PatchParams::default();
        let pods = mount.pods.iter();
        let patches = pods.map(|pod| api.patch_metadata(pod, &parameters, &patch));
        let patches: Vec<_> = patches.collect();
        let mut patches = stream::iter(patches).buffer_unordered(MOUNTS_AT_A_TIME);
        let mut failed = Vec::new();
        while let Some(patched) = patches.next().await {
            match patched {
                Ok(_) => self.context.metrics.wrote("Pod", "patch"),
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => failed.push(error),
            }
        }
        if let Some(error) = failed.first() {
            tracing::warn!(
                pods = failed.len(),
                error = in_full(error),
                "kubelets are not told of a changed configuration"
            );
        }
    }

    /// Objects of a kind: admission objects of the cluster, others of the `OtelAgent`'s own namespace.
    fn objects(self, kind: &str) -> Api<DynamicObject> {
        if ADMISSION_KINDS.contains(&kind) {
            return self.context.admission(kind);
        }
        let resource = if kind == Service::kind(&()) {
            ApiResource::erase::<Service>(&())
        } else if kind == ConfigMap::kind(&()) {
            ApiResource::erase::<ConfigMap>(&())
        } else {
            ApiResource::erase::<DaemonSet>(&())
        };
        let namespace = self.observation.agent.namespace().unwrap_or_default();
        Api::namespaced_with(self.context.client.clone(), &namespace, &resource)
    }
}

/// Deletes exactly the cluster-scoped object with this uid; without a uid the object is already gone.
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

/// One object to write.
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
        let namespace = self.api.namespace();
        tracing::info!(kind = self.kind, namespace, name = self.name, "applied");
        Ok(written)
    }

    async fn apply(&self, intent: &Value) -> kube::Result<DynamicObject> {
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        let intent = Patch::Apply(intent);
        self.api.patch(self.name, &parameters, &intent).await
    }

    /// Forced server-side apply would take over any object of this name, so refuse one of somebody else
    /// first.
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

    /// If somebody renames or renumbers a list item, server-side apply adds the wanted item beside it, and
    /// some lists cannot hold both (one port under two names). Removes such items, then applies the intent
    /// again.
    async fn make_room(&self, intent: &Value) -> kube::Result<DynamicObject> {
        if let Some(live) = self.api.get_opt(self.name).await? {
            let version = live.metadata.resource_version.clone();
            let live = serde_json::to_value(live).unwrap_or_default();
            self.patch(version, corrections(&live, intent)).await?;
        }
        let applied = self.apply(intent).await?;
        // Server-side apply would not remove what this patch has written, so the manager must not own it
        // twice.
        let mut managers = applied.metadata.managed_fields.iter().flatten();
        let twice = managers.position(|entry| {
            entry.manager.as_deref() == Some(names::FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Update")
        });
        if let Some(at) = twice {
            let path = format!("/metadata/managedFields/{at}");
            let steps = vec![json!({"op": "remove", "path": path})];
            let version = applied.metadata.resource_version.clone();
            self.patch(version, steps).await?;
        }
        Ok(applied)
    }

    /// A JSON patch for exactly this version.
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

/// Deletes an object as it was observed; an object that is already gone is a success.
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
        Ok(_) => tracing::info!(kind, namespace = api.namespace(), name, "deleted"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(ControllerError::api(format!("delete {kind} {name}"))(error)),
    }
    context.metrics.wrote(kind, "delete");
    Ok(())
}
