//! The watches and what they have seen: one stream and one store per kind, and who must be looked at
//! again when something changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::channel::mpsc::UnboundedSender;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::bounds::{Bounding, Bounds};
pub(crate) use super::guarded::Guarded;
use super::kept::{Cache, Kept, Namespaces, Nodes, PodNews, Pods};
use super::rivals::may_meet;
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::selection;
use otelagent_core::names;

/// What injects.
pub(crate) const POLICY: &str = "MutatingAdmissionPolicy";
/// What lets a [`POLICY`] act.
pub(crate) const BINDING: &str = "MutatingAdmissionPolicyBinding";
/// What tells that a pod was not injected.
pub(crate) const WARNING: &str = "ValidatingAdmissionPolicy";
/// What lets a [`WARNING`] act.
pub(crate) const WARNING_BINDING: &str = "ValidatingAdmissionPolicyBinding";

/// What makes the API server call the webhook.
pub(crate) const ENTRY: &str = "MutatingWebhookConfiguration";

/// Cluster-scoped kinds the operator makes, in the order of removal: bindings before policies, so that
/// no binding ever points to nothing.
pub(crate) const ADMISSION_KINDS: [&str; 5] = [WARNING_BINDING, ENTRY, BINDING, WARNING, POLICY];

/// The API of one admission kind; the client library has no types for servers this new.
pub(crate) fn admission_resource(kind: &str) -> ApiResource {
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies").to_lowercase(),
        None => format!("{kind}s").to_lowercase(),
    };
    ApiResource {
        group: "admissionregistration.k8s.io".into(),
        version: "v1".into(),
        api_version: "admissionregistration.k8s.io/v1".into(),
        kind: kind.into(),
        plural,
    }
}

/// What the watches have seen.
pub(crate) struct Stores {
    pub(crate) agents: Store<Guarded>,
    pub(crate) pods: Arc<Kept<Pods>>,
    pub(crate) nodes: Arc<Kept<Nodes>>,
    pub(crate) namespaces: Arc<Kept<Namespaces>>,
    pub(crate) limit_ranges: Arc<Kept<Bounds<LimitRange>>>,
    pub(crate) resource_quotas: Arc<Kept<Bounds<ResourceQuota>>>,
    pub(crate) daemon_sets: Vec<Store<DaemonSet>>,
    pub(crate) services: Vec<Store<Service>>,
    /// By kind; those that the server serves and the operator may read.
    pub(crate) admission: BTreeMap<&'static str, Store<DynamicObject>>,
}

/// The watches, to be driven by a task each.
pub(crate) type Watches = Vec<std::pin::Pin<Box<dyn Future<Output = &'static str> + Send>>>;

/// Sends the `OtelAgent`s that must be looked at.
#[derive(Clone)]
pub(crate) struct Trigger {
    agents: Store<Guarded>,
    sender: UnboundedSender<ObjectRef<Guarded>>,
    gone: Arc<Notify>,
    /// Whether anybody listens: a standby would only pile up what the next leader looks at anyway.
    leads: Arc<AtomicBool>,
}

impl Trigger {
    /// From now on somebody listens; asks for every object first.
    pub(crate) fn begin(&self) {
        self.leads.store(true, Ordering::SeqCst);
        self.each(|_| true);
    }

    /// Waits until an `OtelAgent` was seen to be deleted.
    pub(crate) async fn an_object_is_gone(&self) {
        self.gone.notified().await;
    }

    /// Asks for one object. After the receiver is gone nobody needs to look.
    pub(crate) fn one(&self, agent: ObjectRef<Guarded>) {
        if self.leads.load(Ordering::SeqCst) {
            let _ = self.sender.unbounded_send(agent);
        }
    }

    /// Asks for every object that `wants`.
    pub(crate) fn each(&self, wants: impl Fn(&OtelAgent) -> bool) {
        for agent in self.agents.state() {
            if agent.0.as_ref().is_ok_and(&wants) {
                self.one(ObjectRef::from_obj(agent.as_ref()));
            }
        }
    }

    /// Asks for the object that a label or annotation names.
    fn labelled(&self, label: &str) {
        self.each(|agent| label_of(agent) == label);
    }
}

/// The label value that stands for an `OtelAgent`.
pub(crate) fn label_of(agent: &OtelAgent) -> String {
    names::agent_label(&agent.namespace().unwrap_or_default(), &agent.name_any())
}

