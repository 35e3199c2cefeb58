//! What is kept of the watches over the whole cluster: a few words per object, in types of our own.
//!
//! The client library keeps whole objects, each by a key that repeats half of it. Here the pods of one
//! `Deployment` share their labels and their owner, and a cache says of a change whether it matters.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::slim::{Labels, Placement, SlimNamespace, SlimNode, SlimPod};
use otelagent_core::names::{LABEL_AGENT, LABEL_OWNER};
use otelagent_core::pods::Controller;
use otelagent_core::switching::NodeState;

/// What is kept of one kind.
pub(crate) trait Cache: Default + Send + Sync + 'static {
    /// The kind as it arrives.
    type Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;
    /// What a change means to others.
    type News;

    /// Takes in an object; `None` where nothing changed that is kept.
    fn put(&mut self, object: Self::Object) -> Option<Self::News>;

    /// Forgets an object; `None` where it was not kept.
    fn remove(&mut self, object: &Self::Object) -> Option<Self::News>;
}

/// A cache that one watch fills and every pass reads.
pub(crate) struct Kept<C> {
    cache: RwLock<C>,
    filled: watch::Sender<bool>,
}

impl<C: Cache> Default for Kept<C> {
    fn default() -> Self {
        Self {
            cache: RwLock::default(),
            filled: watch::Sender::new(false),
        }
    }
}

impl<C: Cache> Kept<C> {
    /// The cache as it is now. Nothing is taken in meanwhile, so read it and let go.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, C> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cache, to be changed by its watch.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, C> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a whole list in place of what was kept.
    pub(crate) fn fill(&self, cache: C) {
        *self.write() = cache;
        self.filled.send_replace(true);
    }

    /// Returns once a whole list was seen.
    pub(crate) async fn wait_until_filled(&self) {
        // The sender lives as long as this does.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }
}

/// Whether nodes are Ready, by name.
#[derive(Default)]
pub(crate) struct Nodes(pub(crate) NodeState);

impl Cache for Nodes {
    type Object = SlimNode;
    type News = ();

    fn put(&mut self, node: SlimNode) -> Option<()> {
        let before = self.0.insert(node.name_any(), node.ready);
        (before != Some(node.ready)).then_some(())
    }

    fn remove(&mut self, node: &SlimNode) -> Option<()> {
        self.0.remove(&node.name_any()).map(|_| ())
    }
}

/// Labels of namespaces, by name.
#[derive(Default)]
pub(crate) struct Namespaces(BTreeMap<String, Arc<Labels>>);

impl Namespaces {
    /// Labels of a namespace; none where it is not known (yet).
    pub(crate) fn labels(&self, name: &str) -> Arc<Labels> {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

impl Cache for Namespaces {
    type Object = SlimNamespace;
    type News = ();

    fn put(&mut self, namespace: SlimNamespace) -> Option<()> {
        let (name, labels) = (namespace.name_any(), Arc::new(namespace.labels));
        let before = self.0.insert(name, labels.clone());
        (before != Some(labels)).then_some(())
    }

    fn remove(&mut self, namespace: &SlimNamespace) -> Option<()> {
        self.0.remove(&namespace.name_any()).map(|_| ())
    }
}

/// What is kept of one pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnownPod {
    pub(crate) labels: Arc<Labels>,
    pub(crate) controller: Option<Arc<Controller>>,
    /// The node it runs on, or was made for.
    pub(crate) node: Option<Arc<str>>,
    /// Whether it was placed on that node.
    pub(crate) placed: bool,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    /// Why an agent does not run; of other pods nobody asks.
    pub(crate) waits_for: Option<Box<str>>,
}

impl KnownPod {
    /// The node it runs on.
    pub(crate) fn runs_on(&self) -> Option<&str> {
        self.node.as_deref().filter(|_| self.placed)
    }

    fn mark(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// The live pods of the cluster, by namespace and name; none that the kubelet runs from a file.
#[derive(Default)]
pub(crate) struct Pods {
    namespaces: HashMap<Box<str>, PodsOfNamespace>,
    labels: Shared<Labels>,
    controllers: Shared<Controller>,
    nodes: Shared<str>,
}

/// The live pods of one namespace.
#[derive(Default)]
pub(crate) struct PodsOfNamespace {
    pods: HashMap<Box<str>, KnownPod>,
    /// How many carry which value of the label that says who injected them.
    injected: HashMap<Box<str>, usize>,
    /// The same of the label that says whose agents they are.
    agents: HashMap<Box<str>, usize>,
}

/// A pod came, changed or went: its labels before and after.
pub(crate) struct PodNews {
    pub(crate) namespace: String,
    pub(crate) labels: Vec<Arc<Labels>>,
}

impl Pods {
    /// Every namespace with its pods.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&str, &PodsOfNamespace)> {
        self.namespaces.iter().map(|(name, of)| (&**name, of))
    }

    /// The agents of one `OtelAgent`, known by its label and in its namespace: elsewhere anybody may give
    /// that label to a pod.
    pub(crate) fn agents_of<'a>(
        &'a self,
        namespace: &str,
        label: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a KnownPod)> {
        let namespace = self.namespaces.get(namespace).into_iter();
        namespace
            .filter(move |namespace| namespace.agents.contains_key(label))
            .flat_map(PodsOfNamespace::pods)
            .filter(move |(_, pod)| pod.mark(LABEL_OWNER) == Some(label))
    }

