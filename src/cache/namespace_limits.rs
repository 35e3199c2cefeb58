//! What namespaces demand of the containers in them, as the watches of `LimitRange`s and
//! `ResourceQuota`s have seen it.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::{Resource, ResourceExt};

use super::store::Cache;
use otelagent_core::inject::namespace_limits::{ContainerLimit, of_limit_range, of_quota};

/// A kind whose objects bound what containers may ask for.
pub(crate) trait Limiting {
    /// What one object demands.
    fn bounds(&self) -> Vec<ContainerLimit>;
}

impl Limiting for LimitRange {
    fn bounds(&self) -> Vec<ContainerLimit> {
        of_limit_range(self)
    }
}

impl Limiting for ResourceQuota {
    fn bounds(&self) -> Vec<ContainerLimit> {
        of_quota(self)
    }
}

/// The demands of one kind, by namespace and name.
pub(crate) struct Limits<K> {
    namespaces: BTreeMap<String, BTreeMap<String, Vec<ContainerLimit>>>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Default for Limits<K> {
    fn default() -> Self {
        Self {
            namespaces: BTreeMap::new(),
            kind: PhantomData,
        }
    }
}

impl<K> Cache for Limits<K>
where
    K: Limiting
        + Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    type Object = K;
    /// The namespace.
    type Change = String;

    fn insert(&mut self, object: K) -> Option<String> {
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

impl<K: Resource<DynamicType = ()>> Limits<K> {
    /// What the objects of namespaces that `wanted` names demand: namespace, object and demands.
    fn of(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, String, Vec<ContainerLimit>)> {
        let wanted = self.namespaces.iter().filter(|(name, _)| wanted(name));
        let each = wanted.flat_map(|(namespace, objects)| {
            let kind = K::kind(&());
            let each = objects.iter();
            each.map(move |(name, bounds)| {
                (namespace.clone(), format!("{kind} {name}"), bounds.clone())
            })
        });
        each.collect()
    }
}

/// What `LimitRange`s and `ResourceQuota`s of namespaces that `wanted` names demand.
pub(crate) fn in_namespaces(
    ranges: &Limits<LimitRange>,
    quotas: &Limits<ResourceQuota>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<(String, String, Vec<ContainerLimit>)> {
    let mut found = ranges.of(&wanted);
    found.extend(quotas.of(&wanted));
    found
}
