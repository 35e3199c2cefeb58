//! One watch per kind, with back-off; a change wakes the `OtelAgent`s that it concerns.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedSender;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::runtime::watcher::{DefaultBackoff, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::events::Warnings;
use super::namespace_limits::{Limiting, Limits};
use super::pods::{PodChange, Pods};
use super::refusals::{Refusals, Watched};
use super::store::{Cache, Cached, Namespaces, Nodes};
use super::stores::{PlatformStores, Stores, admission_resource};
use super::trigger::{Trigger, is_made_for, may_lose_to, pod_changed};
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::selection;
use otelagent_core::names;
use otelagent_core::read::Decoded;
use otelagent_core::reconcile::overlap::may_meet;

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
        refusals: Refusals::default(),
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
        platform: owned_namespaces
            .iter()
            .map(|namespace| (namespace.clone(), builder.platform(namespace)))
            .collect(),
        warnings: owned_namespaces
            .iter()
            .map(|within| (within.clone(), builder.warnings(within)))
            .collect(),
        admission: admission
            .iter()
            .map(|kind| {
                let resource = admission_resource(kind);
                let api = Api::all_with(client.clone(), &resource);
                (*kind, builder.owned(kind, api, resource, None))
            })
            .collect(),
        refusals: builder.refusals.clone(),
    };
    (stores, builder.watches, builder.trigger)
}