/// Starts nothing; builds stores and the watches that fill them.
///
/// `owned_namespaces` are those in which vehicles may stand; nothing else is watched there.
pub(crate) fn build(
    client: &Client,
    owned_namespaces: &BTreeSet<String>,
    admission: &[&'static str],
    sender: UnboundedSender<ObjectRef<Guarded>>,
) -> (Stores, Watches, Trigger) {
    let (agents, writer) = reflector::store::<Guarded>();
    let trigger = Trigger {
        agents: agents.clone(),
        sender,
        gone: Arc::default(),
        leads: Arc::default(),
    };
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
        limit_ranges: builder.bounds("limitranges", &namespaces),
        resource_quotas: builder.bounds("resourcequotas", &namespaces),
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
    fn agents(&mut self, writer: Writer<Guarded>, platform: BTreeSet<String>) {
        let on = self.trigger.clone();
        let mut generations: HashMap<String, Option<i64>> = HashMap::new();
        let tell = move |agent: Option<&Guarded>| {
            let Some(agent) = agent else {
                let known = on.agents.state();
                let generation = |agent: &Arc<Guarded>| {
                    (agent.uid().unwrap_or_default(), agent.meta().generation)
                };
                generations = known.iter().map(generation).collect();
                on.gone.notify_one();
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
                on.gone.notify_one();
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
            .push(drive("otelagents", api, all, writer, tell));
    }

    fn namespaces(&mut self) -> Arc<Kept<Namespaces>> {
        let on = self.trigger.clone();
        let selects_namespaces = |agent: &OtelAgent| {
            let workloads = agent.spec.workloads.as_ref();
            workloads.is_some_and(|workloads| workloads.namespace_selector.is_some())
        };
        let tell = move |_: Option<&()>| on.each(selects_namespaces);
        self.kept("namespaces", watcher::Config::default(), tell)
    }

    fn nodes(&mut self) -> Arc<Kept<Nodes>> {
        let on = self.trigger.clone();
        let tell = move |_: Option<&()>| on.each(|agent| agent.spec.mode.on_nodes());
        self.kept("nodes", watcher::Config::default(), tell)
    }

    /// What could keep a sidecar out of its namespace.
    fn bounds<K>(
        &mut self,
        what: &'static str,
        namespaces: &Arc<Kept<Namespaces>>,
    ) -> Arc<Kept<Bounds<K>>>
    where
        K: Bounding,
        Bounds<K>: Cache<Object = K, News = String>,
    {
        let (on, known) = (self.trigger.clone(), namespaces.clone());
        let tell = move |news: Option<&String>| {
            on.each(|agent| {
                let concerns = |namespace: &String| {
                    let labels = known.read().labels(namespace);
                    selection(agent).is_some_and(|s| s.in_namespace(namespace, &labels))
                };
                agent.spec.mode == Mode::Sidecar && news.is_none_or(concerns)
            });
        };
        self.kept(what, watcher::Config::default(), tell)
    }

    fn pods(&mut self, namespaces: &Arc<Kept<Namespaces>>) -> Arc<Kept<Pods>> {
        let (on, known) = (self.trigger.clone(), namespaces.clone());
        let tell = move |news: Option<&PodNews>| match news {
            Some(news) => pod_changed(&on, &known, news),
            None => on.each(|_| true),
        };
        let live =
            watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        self.kept("pods", live, tell)
    }

    /// Objects of others, of the whole cluster.
    fn kept<C: Cache>(
        &mut self,
        what: &'static str,
        config: watcher::Config,
        tell: impl FnMut(Option<&C::News>) + Send + 'static,
    ) -> Arc<Kept<C>> {
        let kept = Arc::<Kept<C>>::default();
        let api = Api::all(self.client.clone());
        self.watches
            .push(follow(what, api, config, kept.clone(), tell));
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
        let tell = move |object: Option<&K>| match object {
            Some(object) => on.each(|agent| is_made_for(object.meta(), agent)),
            None => on.each(|_| true),
        };
        let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
        let ours = watcher::Config::default().labels(&ours);
        self.watches.push(drive(what, api, ours, writer, tell));
        store
    }
}

/// Whether what an `OtelAgent` injects may depend on another. The older wins, so it depends on none that is
/// younger.
fn may_lose_to(agent: &OtelAgent, other: &Guarded, platform: &BTreeSet<String>) -> bool {
    agent.metadata.creation_timestamp >= other.meta().creation_timestamp
        && may_meet(&agent.metadata, other.meta(), platform)
}

/// One watch with back-off, without its managers stored and told; of a whole list nothing in particular,
/// since nobody names what it no longer has. Ends only if the stream does.
fn drive<K>(
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    mut tell: impl FnMut(Option<&K>) + Send + 'static,
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
                Ok(Event::Apply(object) | Event::Delete(object)) => tell(Some(&object)),
                Ok(Event::InitDone) => tell(None),
                Ok(Event::Init | Event::InitApply(_)) | Err(_) => {}
            }
        }
        what
    })
}

