//! A cache of the active instructions and the labels of namespaces, filled by watches.
//!
//! A call may arrive before the watch has seen the webhook configuration behind it; the lookup then waits a
//! moment.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::instruction::{Instruction, Target};
use otelagent_core::names;

/// How long a call may wait for a watch; shorter than the API server's timeout.
const PATIENCE: Duration = Duration::from_secs(1);

type Configuration = PartialObjectMeta<MutatingWebhookConfiguration>;

/// The cache of one watch, by name; `None` until the first list is complete.
type Seen<V> = watch::Sender<Option<HashMap<String, V>>>;

/// One webhook configuration: the hash of its content, and its instruction if this version understands it.
#[derive(Clone)]
struct Listed {
    hash: String,
    instruction: Option<Arc<Instruction>>,
}

/// The caches of all watches.
pub(crate) struct InstructionCache {
    configurations: Seen<Listed>,
    /// The labels by namespace.
    namespaces: Seen<BTreeMap<String, String>>,
}

impl InstructionCache {
    /// Starts the watches.
    pub(crate) fn start(client: &Client, tasks: &mut JoinSet<&'static str>) -> Arc<Self> {
        let cache = Self {
            configurations: watch::Sender::new(None),
            namespaces: watch::Sender::new(None),
        };
        let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
        tasks.spawn(follow(
            "watch of webhook configurations",
            Api::all(client.clone()),
            watcher::Config::default().labels(&ours),
            cache.configurations.clone(),
            listed,
        ));
        tasks.spawn(follow(
            "watch of namespaces",
            Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
            watcher::Config::default(),
            cache.namespaces.clone(),
            |namespace| Some(namespace.labels().clone()),
        ));
        Arc::new(cache)
    }

    /// A complete but empty cache.
    #[cfg(test)]
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self {
            configurations: watch::Sender::new(Some(HashMap::new())),
            namespaces: watch::Sender::new(Some(HashMap::new())),
        })
    }

    /// Caches one more webhook configuration, without an instruction.
    #[cfg(test)]
    pub(crate) fn list_one(&self, name: &str) {
        let listed = Listed {
            hash: String::new(),
            instruction: None,
        };
        self.configurations.send_modify(|all| {
            all.get_or_insert_default().insert(name.to_owned(), listed);
        });
    }

    /// Returns once webhook configurations exist, or once none does.
    pub(crate) async fn until_called(&self, is_called: bool) {
        // The sender lives as long as the cache.
        let mut configurations = self.configurations.subscribe();
        let _ = configurations
            .wait_for(|all| all.as_ref().is_some_and(|all| all.is_empty() != is_called))
            .await;
    }

    /// Returns once every list is complete.
    pub(crate) async fn until_synced(&self) {
        // The senders live as long as the cache.
        let _ = self
            .configurations
            .subscribe()
            .wait_for(Option::is_some)
            .await;
        let _ = self.namespaces.subscribe().wait_for(Option::is_some).await;
    }

    /// The instruction that a call names, or the active one if that configuration is gone or not seen in
    /// time.
    pub(crate) async fn instruction(&self, target: &Target) -> Option<Arc<Instruction>> {
        let name = |part| names::cluster_object(&target.namespace, &target.name, part);
        let (active, canary) = (name(None), name(Some("canary")));
        let is_meant = |listed: &&Listed| listed.hash == target.hash;
        let found = seen(&self.configurations, |all| {
            let mut named = [&active, &canary]
                .into_iter()
                .filter_map(|name| all.get(name));
            named.find(is_meant).cloned()
        });
        let found = match found.await {
            Some(exact) => Some(exact),
            None => self.configurations.borrow().as_ref()?.get(&active).cloned(),
        };
        found?.instruction
    }

    /// Labels of a namespace; waits a moment for an unknown one.
    pub(crate) async fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        seen(&self.namespaces, |all| all.get(name).cloned()).await
    }
}

/// What `find` finds in the cache of a watch, now or within a moment.
async fn seen<V, T>(all: &Seen<V>, find: impl Fn(&HashMap<String, V>) -> Option<T>) -> Option<T> {
    let mut found = None;
    let mut all = all.subscribe();
    let look = all.wait_for(|all| {
        found = all.as_ref().and_then(&find);
        found.is_some()
    });
    // The sender lives as long as the cache.
    let _ = tokio::time::timeout(PATIENCE, look).await;
    found
}

/// Runs one watch with back-off and caches what `read` returns for each object. Ends only with the stream.
async fn follow<K, V>(
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    seen: Seen<V>,
    read: impl Fn(&K) -> Option<V>,
) -> &'static str
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut list = HashMap::new();
    let put = |all: &mut HashMap<String, V>, object: &K| {
        let name = object.name_any();
        match read(object) {
            Some(value) => all.insert(name, value),
            None => all.remove(&name),
        };
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => list.clear(),
            Ok(watcher::Event::InitApply(object)) => put(&mut list, &object),
            Ok(watcher::Event::InitDone) => {
                seen.send_replace(Some(std::mem::take(&mut list)));
            }
            Ok(watcher::Event::Apply(object)) => {
                seen.send_modify(|all| put(all.get_or_insert_default(), &object));
            }
            Ok(watcher::Event::Delete(object)) => seen.send_modify(|all| {
                all.get_or_insert_default().remove(&object.name_any());
            }),
            Err(error) => tracing::warn!(error = %error, "{what} failed, trying again"),
        }
    }
    what
}

fn listed(configuration: &Configuration) -> Option<Listed> {
    let annotations = configuration.annotations();
    let hash = annotations.get(names::ANNOTATION_WEBHOOK_HASH)?.clone();
    let instruction = annotations
        .get(names::ANNOTATION_INSTRUCTION)
        .and_then(|text| Instruction::parse(text));
    if instruction.is_none() {
        let name = configuration.name_any();
        tracing::warn!(
            name,
            "this version does not understand the instruction of a webhook configuration and does not inject its pods; \
             run webhook and controller of the same version"
        );
    }
    let instruction = instruction.map(Arc::new);
    Some(Listed { hash, instruction })
}
