//! The watches and what they have seen: one stream and one store per kind, and who must be looked at
//! again when something changes.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use futures::channel::mpsc::UnboundedSender;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DynamicObject};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::slim::{SlimNamespace, SlimNode, SlimPod, trim_namespace, trim_node, trim_pod};
use crate::api::{Mode, OtelAgent};
use crate::desired::selection;
use crate::names;

/// `OtelAgent`s as stored, even where one no longer fits the schema.
pub(crate) type Guarded = DeserializeGuard<OtelAgent>;

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
    pub(crate) pods: Store<SlimPod>,
    pub(crate) nodes: Store<SlimNode>,
    pub(crate) namespaces: Store<SlimNamespace>,
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
}

impl Trigger {
    /// Waits until an `OtelAgent` was seen to be deleted.
    pub(crate) async fn an_object_is_gone(&self) {
        self.gone.notified().await;
    }

    /// Asks for one object. After the receiver is gone nobody needs to look.
    pub(crate) fn one(&self, agent: ObjectRef<Guarded>) {
        let _ = self.sender.unbounded_send(agent);
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
    owned_namespaces: impl IntoIterator<Item = String>,
    admission: &[&'static str],
    sender: UnboundedSender<ObjectRef<Guarded>>,
) -> (Stores, Watches, Trigger) {
    let (agents, writer) = reflector::store::<Guarded>();
    let trigger = Trigger {
        agents: agents.clone(),
        sender,
        gone: Arc::default(),
    };
    let mut builder = Builder {
        client: client.clone(),
        trigger,
        watches: Vec::new(),
    };
    builder.agents(writer);
    let namespaces = builder.namespaces();
    let mut stores = Stores {
        agents,
        pods: builder.pods(&namespaces),
        nodes: builder.nodes(),
        namespaces,
        daemon_sets: Vec::new(),
        services: Vec::new(),
        admission: BTreeMap::new(),
    };
    for namespace in owned_namespaces {
        let api = Api::namespaced(client.clone(), &namespace);
        stores
            .daemon_sets
            .push(builder.owned("daemonsets", api, ()));
        let api = Api::namespaced(client.clone(), &namespace);
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
    /// A new, changed or deleted spec may change whom its rivals exclude; a written status does not.
    fn agents(&mut self, writer: Writer<Guarded>) {
        let on = self.trigger.clone();
        let mut generations: HashMap<String, Option<i64>> = HashMap::new();
        let tell = move |agent: &Guarded| {
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
                on.each(|other| other.spec.workloads.is_some());
            }
        };
        let api = Api::all(self.client.clone());
        let all = watcher::Config::default();
        self.watches
            .push(drive("otelagents", api, all, writer, |_| {}, tell));
    }

    fn namespaces(&mut self) -> Store<SlimNamespace> {
        let (store, writer) = reflector::store();
        let on = self.trigger.clone();
        let selects_namespaces = |agent: &OtelAgent| {
            let workloads = agent.spec.workloads.as_ref();
            workloads.is_some_and(|workloads| workloads.namespace_selector.is_some())
        };
        let tell = move |_: &SlimNamespace| on.each(selects_namespaces);
        let api = Api::all(self.client.clone());
        let all = watcher::Config::default();
        self.watches
            .push(drive("namespaces", api, all, writer, trim_namespace, tell));
        store
    }

    fn nodes(&mut self) -> Store<SlimNode> {
        let (store, writer) = reflector::store();
        let on = self.trigger.clone();
        let tell = move |_: &SlimNode| on.each(|agent| agent.spec.mode.on_nodes());
        let api = Api::all(self.client.clone());
        let all = watcher::Config::default();
        self.watches
            .push(drive("nodes", api, all, writer, trim_node, tell));
        store
    }

    fn pods(&mut self, namespaces: &Store<SlimNamespace>) -> Store<SlimPod> {
        let (store, writer) = reflector::store();
        let (on, known) = (self.trigger.clone(), namespaces.clone());
        let tell = move |pod: &SlimPod| pod_changed(&on, &known, pod);
        let api = Api::all(self.client.clone());
        let live =
            watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        self.watches
            .push(drive("pods", api, live, writer, trim_pod, tell));
        store
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
        let tell = move |object: &K| {
            if let Some(label) = object.labels().get(names::LABEL_OWNER) {
                on.labelled(label);
            }
        };
        let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
        let ours = watcher::Config::default().labels(&ours);
        let forget_managers = |object: &mut K| object.meta_mut().managed_fields = None;
        self.watches
            .push(drive(what, api, ours, writer, forget_managers, tell));
        store
    }
}

/// One watch with back-off, trimmed, stored and told. Ends only if the stream does.
fn drive<K>(
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    trim: fn(&mut K),
    mut tell: impl FnMut(&K) + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = &'static str> + Send>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync + Unpin,
{
    let stream = watcher(api, config)
        .modify(trim)
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .inspect_err(
            move |error| tracing::warn!(what, error = %error, "watch failed, trying again"),
        );
    Box::pin(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(object) = stream.next().await {
            if let Ok(object) = object {
                tell(&object);
            }
        }
        what
    })
}

fn pod_changed(trigger: &Trigger, namespaces: &Store<SlimNamespace>, pod: &SlimPod) {
    let labels = pod.labels();
    for key in [names::LABEL_AGENT, names::LABEL_OWNER] {
        if let Some(label) = labels.get(key) {
            trigger.labelled(label);
            return;
        }
    }
    let namespace = pod.namespace().unwrap_or_default();
    let labels_of_namespace = namespace_labels(namespaces, &namespace);
    trigger.each(|agent| {
        selection(agent).is_some_and(|s| s.matches(&namespace, &labels_of_namespace, labels))
    });
}

/// Whether these labels are of a mode's vehicle, its pods or its Service, made for one `OtelAgent`.
pub(crate) fn serves(labels: &BTreeMap<String, String>, agent: &str, mode: Mode) -> bool {
    let is = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
    is(names::LABEL_OWNER, agent) && is(names::LABEL_VEHICLE, mode.as_str())
}

/// Labels of a namespace; none where it is not known (yet).
pub(crate) fn namespace_labels(
    namespaces: &Store<SlimNamespace>,
    name: &str,
) -> BTreeMap<String, String> {
    namespaces
        .get(&ObjectRef::new(name))
        .map(|namespace| namespace.labels().clone())
        .unwrap_or_default()
}

impl Stores {
    /// Waits until every store has been filled once, but for those of kinds that cannot be read yet.
    pub(crate) async fn wait_until_ready(&self, unreadable: &[&str]) {
        // A dropped writer means the watch task ended, which ends the process by itself.
        let _ = self.agents.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
        let _ = self.nodes.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
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

    /// The vehicle of a mode, by its labels.
    pub(crate) fn daemon_set(
        &self,
        namespace: &str,
        label: &str,
        mode: Mode,
    ) -> Option<Arc<DaemonSet>> {
        self.daemon_sets.iter().find_map(|store| {
            store.find(|object| {
                object.namespace().as_deref() == Some(namespace)
                    && serves(object.labels(), label, mode)
            })
        })
    }
}
