//! What namespaces demand of the containers in them, as the watches of `LimitRange`s and
//! `ResourceQuota`s have seen it.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::{Resource, ResourceExt};

use super::kept::Cache;
use super::stores::Stores;
use otelagent_core::build::{Environment, ValidAgent, topology};
use otelagent_core::inject::namespace_limits::{
    Amounts, NamespaceLimit, breach, of_limit_range, of_quota,
};
use otelagent_core::status::Obstacle;

/// A kind whose objects bound what containers may ask for.
pub(crate) trait Bounding {
    /// What one object demands.
    fn bounds(&self) -> Vec<NamespaceLimit>;
}

impl Bounding for LimitRange {
    fn bounds(&self) -> Vec<NamespaceLimit> {
        of_limit_range(self)
    }
}

impl Bounding for ResourceQuota {
    fn bounds(&self) -> Vec<NamespaceLimit> {
        of_quota(self)
    }
}

/// The demands of one kind, by namespace and name.
pub(crate) struct Bounds<K> {
    namespaces: BTreeMap<String, BTreeMap<String, Vec<NamespaceLimit>>>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Default for Bounds<K> {
    fn default() -> Self {
        Self {
            namespaces: BTreeMap::new(),
            kind: PhantomData,
        }
    }
}

impl<K> Cache for Bounds<K>
where
    K: Bounding
        + Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    type Object = K;
    /// The namespace.
    type News = String;

    fn put(&mut self, object: K) -> Option<String> {
        let bounds = object.bounds();
        if bounds.is_empty() {
            return self.remove(&object);
        }
        let namespace = object.namespace()?;
        let of_namespace = self.namespaces.entry(namespace.clone()).or_default();
        let before = of_namespace.insert(object.name_any(), bounds);
        (before.as_ref() != of_namespace.get(&object.name_any())).then_some(namespace)
    }

    fn remove(&mut self, object: &K) -> Option<String> {
        let namespace = object.namespace()?;
        let of_namespace = self.namespaces.get_mut(&namespace)?;
        of_namespace.remove(&object.name_any())?;
        if of_namespace.is_empty() {
            self.namespaces.remove(&namespace);
        }
        Some(namespace)
    }
}

impl<K: Resource<DynamicType = ()>> Bounds<K> {
    /// What keeps containers of these amounts out of namespaces that `wanted` names.
    fn obstacles(&self, amounts: &Amounts, wanted: impl Fn(&str) -> bool) -> Vec<Obstacle> {
        let namespaces = self.namespaces.iter();
        namespaces
            .filter(|(namespace, _)| wanted(namespace))
            .flat_map(|(namespace, objects)| {
                objects.iter().map(move |(name, of)| (namespace, name, of))
            })
            .filter_map(|(namespace, name, bounds)| {
                Some(Obstacle {
                    namespace: namespace.clone(),
                    object: format!("{} {name}", K::kind(&())),
                    breach: breach(bounds, amounts)?,
                })
            })
            .collect()
    }
}

/// What would keep pods out of the selected namespaces because of the container that is injected.
pub(crate) fn obstacles(
    stores: &Stores,
    agent: &ValidAgent,
    environment: &Environment,
) -> Vec<Obstacle> {
    // Only a sidecar is bounded by the namespaces it is in; the recipe of others need not be rendered.
    let selection = agent.selection.as_ref();
    let Some(selection) = selection.filter(|_| !agent.wanted().on_nodes()) else {
        return Vec::new();
    };
    let amounts = topology(agent.wanted())
        .recipe(agent, environment)
        .amounts();
    let labels = stores.namespaces.read();
    let wanted = |namespace: &str| {
        !environment.is_excluded(namespace)
            && selection.in_namespace(namespace, &labels.labels(namespace))
    };
    let mut found = stores.limit_ranges.read().obstacles(&amounts, wanted);
    found.extend(stores.resource_quotas.read().obstacles(&amounts, wanted));
    found
}
