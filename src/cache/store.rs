//! Caches that one watch fills and every reconcile reads.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::{Resource, ResourceExt};
use otelagent_core::read::{Labels, PartialNamespace, PartialNode};
use otelagent_core::switching::NodeStates;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// The cache of one kind.
pub(crate) trait Cache: Default + Send + Sync + 'static {
    /// The kind as decoded.
    type Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;
    /// What others need to know about a change.
    type Change;

    /// Adds or replaces an object; `None` if no cached field changed.
    fn insert(&mut self, object: Self::Object) -> Option<Self::Change>;

    /// Removes an object; `None` if it was not cached.
    fn remove(&mut self, object: &Self::Object) -> Option<Self::Change>;
}

/// A cache that one watch fills and every reconcile reads.
pub(crate) struct Cached<C> {
    cache: RwLock<C>,
    filled: watch::Sender<bool>,
}

impl<C: Cache> Default for Cached<C> {
    fn default() -> Self {
        Self {
            cache: RwLock::default(),
            filled: watch::Sender::new(false),
        }
    }
}

impl<C: Cache> Cached<C> {
    /// Locks the cache for reading. The watch waits meanwhile, so release it soon.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, C> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the cache for its watch.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, C> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the content by a whole list.
    pub(crate) fn fill(&self, cache: C) {
        *self.write() = cache;
        self.filled.send_replace(true);
    }

    /// Whether a whole list has arrived.
    pub(crate) fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// Returns once a whole list has arrived.
    pub(crate) async fn wait_until_filled(&self) {
        // The sender lives as long as this does.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }
}

/// What matters of nodes, by name.
#[derive(Default)]
pub(crate) struct Nodes(Arc<NodeStates>);

impl Nodes {
    /// A snapshot of the states.
    pub(crate) fn states(&self) -> Arc<NodeStates> {
        self.0.clone()
    }
}

impl Cache for Nodes {
    type Object = PartialNode;
    type Change = ();

    fn insert(&mut self, node: PartialNode) -> Option<()> {
        let name = node.name_any();
        if self.0.get(&name).is_some_and(|known| **known == node.state) {
            return None;
        }
        Arc::make_mut(&mut self.0).insert(name, Arc::new(node.state));
        Some(())
    }

    fn remove(&mut self, node: &PartialNode) -> Option<()> {
        Arc::make_mut(&mut self.0)
            .remove(&node.name_any())
            .map(|_| ())
    }
}

/// Labels of namespaces, by name.
#[derive(Default)]
pub(crate) struct Namespaces(BTreeMap<String, Arc<Labels>>);

impl Namespaces {
    /// Every namespace with its labels.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Labels)> {
        self.0
            .iter()
            .map(|(name, labels)| (name.as_str(), &**labels))
    }

    /// Labels of a namespace; none if it is not known (yet).
    pub(crate) fn labels(&self, name: &str) -> Arc<Labels> {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

impl Cache for Namespaces {
    type Object = PartialNamespace;
    type Change = ();

    fn insert(&mut self, namespace: PartialNamespace) -> Option<()> {
        let (name, labels) = (namespace.name_any(), Arc::new(namespace.labels));
        let before = self.0.insert(name, labels.clone());
        (before != Some(labels)).then_some(())
    }

    fn remove(&mut self, namespace: &PartialNamespace) -> Option<()> {
        self.0.remove(&namespace.name_any()).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn node_change_is_reported_when_readiness_labels_or_taints_change() {
        let mut nodes = Nodes::default();
        let node = |ready: &str, os: &str, taints: serde_json::Value| -> PartialNode {
            serde_json::from_value(json!({
                "metadata": {"name": "n1", "labels": {"kubernetes.io/os": os}},
                "spec": {"taints": taints},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let taint = json!([{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}]);
        for (ready, os, taints) in [
            ("True", "linux", json!(null)),
            ("False", "linux", json!(null)),
            ("False", "windows", json!(null)),
            ("False", "windows", taint),
        ] {
            assert!(nodes.insert(node(ready, os, taints.clone())).is_some());
            assert!(nodes.insert(node(ready, os, taints)).is_none());
        }
        assert!(nodes.remove(&node("False", "linux", json!([]))).is_some());
        assert!(nodes.0.is_empty());
    }
}
