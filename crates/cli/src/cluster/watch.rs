//! Watches what was read, so that a snapshot follows the cluster.

use std::fmt::Debug;
use std::hash::Hash;

use futures::future::ready;
use futures::stream::{BoxStream, select_all};
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use otelagent_core::names;
use otelagent_core::read::{Decoded, PartialNamespace, PartialNode, PartialPod};

use super::Cluster;
use super::part::Part;
use super::request::{Kind, admission_kind};
use super::snapshot::{LIVE, Reach, Reading};
use crate::error::{CliError, Right};
use crate::snapshot::Snapshot;

/// A change of a snapshot.
pub type Change = Box<dyn FnOnce(&mut Snapshot) + Send>;

/// The changes of what was read, without end. An error ends them; what heals by itself is a change.
pub fn watch(
    cluster: &Cluster,
    reading: &Reading,
) -> impl Stream<Item = Result<Change, CliError>> + use<> {
    let mut watches = Watches {
        cluster: cluster.clone(),
        all: Vec::new(),
    };
    watches.start(&reading.reach);
    select_all(watches.all)
}

struct Watches {
    cluster: Cluster,
    all: Vec<BoxStream<'static, Result<Change, CliError>>>,
}

impl Watches {
    fn start(&mut self, reach: &Reach) {
        let everything = watcher::Config::default();
        let ours = watcher::Config::default().labels(&names::managed_selector());
        let live = watcher::Config::default().fields(LIVE);
        self.typed::<Decoded>(reach.agents.as_ref(), &everything);
        for place in &reach.pods {
            self.typed::<PartialPod>(place.as_ref(), &live);
        }
        for place in &reach.daemon_sets {
            self.typed::<DaemonSet>(Some(place), &ours);
        }
        let client = || self.cluster.client.clone();
        let (nodes, namespaces) = (Api::all(client()), Api::all(client()));
        if reach.nodes {
            self.add::<PartialNode>(nodes, &(), None, &everything);
        }
        if reach.namespaces {
            self.add::<PartialNamespace>(namespaces, &(), None, &everything);
        }
        for kind in &reach.admission {
            let resource = admission_kind(kind);
            let api = Api::all_with(self.cluster.client.clone(), &resource);
            let kind = Some((*kind).to_owned());
            self.add::<DynamicObject>(api, &resource, kind, &ours);
        }
    }

    fn typed<K>(&mut self, place: Option<&String>, config: &watcher::Config)
    where
        K: Part<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        let client = self.cluster.client.clone();
        let api = match place {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        self.add::<K>(api, &(), place.cloned(), config);
    }

    fn add<K>(
        &mut self,
        api: Api<K>,
        kind: &K::DynamicType,
        place: Option<String>,
        config: &watcher::Config,
    ) where
        K: Part,
        K::DynamicType: Eq + Hash + Clone + Debug + Send + 'static,
    {
        let named = Kind::of::<K>(kind);
        let mut listed = Vec::new();
        let changes = watcher(api, config.clone()).default_backoff();
        let changes = changes.filter_map(move |event| {
            ready(match event {
                Ok(event) => change(event, &mut listed, place.as_deref()).map(Ok),
                Err(error) => Some(interrupted(&error, &named, place.as_deref())),
            })
        });
        self.all.push(changes.boxed());
    }
}

/// What an event changes. What is listed replaces what was there once the list is complete.
fn change<K: Part>(event: Event<K>, listed: &mut Vec<K>, place: Option<&str>) -> Option<Change> {
    match event {
        Event::Init => {
            listed.clear();
            None
        }
        Event::InitApply(object) => {
            listed.push(object);
            None
        }
        Event::InitDone => {
            let (all, place) = (std::mem::take(listed), place.map(str::to_owned));
            Some(Box::new(move |snapshot| {
                snapshot.is_interrupted = false;
                K::clear(snapshot, place.as_deref());
                for object in all {
                    object.put(snapshot);
                }
            }))
        }
        Event::Apply(object) => Some(Box::new(move |snapshot| {
            snapshot.is_interrupted = false;
            object.put(snapshot);
        })),
        Event::Delete(object) => Some(Box::new(move |snapshot| object.remove(snapshot))),
    }
}

/// A right that is missing ends the watch; everything else is tried again.
fn interrupted(
    error: &watcher::Error,
    kind: &Kind,
    place: Option<&str>,
) -> Result<Change, CliError> {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    if let InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) =
        error
        && status.code == 403
    {
        return Err(CliError::Forbidden(Right {
            verb: "watch",
            resource: kind.shown(),
            namespace: place.map(str::to_owned),
        }));
    }
    Ok(Box::new(|snapshot| snapshot.is_interrupted = true))
}