/// Whether an object could be of an `OtelAgent`: by its label or, since that may have been taken away, by
/// its name.
fn is_made_for(object: &ObjectMeta, agent: &OtelAgent) -> bool {
    let labels = object.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(names::LABEL_OWNER));
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let object_name = object.name.as_deref().unwrap_or_default();
    let is_named = match &object.namespace {
        Some(of) => {
            let rest = object_name.strip_prefix(&name);
            *of == namespace && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        }
        None => names::owner_of_cluster_object(object_name) == Some((namespace, name)),
    };
    is_named || label.is_some_and(|label| *label == label_of(agent))
}

/// One watch with back-off into a cache of our own; tells what changed, and of a whole list nothing
/// in particular. Ends only if the stream does.
fn follow<C: Cache>(
    what: &'static str,
    api: Api<C::Object>,
    config: watcher::Config,
    kept: Arc<Kept<C>>,
    mut tell: impl FnMut(Option<&C::News>) + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = &'static str> + Send>> {
    let stream = watcher(api, config).default_backoff();
    Box::pin(async move {
        let mut stream = std::pin::pin!(stream);
        let mut listed = C::default();
        while let Some(event) = stream.next().await {
            let news = match event {
                Err(error) => {
                    tracing::warn!(what, error = %error, "watch failed, trying again");
                    continue;
                }
                Ok(Event::Init) => {
                    listed = C::default();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    listed.put(object);
                    continue;
                }
                Ok(Event::InitDone) => {
                    kept.fill(std::mem::take(&mut listed));
                    tell(None);
                    continue;
                }
                Ok(Event::Apply(object)) => kept.write().put(object),
                Ok(Event::Delete(object)) => kept.write().remove(&object),
            };
            if let Some(news) = news {
                tell(Some(&news));
            }
        }
        what
    })
}

fn pod_changed(trigger: &Trigger, namespaces: &Kept<Namespaces>, news: &PodNews) {
    for labels in &news.labels {
        let mark = [names::LABEL_AGENT, names::LABEL_OWNER]
            .into_iter()
            .find_map(|key| labels.get(key));
        if let Some(label) = mark {
            trigger.labelled(label);
            continue;
        }
        let namespace = news.namespace.as_str();
        let labels_of_namespace = namespaces.read().labels(namespace);
        trigger.each(|agent| {
            selection(agent).is_some_and(|s| s.matches(namespace, &labels_of_namespace, labels))
        });
    }
}

/// Whether these labels are of a mode's workload, its pods or its Service, made for one `OtelAgent`.
pub(crate) fn serves(labels: &BTreeMap<String, String>, agent: &str, mode: Mode) -> bool {
    let is = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
    is(names::LABEL_OWNER, agent) && is(names::LABEL_WORKLOAD, mode.as_str())
}

impl Stores {
    /// Waits until every store has been filled once, but for those of kinds that cannot be read yet.
    pub(crate) async fn wait_until_ready(&self, unreadable: &[&str]) {
        // A dropped writer means the watch task ended, which ends the process by itself.
        let _ = self.agents.wait_until_ready().await;
        self.pods.wait_until_filled().await;
        self.nodes.wait_until_filled().await;
        self.namespaces.wait_until_filled().await;
        self.limit_ranges.wait_until_filled().await;
        self.resource_quotas.wait_until_filled().await;
        for store in &self.daemon_sets {
            let _ = store.wait_until_ready().await;
        }
        for store in &self.services {
            let _ = store.wait_until_ready().await;
        }
        let readable = |kind: &&str| !unreadable.contains(kind);
        for (_, store) in self.admission.iter().filter(|(kind, _)| readable(kind)) {
            let _ = store.wait_until_ready().await;
        }
    }

    /// The vehicle of a mode of an `OtelAgent`: of that name, and by its labels or its owner reference
    /// made for one of that name. Whose it is, only the server knows where the reference is gone.
    pub(crate) fn daemon_set(
        &self,
        namespace: &str,
        agent: &str,
        mode: Mode,
    ) -> Option<Arc<DaemonSet>> {
        let name = names::agent_workload(agent, mode.kebab());
        let reference = ObjectRef::new(&name).within(namespace);
        let label = names::agent_label(namespace, agent);
        let found = self
            .daemon_sets
            .iter()
            .find_map(|store| store.get(&reference));
        found.filter(|found| {
            let refers = |owner: &OwnerReference| owner.kind == "OtelAgent" && owner.name == agent;
            serves(found.labels(), &label, mode) || found.owner_references().iter().any(refers)
        })
    }
}
