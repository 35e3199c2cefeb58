//! The active instructions and the labels of namespaces, as the watches have seen them.
//!
//! A call may come before the watch has seen the webhook configuration behind it: then it waits a
//! moment. Must not know what instructions say.

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

use crate::instruction::{Instruction, Target};
use otelagent_core::names;

/// How long a call may wait for a watch to catch up. Less than the caller waits for the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two reads of the cached namespaces.
const READ_AGAIN: Duration = Duration::from_millis(20);

type Configuration = PartialObjectMeta<MutatingWebhookConfiguration>;
type SeenNamespace = PartialObjectMeta<Namespace>;

/// One webhook configuration: the hash of its content, and its instruction where this version
/// understands it.
#[derive(Clone)]
struct Listed {
    hash: String,
    instruction: Option<Arc<Instruction>>,
}

/// What the watches have seen.
pub(crate) struct InstructionCache {
    /// By the configuration's name.
    listed: Mutex<HashMap<String, Listed>>,
    /// Counts up with every change; 0 until everything has been seen once.
    changes: watch::Sender<u64>,
    namespaces: Store<SeenNamespace>,
}

impl InstructionCache {
    /// Starts the watches.
    pub(crate) fn start(client: &Client, tasks: &mut JoinSet<&'static str>) -> Arc<Self> {
        let (namespaces, writer) = reflector::store();
        let cache = Arc::new(Self {
            listed: Mutex::default(),
            changes: watch::Sender::new(0),
            namespaces,
        });
        tasks.spawn(watch_configurations(client.clone(), cache.clone()));
        tasks.spawn(watch_namespaces(client.clone(), writer));
        cache
    }

    /// One that has seen everything, of which there is nothing.
    #[cfg(test)]
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self {
            listed: Mutex::default(),
            changes: watch::Sender::new(1),
            namespaces: reflector::store().0,
        })
    }

    /// Returns once everything has been seen.
    pub(crate) async fn until_synced(&self) {
        // The sender lives as long as the cache; the process ends when the watch of namespaces ends.
        let _ = self.changes.subscribe().wait_for(|count| *count > 0).await;
        let _ = self.namespaces.wait_until_ready().await;
    }

    /// The instruction a call is for; where its configuration is gone or not seen in time, the active one.
    pub(crate) async fn instruction(&self, target: &Target) -> Option<Arc<Instruction>> {
        let mut changes = self.changes.subscribe();
        let exact = changes.wait_for(|_| self.exact(target).is_some());
        let seen = tokio::time::timeout(PATIENCE, exact).await.is_ok();
        let found = if seen {
            self.exact(target)
        } else {
            self.listed(target, None)
        };
        found.and_then(|listed| listed.instruction)
    }

    fn exact(&self, target: &Target) -> Option<Listed> {
        [None, Some("canary")]
            .into_iter()
            .filter_map(|part| self.listed(target, part))
            .find(|listed| listed.hash == target.hash)
    }

    fn listed(&self, target: &Target, part: Option<&str>) -> Option<Listed> {
        let name = names::cluster_object(&target.namespace, &target.name, part);
        self.locked(|listed| listed.get(&name).cloned())
    }

    /// Labels of a namespace, waited for if it is new.
    pub(crate) async fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let look = async {
            loop {
                if let Some(namespace) = self.namespaces.get(&ObjectRef::new(name)) {
                    return namespace.labels().clone();
                }
                tokio::time::sleep(READ_AGAIN).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.ok()
    }

    fn locked<T>(&self, act: impl FnOnce(&mut HashMap<String, Listed>) -> T) -> T {
        act(&mut self.listed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, act: impl FnOnce(&mut HashMap<String, Listed>)) {
        self.locked(act);
        self.changes.send_modify(|count| *count += 1);
    }
}

async fn watch_configurations(client: Client, cache: Arc<InstructionCache>) -> &'static str {
    let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
    let ours = watcher::Config::default().labels(&ours);
    let api: Api<Configuration> = Api::all(client);
    let stream = watcher(api, ours).default_backoff().inspect_err(
        |error| tracing::warn!(error = %error, "watch of webhook configurations failed, trying again"),
    );
    let mut stream = std::pin::pin!(stream);
    let mut listed = HashMap::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(configuration)) => listed.extend(read(&configuration)),
            Ok(watcher::Event::InitDone) => {
                cache.change(|current| *current = std::mem::take(&mut listed));
            }
            Ok(watcher::Event::Apply(configuration)) => cache.change(|current| {
                current.remove(&configuration.name_any());
                current.extend(read(&configuration));
            }),
            Ok(watcher::Event::Delete(configuration)) => cache.change(|current| {
                current.remove(&configuration.name_any());
            }),
            Err(_) => {}
        }
    }
    "watch of webhook configurations"
}

fn read(configuration: &Configuration) -> Option<(String, Listed)> {
    let annotations = configuration.annotations();
    let hash = annotations.get(names::ANNOTATION_WEBHOOK_HASH)?.clone();
    let instruction = annotations
        .get(names::ANNOTATION_INSTRUCTION)
        .and_then(|text| Instruction::parse(text));
    let name = configuration.name_any();
    if instruction.is_none() {
        tracing::warn!(
            name,
            "this version does not understand the instruction of a webhook configuration and does not inject its pods; \
             run webhook and controller of the same version"
        );
    }
    let instruction = instruction.map(Arc::new);
    Some((name, Listed { hash, instruction }))
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
