//! A cache of all pods of the cluster, with a few fields per pod.
//!
//! The client library's store holds whole objects and large keys. Here the pods of one `Deployment` share
//! their labels and their owner, and the cache tells whether a change matters.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::store::Cache;
use otelagent_core::names::{LABEL_AGENT, LABEL_OWNER};
use otelagent_core::pods::Controller;
use otelagent_core::read::{HealthAddress, Labels, PartialPod};

/// The cached fields of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CachedPod {
    pub(crate) labels: Arc<Labels>,
    pub(crate) controller: Option<Arc<Controller>>,
    /// The node on which it runs, or for which it was created.
    pub(crate) node: Option<Arc<str>>,
    /// Whether it is scheduled on that node.
    pub(crate) placed: bool,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    /// Where its agent answers; absent for pods without one.
    pub(crate) health: Option<HealthAddress>,
    /// More of an agent; absent for other pods.
    pub(crate) agent: Option<Box<AgentDetails>>,
    /// What decides whether it can be injected.
    pub(crate) outline: Arc<str>,
}

/// What matters of agents only.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AgentDetails {
    /// Why it does not run.
    pub(crate) waits_for: Option<Box<str>>,
    pub(crate) created: Option<Timestamp>,
}

impl CachedPod {
    /// The node on which it runs.
    pub(crate) fn runs_on(&self) -> Option<&str> {
        self.node.as_deref().filter(|_| self.placed)
    }
}

/// The live pods of the cluster, by namespace and name, without static pods.
#[derive(Default)]
pub(crate) struct Pods {
    namespaces: HashMap<Box<str>, PodsOfNamespace>,
    nodes: Interned<str>,
}

/// The live pods of one namespace.
#[derive(Default)]
pub(crate) struct PodsOfNamespace {
    pods: HashMap<Box<str>, CachedPod>,
    labels: Interned<Labels>,
    controllers: Interned<Controller>,
    outlines: Interned<str>,
}

/// A pod was created, changed or deleted: its labels before and after.
pub(crate) struct PodChange {
    pub(crate) namespace: String,
    pub(crate) labels: Vec<Arc<Labels>>,
}

impl Pods {
    /// The pods by namespace.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&str, &PodsOfNamespace)> {
        self.namespaces.iter().map(|(name, of)| (&**name, of))
    }

    /// The pods of one namespace.
    pub(crate) fn namespace(&self, name: &str) -> impl Iterator<Item = (&str, &CachedPod)> {
        let namespace = self.namespaces.get(name).into_iter();
        namespace.flat_map(PodsOfNamespace::pods)
    }

    /// The agents of one `OtelAgent`, by its label, in its own namespace only: elsewhere tenants may set
    /// that label.
    pub(crate) fn agents_of<'a>(
        &'a self,
        namespace: &str,
        label: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a CachedPod)> {
        let namespace = self.namespaces.get(namespace).into_iter();
        namespace
            .filter(move |namespace| namespace.has(LABEL_OWNER, label))
            .flat_map(PodsOfNamespace::pods)
            .filter(move |(_, pod)| is_marked(&pod.labels, LABEL_OWNER, label))
    }
}

