//! Which watches the API server refuses, because the operator lacks a right.
//!
//! A cache whose watch is refused is empty or old, so nothing may be decided by it.

use std::collections::BTreeMap;

use kube::api::{ApiResource, DynamicObject, ListParams, WatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;

/// What one watch reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) resource: ApiResource,
    /// `None` for the whole cluster.
    pub(crate) namespace: Option<String>,
}

/// A namespace, if it is not the whole cluster, and the plural of a kind.
type Key = (Option<String>, String);

/// The watches that were refused since they were last found permitted; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Refusals(std::sync::Arc<watch::Sender<BTreeMap<Key, Watched>>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(std::sync::Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Watched {
    /// Of one namespace, or of the whole cluster.
    pub(crate) fn of<K: kube::Resource>(kind: &K::DynamicType, namespace: Option<&str>) -> Self {
        Self {
            resource: ApiResource::erase::<K>(kind),
            namespace: namespace.map(Into::into),
        }
    }

    fn key(&self) -> Key {
        (self.namespace.clone(), self.resource.plural.clone())
    }

    /// The verb that the API server still refuses; `None` if it refuses neither.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub(crate) async fn refused_verb(&self, client: &Client) -> kube::Result<Option<&'static str>> {
        let client = client.clone();
        let api: Api<DynamicObject> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        };
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Err(kube::Error::Api(status)) if status.is_forbidden() => return Ok(Some("list")),
            found => found.map(drop)?,
        }
        match api.watch(&WatchParams::default().timeout(1), "0").await {
            Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Some("watch")),
            found => found.map(|_| None),
        }
    }
}

impl Refusals {
    /// Notes that a watch failed. Returns whether it was refused, and was not known to be.
    pub(super) fn failed(&self, watched: &Watched, error: &watcher::Error) -> bool {
        is_forbidden(error)
            && self.0.send_if_modified(|known| {
                let before = known.insert(watched.key(), watched.clone());
                before.is_none()
            })
    }

    /// Notes that a watch is permitted. Returns whether it was refused before.
    pub(crate) fn permitted(&self, watched: &Watched) -> bool {
        self.0
            .send_if_modified(|known| known.remove(&watched.key()).is_some())
    }

    /// What is refused in the whole cluster or in this namespace.
    pub(crate) fn concerning(&self, namespace: &str) -> Vec<Watched> {
        let known = self.0.borrow();
        let concerns = |watched: &&Watched| {
            let own = watched.namespace.as_deref();
            own.is_none_or(|own| own == namespace)
        };
        known.values().filter(concerns).cloned().collect()
    }

    /// Returns once a watch is refused.
    pub(super) async fn until_refused(&self, plural: &str, namespace: Option<&str>) {
        let key = (namespace.map(str::to_owned), plural.to_owned());
        let mut known = self.0.subscribe();
        // The sender lives as long as this does.
        let _ = known.wait_for(|known| known.contains_key(&key)).await;
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.is_forbidden(),
        _ => false,
    }
}