/// The watches as they are added.
struct Builder {
    client: Client,
    trigger: Trigger,
    refusals: Refusals,
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
            let (before, is_known) = if is_gone {
                on.one_is_gone();
                (generations.remove(&uid), false)
            } else {
                let before = generations.insert(uid, generation);
                (before, before.is_some())
            };
            if !is_known {
                // Its pods become orphans, or stop being some, for everyone who selects them.
                on.each(|other| may_meet(&other.metadata, agent.meta(), &platform));
            } else if before != Some(generation) {
                on.each(|other| may_lose_to(other, agent, &platform));
            }
        };
        let api = Api::all(self.client.clone());
        let all = watcher::Config::default();
        let watched = Watched::of::<Decoded>(&(), None);
        self.stored("otelagents", watched, api, all, writer, notify);
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

    /// Warnings about agents in a platform namespace.
    fn warnings(&mut self, namespace: &str) -> Arc<Cached<Warnings>> {
        let on = self.trigger.clone();
        let notify = move |about: Option<&ObjectMeta>| {
            on.each(|agent| about.is_none_or(|about| is_made_for(about, agent)));
        };
        let warnings = watcher::Config::default().fields("type=Warning");
        let api = Api::namespaced(self.client.clone(), namespace);
        self.kept_of("events", Some(namespace), api, warnings, notify)
    }

    /// Watches other people's objects in the whole cluster and caches their relevant fields. Calls `notify`
    /// with each change, and with `None` after a whole list.
    fn kept<C: Cache>(
        &mut self,
        what: &'static str,
        config: watcher::Config,
        notify: impl FnMut(Option<&C::Change>) + Send + 'static,
    ) -> Arc<Cached<C>> {
        let api = Api::all(self.client.clone());
        self.kept_of(what, None, api, config, notify)
    }

    /// The same for the objects of one API.
    fn kept_of<C: Cache>(
        &mut self,
        what: &'static str,
        namespace: Option<&str>,
        api: Api<C::Object>,
        config: watcher::Config,
        mut notify: impl FnMut(Option<&C::Change>) + Send + 'static,
    ) -> Arc<Cached<C>> {
        let kept = Arc::<Cached<C>>::default();
        let (filled, mut listed) = (kept.clone(), C::default());
        let take = move |event: Event<C::Object>| {
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
        };
        let watched = Watched::of::<C::Object>(&(), namespace);
        self.watch(what, watched, api, config, take);
        kept
    }

    /// Agent workloads and Services of one platform namespace.
    fn platform(&mut self, namespace: &str) -> PlatformStores {
        let client = self.client.clone();
        let api = Api::namespaced(client.clone(), namespace);
        let daemon_sets = self.owned("daemonsets", api, (), Some(namespace));
        let api = Api::namespaced(client, namespace);
        let services = self.owned("services", api, (), Some(namespace));
        PlatformStores {
            daemon_sets,
            services,
        }
    }

    /// Watches objects that the operator created, which name their `OtelAgent` in a label.
    fn owned<K>(
        &mut self,
        what: &'static str,
        api: Api<K>,
        kind: K::DynamicType,
        namespace: Option<&str>,
    ) -> Store<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Send + Sync + Unpin,
    {
        let watched = Watched::of::<K>(&kind, namespace);
        let writer = Writer::new(kind);
        let store = writer.as_reader();
        let on = self.trigger.clone();
        let notify = move |object: Option<&K>| match object {
            Some(object) => on.each(|agent| is_made_for(object.meta(), agent)),
            None => on.each(|_| true),
        };
        let ours = watcher::Config::default().labels(&names::managed_selector());
        self.stored(what, watched, api, ours, writer, notify);
        store
    }

    /// Watches objects into a store, without their managed fields. Calls `notify` with each changed object,
    /// and with `None` after a whole list, which does not name deleted objects.
    fn stored<K>(
        &mut self,
        what: &'static str,
        watched: Watched,
        api: Api<K>,
        config: watcher::Config,
        mut writer: Writer<K>,
        mut notify: impl FnMut(Option<&K>) + Send + 'static,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        let take = move |event: Event<K>| {
            let event = event.modify(|object| object.meta_mut().managed_fields = None);
            writer.apply_watcher_event(&event);
            match event {
                Event::Apply(object) | Event::Delete(object) => notify(Some(&object)),
                Event::InitDone => notify(None),
                Event::Init | Event::InitApply(_) => {}
            }
        };
        self.watch(what, watched, api, config, take);
    }

    /// Adds one watch with back-off, which ends only with its stream. A refusal wakes those that it concerns, who
    /// then ask whether it still holds.
    ///
    /// The library's own back-off begins anew with each list that is begun, also if all of them fail: a server that is
    /// too busy for a list would be asked for it every second.
    fn watch<K>(
        &mut self,
        what: &'static str,
        watched: Watched,
        api: Api<K>,
        config: watcher::Config,
        mut take: impl FnMut(Event<K>) + Send + 'static,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (refusals, on) = (self.refusals.clone(), self.trigger.clone());
        let wake = move |watched: &Watched| {
            let namespace = &watched.namespace;
            on.each(|agent| namespace.is_none() || agent.metadata.namespace == *namespace);
        };
        let mut events = watcher(api, config).boxed();
        let mut pauses = DefaultBackoff::default();
        self.watches.push(Box::pin(async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        let is_permitted = !matches!(event, Event::Init);
                        if !matches!(event, Event::Init | Event::InitApply(_)) {
                            pauses.reset();
                        }
                        take(event);
                        if is_permitted && refusals.permitted(&watched) {
                            wake(&watched);
                        }
                    }
                    Err(error) => {
                        if refusals.failed(&watched, &error) {
                            wake(&watched);
                        }
                        tracing::warn!(what, error = %error, "watch failed, trying again");
                        if let Some(pause) = pauses.next() {
                            sleep(pause).await;
                        }
                    }
                }
            }
            what
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    fn failure(code: u16, reason: &str) -> serde_json::Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
            "message": "no", "code": code})
    }

    /// A client of an API server that refuses all reads of one namespace, and has nothing elsewhere.
    fn client() -> Client {
        let service = service_fn(|request: Request<Body>| async move {
            let (path, query) = (request.uri().path(), request.uri().query());
            let is_refused = path.contains("/namespaces/forbidden/");
            let (code, body) = if is_refused {
                (403, failure(403, "Forbidden"))
            } else if query.is_some_and(|query| query.contains("watch=true")) {
                std::future::pending().await
            } else {
                (
                    200,
                    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}),
                )
            };
            let response = Response::builder().status(code);
            response.body(Body::from(body.to_string().into_bytes()))
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn refused_platform_namespace_delays_no_other_and_is_known() {
        let namespaces = ["forbidden", "fine"].map(str::to_owned).into();
        let (sender, _queue) = futures::channel::mpsc::unbounded();
        let (stores, watches, _) = build(&client(), &namespaces, &[], sender);
        let mut tasks = tokio::task::JoinSet::new();
        for watch in watches {
            tasks.spawn(watch);
        }
        stores.wait_until_ready(None).await;
        let known = |name: &str| {
            let refused = stores.refusals.concerning(name);
            (stores.platform[name].is_filled(), refused.is_empty())
        };
        assert_eq!(known("forbidden"), (false, false));
        assert_eq!(known("fine"), (true, true));
    }

    #[tokio::test(start_paused = true)]
    async fn list_that_fails_is_tried_less_and_less_often() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counts = tries.clone();
        let service = service_fn(move |request: Request<Body>| {
            let is_of_pods = request.uri().path() == "/api/v1/pods";
            counts.fetch_add(usize::from(is_of_pods), Ordering::Relaxed);
            let response = Response::builder().status(504);
            let body = failure(504, "Timeout").to_string();
            std::future::ready(response.body(Body::from(body.into_bytes())))
        });
        let client = Client::new(service, "default");
        let (sender, _queue) = futures::channel::mpsc::unbounded();
        let (_stores, watches, _) = build(&client, &BTreeSet::new(), &[], sender);
        let mut tasks = tokio::task::JoinSet::new();
        for watch in watches {
            tasks.spawn(watch);
        }
        sleep(Duration::from_mins(10)).await;
        let tries = tries.load(Ordering::Relaxed);
        assert!((10..60).contains(&tries), "{tries}");
    }
}