    fn intern(&mut self, seen: SlimPod) -> KnownPod {
        let is_agent = seen.labels.contains_key(LABEL_OWNER);
        let (node, placed) = match seen.node {
            Some(Placement::On(node)) => (Some(node), true),
            Some(Placement::MeantFor(node)) => (Some(node), false),
            None => (None, false),
        };
        KnownPod {
            labels: self.labels.share(seen.labels),
            controller: seen.controller.map(|found| self.controllers.share(found)),
            node: node.map(|node| self.nodes.share(node)),
            placed,
            ready: seen.ready,
            terminating: seen.terminating,
            waits_for: seen.waits_for.filter(|_| is_agent).map(Into::into),
        }
    }

    fn let_go(&mut self, pod: &KnownPod) {
        self.labels.let_go(&pod.labels);
        if let Some(controller) = &pod.controller {
            self.controllers.let_go(controller);
        }
        if let Some(node) = &pod.node {
            self.nodes.let_go(node);
        }
    }
}

impl PodsOfNamespace {
    /// Name and what is kept of every pod.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&str, &KnownPod)> {
        self.pods.iter().map(|(name, pod)| (&**name, pod))
    }

    /// Whether some pod here was injected by an `OtelAgent`, known by its label.
    pub(crate) fn has_injected(&self, label: &str) -> bool {
        self.injected.contains_key(label)
    }

    fn insert(&mut self, name: String, pod: KnownPod) -> Option<KnownPod> {
        count(&mut self.injected, pod.mark(LABEL_AGENT));
        count(&mut self.agents, pod.mark(LABEL_OWNER));
        let before = self.pods.insert(name.into(), pod);
        self.uncount(before.as_ref());
        before
    }

    fn remove(&mut self, name: &str) -> Option<KnownPod> {
        let before = self.pods.remove(name);
        self.uncount(before.as_ref());
        before
    }

    fn uncount(&mut self, pod: Option<&KnownPod>) {
        if let Some(pod) = pod {
            discount(&mut self.injected, pod.mark(LABEL_AGENT));
            discount(&mut self.agents, pod.mark(LABEL_OWNER));
        }
    }
}

fn count(marks: &mut HashMap<Box<str>, usize>, mark: Option<&str>) {
    if let Some(mark) = mark {
        match marks.get_mut(mark) {
            Some(pods) => *pods += 1,
            None => drop(marks.insert(mark.into(), 1)),
        }
    }
}

fn discount(marks: &mut HashMap<Box<str>, usize>, mark: Option<&str>) {
    let Some(mark) = mark else { return };
    if let Some(pods) = marks.get_mut(mark) {
        *pods -= 1;
        if *pods == 0 {
            marks.remove(mark);
        }
    }
}

impl Cache for Pods {
    type Object = SlimPod;
    type News = PodNews;

    fn put(&mut self, mut seen: SlimPod) -> Option<PodNews> {
        if seen.mirror {
            return None;
        }
        let name = seen.metadata.name.take()?;
        let namespace = seen.metadata.namespace.take()?;
        let pod = self.intern(seen);
        let labels = pod.labels.clone();
        let of_namespace = self.namespaces.entry(namespace.as_str().into());
        let of_namespace = of_namespace.or_default();
        let is_as_before = of_namespace.pods.get(name.as_str()) == Some(&pod);
        let before = of_namespace.insert(name, pod);
        if let Some(before) = &before {
            self.let_go(before);
        }
        if is_as_before {
            return None;
        }
        let before = before.map(|pod| pod.labels);
        let before = before.filter(|before| *before != labels);
        Some(PodNews {
            namespace,
            labels: before.into_iter().chain([labels]).collect(),
        })
    }

