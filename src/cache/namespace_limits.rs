//! What namespaces demand of the containers in them, as the watches of `LimitRange`s and
//! `ResourceQuota`s have seen it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::store::Cache;
use otelagent_core::inject::namespace_limits::{ContainerLimit, of_limit_range, of_quota};

/// A kind whose objects bound what containers may ask for.
pub(crate) trait Limiting:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Default + Send + Sync + 'static
{
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

/// What an object demands: its namespace, kind and name, and the demands.
pub(crate) type Demand = (String, String, Vec<ContainerLimit>);

/// The demands of one kind, by namespace and name.
#[derive(Default)]
pub(crate) struct Limits<K> {
    namespaces: BTreeMap<String, BTreeMap<String, Vec<ContainerLimit>>>,
    kind: PhantomData<K>,
}

impl<K: Limiting> Cache for Limits<K> {
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

impl<K: Limiting> Limits<K> {
    /// What the objects of namespaces that `wanted` names demand.
    fn of(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Demand> {
        let wanted = self.namespaces.iter().filter(move |(name, _)| wanted(name));
        wanted.flat_map(|(namespace, objects)| {
            let kind = K::kind(&());
            objects.iter().map(move |(name, bounds)| {
                (namespace.clone(), format!("{kind} {name}"), bounds.clone())
            })
        })
    }
}

/// What `LimitRange`s and `ResourceQuota`s of namespaces that `wanted` names demand.
pub(crate) fn in_namespaces(
    ranges: &Limits<LimitRange>,
    quotas: &Limits<ResourceQuota>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Demand> {
    ranges.of(&wanted).chain(quotas.of(&wanted)).collect()
}