impl PodsOfNamespace {
    /// The name and the cached fields of each pod.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&str, &CachedPod)> {
        self.pods.iter().map(|(name, pod)| (&**name, pod))
    }

    /// How many pods here were injected for each `OtelAgent`, given by its label.
    pub(crate) fn injected(&self) -> HashMap<&str, usize> {
        let mut injected = HashMap::new();
        let live = self.pods.values().filter(|pod| !pod.terminating);
        for label in live.filter_map(|pod| pod.labels.get(LABEL_AGENT)) {
            *injected.entry(label.as_str()).or_default() += 1;
        }
        injected
    }

    /// Whether an `OtelAgent`, given by its label, injected any pod here.
    pub(crate) fn has_injected(&self, label: &str) -> bool {
        self.has(LABEL_AGENT, label)
    }

    /// Whether any pod here has this label value; there are far fewer sets of labels than pods.
    fn has(&self, key: &str, label: &str) -> bool {
        let mut labels = self.labels.0.iter();
        labels.any(|labels| is_marked(labels, key, label))
    }

    fn intern(&mut self, seen: PartialPod, nodes: &mut Interned<str>) -> CachedPod {
        let is_agent = seen.labels.contains_key(LABEL_OWNER);
        CachedPod {
            labels: self.labels.share(seen.labels),
            controller: seen.controller.map(|found| self.controllers.share(found)),
            node: seen.node.map(|node| nodes.share(node)),
            placed: seen.placed,
            ready: seen.ready,
            terminating: seen.terminating,
            health: seen.health,
            agent: is_agent.then(|| {
                Box::new(AgentDetails {
                    waits_for: seen.waits_for.map(Into::into),
                    created: seen.created,
                })
            }),
            outline: self.outlines.share(seen.outline),
        }
    }

    fn release(&mut self, pod: &CachedPod, nodes: &mut Interned<str>) {
        self.labels.release(&pod.labels);
        self.outlines.release(&pod.outline);
        if let Some(controller) = &pod.controller {
            self.controllers.release(controller);
        }
        if let Some(node) = &pod.node {
            nodes.release(node);
        }
    }
}

fn is_marked(labels: &Labels, key: &str, label: &str) -> bool {
    labels.get(key).is_some_and(|found| found == label)
}

impl Cache for Pods {
    type Object = PartialPod;
    type Change = PodChange;

    fn insert(&mut self, mut seen: PartialPod) -> Option<PodChange> {
        if seen.mirror {
            return None;
        }
        let name = seen.metadata.name.take()?;
        let namespace = seen.metadata.namespace.take()?;
        let of_namespace = self.namespaces.entry(namespace.as_str().into());
        let of_namespace = of_namespace.or_default();
        let pod = of_namespace.intern(seen, &mut self.nodes);
        let labels = pod.labels.clone();
        let is_as_before = of_namespace.pods.get(name.as_str()) == Some(&pod);
        let before = of_namespace.pods.insert(name.into(), pod);
        if let Some(before) = &before {
            of_namespace.release(before, &mut self.nodes);
        }
        if is_as_before {
            return None;
        }
        let before = before.map(|pod| pod.labels);
        let before = before.filter(|before| *before != labels);
        Some(PodChange {
            namespace,
            labels: before.into_iter().chain([labels]).collect(),
        })
    }

    fn remove(&mut self, seen: &PartialPod) -> Option<PodChange> {
        let namespace = seen.metadata.namespace.as_deref()?;
        let of_namespace = self.namespaces.get_mut(namespace)?;
        let pod = of_namespace.pods.remove(seen.metadata.name.as_deref()?)?;
        of_namespace.release(&pod, &mut self.nodes);
        if of_namespace.pods.is_empty() {
            self.namespaces.remove(namespace);
        }
        Some(PodChange {
            namespace: namespace.to_owned(),
            labels: vec![pod.labels],
        })
    }
}

/// Stores equal values once.
struct Interned<T: ?Sized>(HashSet<Arc<T>>);

impl<T: ?Sized> Default for Interned<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: ?Sized + Eq + Hash> Interned<T> {
    fn share<V: Borrow<T> + Into<Arc<T>>>(&mut self, value: V) -> Arc<T> {
        if let Some(known) = self.0.get(value.borrow()) {
            return known.clone();
        }
        let value: Arc<T> = value.into();
        self.0.insert(value.clone());
        value
    }

