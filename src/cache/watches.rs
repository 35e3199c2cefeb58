//! One watch per kind, with back-off; a change wakes the `OtelAgent`s that it concerns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use futures::channel::mpsc::UnboundedSender;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::decode::Decoded;
use super::namespace_limits::{Limiting, Limits};
use super::pods::{PodChange, Pods};
use super::store::{Cache, Cached, Namespaces, Nodes};
use super::stores::{Stores, admission_resource};
use super::trigger::{Trigger, is_made_for, may_lose_to, pod_changed};
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::selection;
use otelagent_core::names;

/// The watches, to be driven by a task each.
pub(crate) type Watches = Vec<std::pin::Pin<Box<dyn Future<Output = &'static str> + Send>>>;

/// Starts nothing; builds stores and the watches that fill them.
///
/// `owned_namespaces` are those in which vehicles may stand; nothing else is watched there.
pub(crate) fn build(
    client: &Client,
    owned_namespaces: &BTreeSet<String>,
    admission: &[&'static str],
    sender: UnboundedSender<ObjectRef<Decoded>>,
) -> (Stores, Watches, Trigger) {
    let (agents, writer) = reflector::store::<Decoded>();
    let trigger = Trigger::new(agents.clone(), sender);
    let mut builder = Builder {
        client: client.clone(),
        trigger,
        watches: Vec::new(),
    };
    builder.agents(writer, owned_namespaces.clone());
    let namespaces = builder.namespaces();
    let mut stores = Stores {
        agents,
        pods: builder.pods(&namespaces),
        nodes: builder.nodes(),
        limit_ranges: builder.limits("limitranges", &namespaces),
        resource_quotas: builder.limits("resourcequotas", &namespaces),
        namespaces,
        daemon_sets: Vec::new(),
        services: Vec::new(),
        admission: BTreeMap::new(),
    };
    for namespace in owned_namespaces {
        let api = Api::namespaced(client.clone(), namespace);
        stores
            .daemon_sets
            .push(builder.owned("daemonsets", api, ()));
        let api = Api::namespaced(client.clone(), namespace);
        stores.services.push(builder.owned("services", api, ()));
    }
    for kind in admission {
        let resource = admission_resource(kind);
        let api = Api::all_with(client.clone(), &resource);
        stores
            .admission
            .insert(kind, builder.owned(kind, api, resource));
    }
    (stores, builder.watches, builder.trigger)
}

/// The watches as they are added.
struct Builder {
    client: Client,
    trigger: Trigger,
    watches: Watches,
}

impl Builder {
    /// A new, changed or deleted spec may change whom its younger rivals exclude; a written status does not.
    fn agents(&mut self, writer: Writer<Decoded>, platform: BTreeSet<String>) {
        let on = self.trigger.clone();
        let mut generations: HashMap<String, Option<i64>> = HashMap::new();
        let notify = move |agent: Option<&Decoded>| {
            let Some(agent) = agent else {
                let known = on.agents().state();
                let generation = |agent: &Arc<Decoded>| {
                    (agent.uid().unwrap_or_default(), agent.meta().generation)
                };
                generations = known.iter().map(generation).collect();
                on.one_is_gone();
                on.each(|_| true);
                return;
            };
            let reference = ObjectRef::from_obj(agent);
            let is_gone = on.agents().get(&reference).is_none();
            on.one(reference);
            let uid = agent.uid().unwrap_or_default();
            let generation = agent.meta().generation;
            let is_new = if is_gone {
                generations.remove(&uid);
                on.one_is_gone();
                true
            } else {
                generations.insert(uid, generation) != Some(generation)
            };
            if is_new {
                on.each(|other| may_lose_to(other, agent, &platform));
            }
        };
        let api = Api::all(self.client.clone());
        let all = watcher::Config::default();
        self.watches
            .push(drive("otelagents", api, all, writer, notify));
    }

    fn namespaces(&mut self) -> Arc<Cached<Namespaces>> {
        let on = self.trigger.clone();
        let selects_namespaces = |agent: &OtelAgent| {
            let workloads = agent.spec.workloads.as_ref();
            workloads.is_some_and(|workloads| workloads.namespace_selector.is_some())
        };
        let notify = move |_: Option<&()>| on.each(selects_namespaces);
        self.kept("namespaces", watcher::Config::default(), notify)
    }

    fn nodes(&mut self) -> Arc<Cached<Nodes>> {
        let on = self.trigger.clone();
        let notify = move |_: Option<&()>| on.each(|agent| agent.spec.mode.on_nodes());
        self.kept("nodes", watcher::Config::default(), notify)
    }

    /// What could keep a sidecar out of its namespace.
    fn limits<K>(
        &mut self,
        what: &'static str,
        namespaces: &Arc<Cached<Namespaces>>,
    ) -> Arc<Cached<Limits<K>>>
    where
        K: Limiting,
        Limits<K>: Cache<Object = K, Change = String>,
    {
        let (on, known) = (self.trigger.clone(), namespaces.clone());
        let notify = move |change: Option<&String>| {
            on.each(|agent| {
                let concerns = |namespace: &String| {
                    let labels = known.read().labels(namespace);
                    selection(agent).is_some_and(|s| s.in_namespace(namespace, &labels))
                };
                agent.spec.mode == Mode::Sidecar && change.is_none_or(concerns)
            });
        };
        self.kept(what, watcher::Config::default(), notify)
    }

    fn pods(&mut self, namespaces: &Arc<Cached<Namespaces>>) -> Arc<Cached<Pods>> {
        let (on, known) = (self.trigger.clone(), namespaces.clone());
        let notify = move |change: Option<&PodChange>| match change {
            Some(change) => pod_changed(&on, &known, change),
            None => on.each(|_| true),
        };
        let live =
            watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        self.kept("pods", live, notify)
    }

    /// Objects of others, of the whole cluster.
    fn kept<C: Cache>(
        &mut self,
        what: &'static str,
        config: watcher::Config,
        notify: impl FnMut(Option<&C::Change>) + Send + 'static,
    ) -> Arc<Cached<C>> {
        let kept = Arc::<Cached<C>>::default();
        let api = Api::all(self.client.clone());
        self.watches
            .push(follow(what, api, config, kept.clone(), notify));
        kept
    }

    /// Objects that the operator made, which name their `OtelAgent` in a label.
    fn owned<K>(&mut self, what: &'static str, api: Api<K>, kind: K::DynamicType) -> Store<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Send + Sync + Unpin,
    {
        let writer = Writer::new(kind);
        let store = writer.as_reader();
        let on = self.trigger.clone();
        let notify = move |object: Option<&K>| match object {
            Some(object) => on.each(|agent| is_made_for(object.meta(), agent)),
            None => on.each(|_| true),
        };
        let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
        let ours = watcher::Config::default().labels(&ours);
        self.watches.push(drive(what, api, ours, writer, notify));
        store
    }
}

/// One watch with back-off, without its managers stored and told; of a whole list nothing in particular,
/// since nobody names what it no longer has. Ends only if the stream does.
fn drive<K>(
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    mut notify: impl FnMut(Option<&K>) + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = &'static str> + Send>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync + Unpin,
{
    let stream = watcher(api, config)
        .modify(|object| object.meta_mut().managed_fields = None)
        .default_backoff()
        .reflect(writer)
        .inspect_err(
            move |error| tracing::warn!(what, error = %error, "watch failed, trying again"),
        );
    Box::pin(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Apply(object) | Event::Delete(object)) => notify(Some(&object)),
                Ok(Event::InitDone) => notify(None),
                Ok(Event::Init | Event::InitApply(_)) | Err(_) => {}
            }
        }
        what
    })
}

/// One watch with back-off into a cache of our own; tells what changed, and of a whole list nothing
/// in particular. Ends only if the stream does.
fn follow<C: Cache>(
    what: &'static str,
    api: Api<C::Object>,
    config: watcher::Config,
    kept: Arc<Cached<C>>,
    mut notify: impl FnMut(Option<&C::Change>) + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = &'static str> + Send>> {
    let stream = watcher(api, config).default_backoff();
    Box::pin(async move {
        let mut stream = std::pin::pin!(stream);
        let mut listed = C::default();
        while let Some(event) = stream.next().await {
            let change = match event {
                Err(error) => {
                    tracing::warn!(what, error = %error, "watch failed, trying again");
                    continue;
                }
                Ok(Event::Init) => {
                    listed = C::default();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    listed.insert(object);
                    continue;
                }
                Ok(Event::InitDone) => {
                    kept.fill(std::mem::take(&mut listed));
                    notify(None);
                    continue;
                }
                Ok(Event::Apply(object)) => kept.write().insert(object),
                Ok(Event::Delete(object)) => kept.write().remove(&object),
            };
            if let Some(change) = change {
                notify(Some(&change));
            }
        }
        what
    })
}
