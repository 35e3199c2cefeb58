//! Where objects of each kind go in a snapshot.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::DynamicObject;
use kube::{Resource, ResourceExt};
use otelagent_core::build::Engine;
use otelagent_core::inject::kinds::BINDING;
use otelagent_core::names;
use otelagent_core::read::{Decoded, PartialNamespace, PartialNode, PartialPod};
use otelagent_core::reconcile::Active;
use serde::de::DeserializeOwned;

use crate::snapshot::{Key, Snapshot};

/// A kind of which a snapshot keeps the objects.
pub(super) trait Part: Resource + Clone + Debug + DeserializeOwned + Send + 'static {
    /// Adds or replaces an object.
    fn put(self, snapshot: &mut Snapshot);

    /// Removes an object.
    fn remove(&self, snapshot: &mut Snapshot);

    /// Removes all objects, or those of one namespace; of an admission kind, those of that kind.
    fn clear(snapshot: &mut Snapshot, place: Option<&str>);
}

/// Namespace and name of an object.
fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn is_elsewhere(place: Option<&str>, (namespace, _): &Key) -> bool {
    place.is_some_and(|place| place != namespace)
}

impl Part for Decoded {
    fn put(self, snapshot: &mut Snapshot) {
        snapshot.agents.insert(key(&self), self);
    }

    fn remove(&self, snapshot: &mut Snapshot) {
        snapshot.agents.remove(&key(self));
    }

    fn clear(snapshot: &mut Snapshot, place: Option<&str>) {
        snapshot.agents.retain(|key, _| is_elsewhere(place, key));
    }
}

impl Part for PartialPod {
    fn put(self, snapshot: &mut Snapshot) {
        snapshot.pods.insert(key(&self), self.into());
    }

    fn remove(&self, snapshot: &mut Snapshot) {
        snapshot.pods.remove(&key(self));
    }

    fn clear(snapshot: &mut Snapshot, place: Option<&str>) {
        snapshot.pods.retain(|key, _| is_elsewhere(place, key));
    }
}

impl Part for DaemonSet {
    fn put(self, snapshot: &mut Snapshot) {
        snapshot.daemon_sets.insert(key(&self), self);
    }

    fn remove(&self, snapshot: &mut Snapshot) {
        snapshot.daemon_sets.remove(&key(self));
    }

    fn clear(snapshot: &mut Snapshot, place: Option<&str>) {
        snapshot
            .daemon_sets
            .retain(|key, _| is_elsewhere(place, key));
    }
}

impl Part for PartialNode {
    fn put(self, snapshot: &mut Snapshot) {
        let nodes = snapshot.nodes.get_or_insert_default();
        nodes.insert(self.name_any(), self.state.into());
    }

    fn remove(&self, snapshot: &mut Snapshot) {
        let nodes = snapshot.nodes.get_or_insert_default();
        nodes.remove(&self.name_any());
    }

    fn clear(snapshot: &mut Snapshot, _: Option<&str>) {
        snapshot.nodes.get_or_insert_default().clear();
    }
}

impl Part for PartialNamespace {
    fn put(self, snapshot: &mut Snapshot) {
        let namespaces = snapshot.namespaces.get_or_insert_default();
        namespaces.insert(self.name_any(), self.labels);
    }

    fn remove(&self, snapshot: &mut Snapshot) {
        let namespaces = snapshot.namespaces.get_or_insert_default();
        namespaces.remove(&self.name_any());
    }

    fn clear(snapshot: &mut Snapshot, _: Option<&str>) {
        snapshot.namespaces.get_or_insert_default().clear();
    }
}

/// The `OtelAgent` whose binding, or webhook configuration, this is; `None` for those of the canary, whose names have
/// a further part.
fn owner(object: &DynamicObject) -> Option<Key> {
    let name = object.name_any();
    let owner = names::owner_of_cluster_object(&name)?;
    (names::cluster_object(&owner.0, &owner.1, None) == name).then_some(owner)
}

/// Bindings of policies and webhook configurations.
impl Part for DynamicObject {
    fn put(self, snapshot: &mut Snapshot) {
        if let Some(owner) = owner(&self) {
            let object = serde_json::to_value(&self).unwrap_or_default();
            let active = snapshot.active.get_or_insert_default();
            active.insert(owner, Active::of(&object));
        }
    }

    fn remove(&self, snapshot: &mut Snapshot) {
        if let Some(owner) = owner(self) {
            snapshot.active.get_or_insert_default().remove(&owner);
        }
    }

    fn clear(snapshot: &mut Snapshot, kind: Option<&str>) {
        let engine = match kind {
            Some(BINDING) => Engine::Policy,
            _ => Engine::Webhook,
        };
        let active = snapshot.active.get_or_insert_default();
        active.retain(|_, active| active.engine(engine) != engine);
    }
}
