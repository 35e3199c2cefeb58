//! One watch per kind, with back-off; a change wakes the `OtelAgent`s that it concerns.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedSender;
use futures::future::BoxFuture;
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

/// The watches; each needs its own task.
pub(crate) type Watches = Vec<BoxFuture<'static, &'static str>>;

/// Builds stores and the watches that fill them, without starting the watches.
///
/// `owned_namespaces` are those in which agent workloads may exist.
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
    let stores = Stores {
        agents,
        pods: builder.pods(&namespaces),
        nodes: builder.nodes(),
        limit_ranges: builder.limits("limitranges", &namespaces),
        resource_quotas: builder.limits("resourcequotas", &namespaces),
        namespaces,
        daemon_sets: owned_namespaces
            .iter()
            .map(|within| builder.owned("daemonsets", Api::namespaced(client.clone(), within), ()))
            .collect(),
        services: owned_namespaces
            .iter()
            .map(|within| builder.owned("services", Api::namespaced(client.clone(), within), ()))
            .collect(),
        admission: admission
            .iter()
            .map(|kind| {
                let resource = admission_resource(kind);
                let api = Api::all_with(client.clone(), &resource);
                (*kind, builder.owned(kind, api, resource))
            })
            .collect(),
    };
    (stores, builder.watches, builder.trigger)
}

/// The watches as they are added.
struct Builder {
    client: Client,
    trigger: Trigger,
    watches: Watches,
}

impl Builder {
    /// A changed spec may change the exclusions of younger `OtelAgent`s that overlap; a changed status does
    /// not.
    fn agents(&mut self, writer: Writer<Decoded>, platform: BTreeSet<String>) {
        let on = self.trigger.clone();
        let mut generations: HashMap<String, Option<i64>> = HashMap::new();
        let notify = move |agent: Option<&Decoded>| {
            let Some(agent) = agent else {
                let known = on.agents.state();
                let generation = |agent: &Arc<Decoded>| {
                    (agent.uid().unwrap_or_default(), agent.meta().generation)
                };
                generations = known.iter().map(generation).collect();
                on.one_is_gone();
                on.each(|_| true);
                return;
            };
            let reference = ObjectRef::from_obj(agent);
            let is_gone = on.agents.get(&reference).is_none();
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
        self.stored("otelagents", api, all, writer, notify);
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

    /// Objects that may forbid a sidecar in their namespace.
    fn limits<K: Limiting>(
        &mut self,
        what: &'static str,
        namespaces: &Arc<Cached<Namespaces>>,
    ) -> Arc<Cached<Limits<K>>> {
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

    /// Watches other people's objects in the whole cluster and caches their relevant fields. Calls `notify`
    /// with each change, and with `None` after a whole list.
    fn kept<C: Cache>(
        &mut self,
        what: &'static str,
        config: watcher::Config,
        mut notify: impl FnMut(Option<&C::Change>) + Send + 'static,
    ) -> Arc<Cached<C>> {
        let kept = Arc::<Cached<C>>::default();
        let (filled, mut listed) = (kept.clone(), C::default());
        let api = Api::all(self.client.clone());
        self.watch(what, api, config, move |event| {
            let change = match event {
                Event::Init => {
                    listed = C::default();
                    None
                }
                Event::InitApply(object) => {
                    listed.insert(object);
                    None
                }
                Event::InitDone => {
                    filled.fill(std::mem::take(&mut listed));
                    return notify(None);
                }
                Event::Apply(object) => filled.write().insert(object),
                Event::Delete(object) => filled.write().remove(&object),
            };
            if let Some(change) = change {
                notify(Some(&change));
            }
        });
        kept
    }

    /// Watches objects that the operator created, which name their `OtelAgent` in a label.
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
        let ours = watcher::Config::default().labels(&names::managed_selector());
        self.stored(what, api, ours, writer, notify);
        store
    }

    /// Watches objects into a store, without their managed fields. Calls `notify` with each changed object,
    /// and with `None` after a whole list, which does not name deleted objects.
    fn stored<K>(
        &mut self,
        what: &'static str,
        api: Api<K>,
        config: watcher::Config,
        mut writer: Writer<K>,
        mut notify: impl FnMut(Option<&K>) + Send + 'static,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        self.watch(what, api, config, move |event| {
            let event = event.modify(|object| object.meta_mut().managed_fields = None);
            writer.apply_watcher_event(&event);
            match event {
                Event::Apply(object) | Event::Delete(object) => notify(Some(&object)),
                Event::InitDone => notify(None),
                Event::Init | Event::InitApply(_) => {}
            }
        });
    }

    /// Adds one watch with back-off, which ends only with its stream.
    fn watch<K>(
        &mut self,
        what: &'static str,
        api: Api<K>,
        config: watcher::Config,
        mut take: impl FnMut(Event<K>) + Send + 'static,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let mut events = watcher(api, config).default_backoff().boxed();
        self.watches.push(Box::pin(async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => take(event),
                    Err(error) => {
                        tracing::warn!(what, error = %error, "watch failed, trying again");
                    }
                }
            }
            what
        }));
    }
}