    /// Removes a value with its last user. Users are added only under the cache's lock.
    fn release(&mut self, value: &Arc<T>) {
        if Arc::strong_count(value) <= 2 {
            self.0.remove(&**value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, labels: &[(&str, &str)]) -> PartialPod {
        let labels: Labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "shop", "labels": labels,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart", "controller": true}],
            },
            "spec": {"nodeName": "n1"},
        }))
        .unwrap()
    }

    fn reported(change: Option<PodChange>) -> Option<Vec<Labels>> {
        let labels = change?.labels.into_iter();
        Some(labels.map(|labels| (*labels).clone()).collect())
    }

    fn labels(of: &PartialPod) -> Labels {
        of.labels.clone()
    }

    #[test]
    fn change_of_dropped_fields_is_not_reported() {
        let mut pods = Pods::default();
        let cart = pod("cart-1", &[("app", "cart")]);
        assert_eq!(
            reported(pods.insert(cart.clone())),
            Some(vec![labels(&cart)])
        );
        assert_eq!(reported(pods.insert(cart.clone())), None);
        let ready = PartialPod {
            ready: true,
            ..cart.clone()
        };
        assert_eq!(reported(pods.insert(ready)), Some(vec![labels(&cart)]));
        assert_eq!(reported(pods.remove(&cart)), Some(vec![labels(&cart)]));
        assert_eq!(reported(pods.remove(&cart)), None);
    }

    #[test]
    fn changed_labels_are_reported_before_and_after() {
        let mut pods = Pods::default();
        let (before, after) = (pod("a", &[("app", "cart")]), pod("a", &[("app", "till")]));
        pods.insert(before.clone());
        assert_eq!(
            reported(pods.insert(after.clone())),
            Some(vec![labels(&before), labels(&after)])
        );
    }

    #[test]
    fn namespace_knows_whose_pods_and_agents_it_has_until_the_last_is_gone() {
        let mut pods = Pods::default();
        let injected = [("a", "x.one"), ("b", "x.one"), ("c", "x.two")];
        for (name, label) in injected {
            pods.insert(pod(name, &[(LABEL_AGENT, label)]));
        }
        let agent = pod("agent", &[(LABEL_OWNER, "x.one")]);
        pods.insert(agent.clone());
        let has =
            |pods: &Pods, label: &str| pods.namespaces().any(|(_, of)| of.has_injected(label));
        assert!(has(&pods, "x.one") && has(&pods, "x.two"));
        assert_eq!(
            pods.agents_of("shop", "x.one")
                .map(|(name, _)| name)
                .collect::<Vec<_>>(),
            ["agent"]
        );
        assert_eq!(pods.agents_of("shop", "x.two").count(), 0);
        assert_eq!(pods.agents_of("elsewhere", "x.one").count(), 0);
        pods.remove(&pod("a", &[]));
        assert!(has(&pods, "x.one"));
        pods.insert(pod("b", &[(LABEL_AGENT, "x.two")]));
        assert!(!has(&pods, "x.one") && has(&pods, "x.two"));
        pods.remove(&agent);
        assert_eq!(pods.agents_of("shop", "x.one").count(), 0);
    }

    #[test]
    fn pods_of_one_owner_share_what_they_have_in_common_and_nothing_of_it_stays() {
        let mut pods = Pods::default();
        let all: Vec<PartialPod> = (0..100)
            .map(|n| pod(&format!("cart-{n}"), &[("app", "cart")]))
            .collect();
        for one in &all {
            pods.insert(one.clone());
        }
        let kept = |pods: &Pods| {
            let shop = &pods.namespaces["shop"];
            let (labels, controllers, nodes) = (&shop.labels, &shop.controllers, &pods.nodes);
            let outlines = shop.outlines.0.len();
            [labels.0.len(), controllers.0.len(), nodes.0.len(), outlines]
        };
        assert_eq!(kept(&pods), [1, 1, 1, 1]);
        pods.insert(pod("cart-0", &[("app", "till")]));
        assert_eq!(kept(&pods), [2, 1, 1, 1]);
        pods.insert(pod("cart-0", &[("app", "cart")]));
        assert_eq!(kept(&pods), [1, 1, 1, 1]);
        for one in &all {
            pods.remove(one);
        }
        assert!(pods.namespaces.is_empty() && pods.nodes.0.is_empty());
    }

    #[test]
    fn pods_that_the_kubelet_runs_from_a_file_are_not_kept() {
        let mut pods = Pods::default();
        let mirror = PartialPod {
            mirror: true,
            ..pod("a", &[])
        };
        assert!(pods.insert(mirror).is_none() && pods.namespaces.is_empty());
    }
}