    fn remove(&mut self, seen: &SlimPod) -> Option<PodNews> {
        let namespace = seen.metadata.namespace.as_deref()?;
        let of_namespace = self.namespaces.get_mut(namespace)?;
        let pod = of_namespace.remove(seen.metadata.name.as_deref()?)?;
        if of_namespace.pods.is_empty() {
            self.namespaces.remove(namespace);
        }
        self.let_go(&pod);
        Some(PodNews {
            namespace: namespace.to_owned(),
            labels: vec![pod.labels],
        })
    }
}

/// Equal values kept once.
struct Shared<T: ?Sized>(HashSet<Arc<T>>);

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    fn share<V: Borrow<T> + Into<Arc<T>>>(&mut self, value: V) -> Arc<T> {
        if let Some(known) = self.0.get(value.borrow()) {
            return known.clone();
        }
        let value: Arc<T> = value.into();
        self.0.insert(value.clone());
        value
    }

    /// Forgets a value whose last holder lets go. Holders are only added under the lock of the cache.
    fn let_go(&mut self, value: &Arc<T>) {
        if Arc::strong_count(value) <= 2 {
            self.0.remove(&**value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, labels: &[(&str, &str)]) -> SlimPod {
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

    fn told(news: Option<PodNews>) -> Option<Vec<Labels>> {
        let labels = news?.labels.into_iter();
        Some(labels.map(|labels| (*labels).clone()).collect())
    }

    fn labels(of: &SlimPod) -> Labels {
        of.labels.clone()
    }

    #[test]
    fn what_does_not_change_what_is_kept_is_no_news() {
        let mut pods = Pods::default();
        let cart = pod("cart-1", &[("app", "cart")]);
        assert_eq!(told(pods.put(cart.clone())), Some(vec![labels(&cart)]));
        assert_eq!(told(pods.put(cart.clone())), None);
        let ready = SlimPod {
            ready: true,
            ..cart.clone()
        };
        assert_eq!(told(pods.put(ready)), Some(vec![labels(&cart)]));
        assert_eq!(told(pods.remove(&cart)), Some(vec![labels(&cart)]));
        assert_eq!(told(pods.remove(&cart)), None);
    }

    #[test]
    fn a_pod_whose_labels_change_is_told_under_both() {
        let mut pods = Pods::default();
        let (before, after) = (pod("a", &[("app", "cart")]), pod("a", &[("app", "till")]));
        pods.put(before.clone());
        assert_eq!(
            told(pods.put(after.clone())),
            Some(vec![labels(&before), labels(&after)])
        );
    }

    #[test]
    fn a_namespace_knows_whose_pods_and_agents_it_has_until_the_last_is_gone() {
        let mut pods = Pods::default();
        let injected = [("a", "x.one"), ("b", "x.one"), ("c", "x.two")];
        for (name, label) in injected {
            pods.put(pod(name, &[(LABEL_AGENT, label)]));
        }
        let agent = pod("agent", &[(LABEL_OWNER, "x.one")]);
        pods.put(agent.clone());
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
        pods.put(pod("b", &[(LABEL_AGENT, "x.two")]));
        assert!(!has(&pods, "x.one") && has(&pods, "x.two"));
        pods.remove(&agent);
        assert_eq!(pods.agents_of("shop", "x.one").count(), 0);
    }

    #[test]
    fn pods_of_one_owner_share_what_they_have_in_common_and_nothing_of_it_stays() {
        let mut pods = Pods::default();
        let all: Vec<SlimPod> = (0..100)
            .map(|n| pod(&format!("cart-{n}"), &[("app", "cart")]))
            .collect();
        for one in &all {
            pods.put(one.clone());
        }
        let kept = |pods: &Pods| {
            (
                pods.labels.0.len(),
                pods.controllers.0.len(),
                pods.nodes.0.len(),
            )
        };
        assert_eq!(kept(&pods), (1, 1, 1));
        pods.put(pod("cart-0", &[("app", "till")]));
        assert_eq!(kept(&pods), (2, 1, 1));
        for one in &all {
            pods.remove(one);
        }
        assert_eq!(kept(&pods), (0, 0, 0));
        assert!(pods.namespaces.is_empty());
    }

    #[test]
    fn pods_that_the_kubelet_runs_from_a_file_are_not_kept() {
        let mut pods = Pods::default();
        let mirror = SlimPod {
            mirror: true,
            ..pod("a", &[])
        };
        assert!(pods.put(mirror).is_none() && pods.namespaces.is_empty());
    }

    #[test]
    fn a_node_is_news_when_its_readiness_changes() {
        let mut nodes = Nodes::default();
        let node = |ready: &str| -> SlimNode {
            serde_json::from_value(json!({
                "metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        assert!(nodes.put(node("True")).is_some());
        assert!(nodes.put(node("True")).is_none());
        assert!(nodes.put(node("False")).is_some());
        assert!(nodes.remove(&node("False")).is_some());
        assert!(nodes.0.is_empty());
    }
}
