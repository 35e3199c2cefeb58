//! The orders in force, and the labels of namespaces, as the watches have seen them.
//!
//! A call may come before the watch has seen the entry that made it: then it waits a moment. Must not
//! know what orders say.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::order::{Order, Target};
use otelagent_core::names;

/// How long a call may wait for a watch to catch up. Less than the caller waits for the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at the namespaces.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

type Entry = PartialObjectMeta<MutatingWebhookConfiguration>;
type SeenNamespace = PartialObjectMeta<Namespace>;

/// One entry: the hash of its content and its order, where this version understands it.
#[derive(Clone)]
struct Listed {
    hash: String,
    order: Option<Arc<Order>>,
}

/// What the watches have seen.
pub(crate) struct Book {
    /// By the entry's name.
    entries: Mutex<HashMap<String, Listed>>,
    /// Counts up with every change; 0 until everything has been seen once.
    changes: watch::Sender<u64>,
    namespaces: Store<SeenNamespace>,
}

impl Book {
    /// Starts the watches.
    pub(crate) fn start(client: &Client, tasks: &mut JoinSet<&'static str>) -> Arc<Self> {
        let (namespaces, writer) = reflector::store();
        let book = Arc::new(Self {
            entries: Mutex::default(),
            changes: watch::Sender::new(0),
            namespaces,
        });
        tasks.spawn(watch_entries(client.clone(), book.clone()));
        tasks.spawn(watch_namespaces(client.clone(), writer));
        book
    }

    /// One that has seen everything, of which there is nothing.
    #[cfg(test)]
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            changes: watch::Sender::new(1),
            namespaces: reflector::store().0,
        })
    }

    /// Returns once everything has been seen.
    pub(crate) async fn until_synced(&self) {
        // The sender lives as long as the book; a namespaces' watch that ended ends the process.
        let _ = self.changes.subscribe().wait_for(|count| *count > 0).await;
        let _ = self.namespaces.wait_until_ready().await;
    }

    /// The order a call is for; where its entry is gone or not seen in time, the one in force.
    pub(crate) async fn order(&self, target: &Target) -> Option<Arc<Order>> {
        let mut changes = self.changes.subscribe();
        let exact = changes.wait_for(|_| self.exact(target).is_some());
        let seen = tokio::time::timeout(PATIENCE, exact).await.is_ok();
        let found = if seen {
            self.exact(target)
        } else {
            self.listed(target, None)
        };
        found.and_then(|listed| listed.order)
    }

    fn exact(&self, target: &Target) -> Option<Listed> {
        [None, Some("canary")]
            .into_iter()
            .filter_map(|part| self.listed(target, part))
            .find(|listed| listed.hash == target.hash)
    }

    fn listed(&self, target: &Target, part: Option<&str>) -> Option<Listed> {
        let name = names::cluster_object(&target.namespace, &target.name, part);
        self.locked(|entries| entries.get(&name).cloned())
    }

    /// Labels of a namespace, waited for if it is new.
    pub(crate) async fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let look = async {
            loop {
                if let Some(namespace) = self.namespaces.get(&ObjectRef::new(name)) {
                    return namespace.labels().clone();
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.ok()
    }

    fn locked<T>(&self, act: impl FnOnce(&mut HashMap<String, Listed>) -> T) -> T {
        act(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, act: impl FnOnce(&mut HashMap<String, Listed>)) {
        self.locked(act);
        self.changes.send_modify(|count| *count += 1);
    }
}

async fn watch_entries(client: Client, book: Arc<Book>) -> &'static str {
    let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
    let ours = watcher::Config::default().labels(&ours);
    let api: Api<Entry> = Api::all(client);
    let stream = watcher(api, ours).default_backoff().inspect_err(
        |error| tracing::warn!(error = %error, "watch of entries failed, trying again"),
    );
    let mut stream = std::pin::pin!(stream);
    let mut listed = HashMap::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(entry)) => listed.extend(read(&entry)),
            Ok(watcher::Event::InitDone) => {
                book.change(|entries| *entries = std::mem::take(&mut listed));
            }
            Ok(watcher::Event::Apply(entry)) => book.change(|entries| {
                entries.remove(&entry.name_any());
                entries.extend(read(&entry));
            }),
            Ok(watcher::Event::Delete(entry)) => book.change(|entries| {
                entries.remove(&entry.name_any());
            }),
            Err(_) => {}
        }
    }
    "watch of entries"
}

fn read(entry: &Entry) -> Option<(String, Listed)> {
    let annotations = entry.annotations();
    let hash = annotations.get(names::ANNOTATION_WEBHOOK_HASH)?.clone();
    let order = annotations
        .get(names::ANNOTATION_INSTRUCTION)
        .and_then(|text| Order::parse(text));
    let name = entry.name_any();
    if order.is_none() {
        tracing::warn!(
            name,
            "an entry's order is not understood; its pods are not injected"
        );
    }
    let order = order.map(Arc::new);
    Some((name, Listed { hash, order }))
}

async fn watch_namespaces(
    client: Client,
    writer: reflector::store::Writer<SeenNamespace>,
) -> &'static str {
    let stream = watcher(
        Api::<SeenNamespace>::all(client),
        watcher::Config::default(),
    )
    .modify(|namespace| {
        namespace.metadata.managed_fields = None;
        namespace.metadata.annotations = None;
    })
    .default_backoff()
    .reflect(writer)
    .inspect_err(
        |error| tracing::warn!(error = %error, "watch of namespaces failed, trying again"),
    );
    let mut stream = std::pin::pin!(stream);
    while stream.next().await.is_some() {}
    "watch of namespaces"
}
