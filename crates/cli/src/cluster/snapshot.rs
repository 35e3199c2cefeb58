//! Reads what `status` needs, as far as the user may.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{join, join_all, join3};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use otelagent_core::build::{IpFamily, ServerVersion, selection};
use otelagent_core::inject::Namespaces;
use otelagent_core::inject::kinds::{BINDING, WEBHOOK_CONFIGURATION};
use otelagent_core::names;
use otelagent_core::read::{Decoded, PartialNamespace, PartialNode, PartialPod};
use otelagent_core::switching::NodeStates;

use super::Cluster;
use super::part::Part;
use super::request::{Kind, admission_kind};
use crate::error::CliError;
use crate::installation::{Installation, OPERATOR_SELECTOR};
use crate::snapshot::{Key, Snapshot};

/// Pods that run or are about to.
pub(super) const LIVE: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// How many nodes are asked for the family of their addresses: the first ones may have none.
const NODES_ASKED: u32 = 50;

/// Which `OtelAgent`s are asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Their namespace; `None` for all.
    pub namespace: Option<String>,
    /// The name of one.
    pub name: Option<String>,
}

impl Wanted {
    /// The keys of those that are asked for.
    ///
    /// # Errors
    /// If one is asked for by name and does not exist.
    pub fn of<'a>(
        &self,
        known: impl IntoIterator<Item = &'a Key>,
    ) -> Result<BTreeSet<Key>, CliError> {
        let known: Vec<&Key> = known.into_iter().collect();
        let is_wanted = |(namespace, name): &&&Key| {
            self.namespace
                .as_ref()
                .is_none_or(|wanted| wanted == namespace)
                && self.name.as_ref().is_none_or(|wanted| wanted == name)
        };
        let found: BTreeSet<Key> = known
            .iter()
            .filter(is_wanted)
            .map(|key| (*key).clone())
            .collect();
        match &self.name {
            Some(name) if found.is_empty() => {
                let place = self
                    .namespace
                    .as_ref()
                    .map_or("any namespace".into(), |namespace| {
                        format!("namespace {namespace}")
                    });
                let others = known
                    .iter()
                    .map(|(namespace, name)| format!("{namespace}/{name}"));
                let others: Vec<String> = others.take(5).collect();
                let others = match others.as_slice() {
                    [] => "there is none that you may see".to_owned(),
                    some => format!("there is {}", some.join(", ")),
                };
                Err(CliError::NotFound(format!(
                    "no OtelAgent {name} in {place}; {others}"
                )))
            }
            _ => Ok(found),
        }
    }
}

/// What may be read, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// The namespace of `OtelAgent`s; `None` for all.
    pub(super) agents: Option<String>,
    /// The namespaces of pods; `None` for all.
    pub(super) pods: Vec<Option<String>>,
    /// Whether nodes may be read.
    pub(super) nodes: bool,
    /// Whether namespaces may be read.
    pub(super) namespaces: bool,
    /// The namespaces of agent workloads.
    pub(super) daemon_sets: Vec<String>,
    /// Admission kinds.
    pub(super) admission: Vec<&'static str>,
}

/// What was read, what is to be shown of it, and what may be watched.
pub struct Reading {
    /// What was read.
    pub snapshot: Snapshot,
    /// The `OtelAgent`s that are asked for.
    pub shown: BTreeSet<Key>,
    /// What may be read.
    pub(super) reach: Reach,
}

/// Reads what is known of the cluster, and which of its `OtelAgent`s are wanted.
///
/// # Errors
/// If the API server cannot be asked, or the user may not list `OtelAgent`s.
pub async fn read(cluster: &Cluster, wanted: &Wanted) -> Result<Reading, CliError> {
    let mut reader = Reader::of(cluster);
    reader.agents(wanted).await?;
    let shown = wanted.of(reader.snapshot.agents.keys())?;
    let places = places(&reader.snapshot.agents, &shown);
    let own = shown.iter().map(|(namespace, _)| namespace.clone());
    let own: BTreeSet<String> = own.collect();
    let nodes = ListParams::default();
    let (nodes, surroundings) = join(
        cluster.list::<PartialNode>(None, &nodes),
        surroundings(cluster),
    )
    .await;
    reader.take(surroundings)?;
    if let Some(nodes) = reader.allowed(nodes)? {
        reader.reach.nodes = true;
        reader.snapshot.nodes = Some(NodeStates::new());
        reader.put(nodes);
    }
    reader.active().await?;
    reader.daemon_sets(&own).await?;
    reader.pods(places, own).await?;
    Ok(Reading {
        snapshot: reader.snapshot,
        shown,
        reach: reader.reach,
    })
}

/// Reads all `OtelAgent`s and what their injection depends on, without nodes, agents and pods.
///
/// # Errors
/// If the API server cannot be asked, or the user may not list `OtelAgent`s.
pub async fn survey(cluster: &Cluster, namespace: &str) -> Result<Snapshot, CliError> {
    let mut reader = Reader::of(cluster);
    let wanted = Wanted {
        namespace: Some(namespace.to_owned()),
        name: None,
    };
    reader.agents(&wanted).await?;
    let some = ListParams::default().limit(NODES_ASKED);
    let (nodes, surroundings) =
        join(cluster.page::<Node>(None, &some), surroundings(cluster)).await;
    reader.take(surroundings)?;
    if let Some(nodes) = reader.allowed(nodes)? {
        reader.snapshot.family = IpFamily::of(&nodes).unwrap_or_default();
    }
    reader.active().await?;
    Ok(reader.snapshot)
}

/// Reads what there is without the CRD.
///
/// # Errors
/// If the API server cannot be asked.
pub async fn bare(cluster: &Cluster) -> Result<Snapshot, CliError> {
    let mut reader = Reader::of(cluster);
    reader.take(surroundings(cluster).await)?;
    Ok(reader.snapshot)
}

/// Namespaces, the operator's Deployment, and the version of the server.
type Surroundings = (
    Result<Vec<PartialNamespace>, CliError>,
    Result<Vec<Deployment>, CliError>,
    Result<ServerVersion, CliError>,
);

async fn surroundings(cluster: &Cluster) -> Surroundings {
    let all = ListParams::default();
    let operator = ListParams::default().labels(OPERATOR_SELECTOR);
    join3(
        cluster.list(None, &all),
        cluster.list(None, &operator),
        cluster.version(),
    )
    .await
}

/// Reads one part after another.
struct Reader<'a> {
    cluster: &'a Cluster,
    snapshot: Snapshot,
    reach: Reach,
}

impl<'a> Reader<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            snapshot: Snapshot::default(),
            reach: Reach::default(),
        }
    }

    fn take(&mut self, (namespaces, installation, server): Surroundings) -> Result<(), CliError> {
        if let Some(namespaces) = self.allowed(namespaces)? {
            self.reach.namespaces = true;
            self.snapshot.namespaces = Some(BTreeMap::new());
            self.put(namespaces);
        }
        if let Some(found) = self.allowed(installation)?.unwrap_or_default().first() {
            self.snapshot.installation = Installation::of(found);
        }
        self.snapshot.server = Some(server?);
        Ok(())
    }

    /// Notes a missing right; a kind that is not served is absent, too.
    fn allowed<T>(&mut self, answer: Result<T, CliError>) -> Result<Option<T>, CliError> {
        match answer {
            Ok(found) => Ok(Some(found)),
            Err(CliError::Forbidden(right)) => {
                self.snapshot.missing.insert(right);
                Ok(None)
            }
            Err(CliError::NotServed(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put<K: Part>(&mut self, found: Vec<K>) {
        for object in found {
            object.put(&mut self.snapshot);
        }
    }

    /// All `OtelAgent`s, or those of the wanted namespace if the user may see no others.
    async fn agents(&mut self, wanted: &Wanted) -> Result<(), CliError> {
        let all = ListParams::default();
        let found = match (
            self.cluster.list::<Decoded>(None, &all).await,
            &wanted.namespace,
        ) {
            (Err(CliError::Forbidden(right)), Some(namespace)) => {
                self.snapshot.missing.insert(right);
                self.reach.agents = Some(namespace.clone());
                self.cluster.list(Some(namespace), &all).await
            }
            (found, _) => found,
        };
        self.put(found?);
        Ok(())
    }

    /// What new pods get of each `OtelAgent`, from the objects of both engines. A server before 1.36 has no policies.
    async fn active(&mut self) -> Result<(), CliError> {
        let ours = ListParams::default().labels(&names::managed_selector());
        for kind in [BINDING, WEBHOOK_CONFIGURATION] {
            let found = self
                .cluster
                .list_dynamic(&admission_kind(kind), None, &ours)
                .await;
            let is_served = !matches!(found, Err(CliError::NotServed(_)));
            match self.allowed(found)? {
                Some(found) => {
                    self.reach.admission.push(kind);
                    self.snapshot.active.get_or_insert_default();
                    self.put(found);
                }
                // Without the objects of the engine that may be in use, nothing is known.
                None if is_served => {
                    self.snapshot.active = None;
                    self.reach.admission.clear();
                    return Ok(());
                }
                None => {}
            }
        }
        Ok(())
    }

    async fn daemon_sets(&mut self, own: &BTreeSet<String>) -> Result<(), CliError> {
        let ours = ListParams::default().labels(&names::managed_selector());
        let found = own
            .iter()
            .map(|namespace| self.cluster.list::<DaemonSet>(Some(namespace), &ours));
        for (namespace, found) in own.iter().zip(join_all(found).await) {
            if let Some(found) = self.allowed(found)? {
                self.reach.daemon_sets.push(namespace.clone());
                self.put(found);
            }
        }
        Ok(())
    }

    /// The pods of these namespaces, or of all; where that is not allowed, those of the `OtelAgent`s' own namespaces.
    async fn pods(
        &mut self,
        places: Option<BTreeSet<String>>,
        own: BTreeSet<String>,
    ) -> Result<(), CliError> {
        let live = ListParams::default().fields(LIVE);
        let places = if let Some(places) = places {
            places
        } else {
            let all = self.cluster.list::<PartialPod>(None, &live).await;
            if let Some(found) = self.allowed(all)? {
                self.reach.pods.push(None);
                self.put(found);
                return Ok(());
            }
            own
        };
        let lists = places
            .iter()
            .map(|place| self.cluster.list::<PartialPod>(Some(place), &live));
        for (place, found) in places.iter().zip(join_all(lists).await) {
            if let Some(found) = self.allowed(found)? {
                self.reach.pods.push(Some(place.clone()));
                self.put(found);
            }
        }
        Ok(())
    }
}

/// The namespaces whose pods the shown `OtelAgent`s may concern; `None` for all.
fn places(agents: &BTreeMap<Key, Decoded>, shown: &BTreeSet<Key>) -> Option<BTreeSet<String>> {
    let mut places = BTreeSet::new();
    for key in shown {
        places.insert(key.0.clone());
        let agent = agents.get(key).and_then(|agent| agent.agent.as_ref().ok());
        let selection = agent.and_then(selection);
        if let Some(Namespaces::Labelled(_)) = selection.map(|selection| selection.namespaces) {
            return None;
        }
    }
    Some(places)
}

impl Cluster {
    /// The version of the API server.
    ///
    /// # Errors
    /// If it cannot be asked, or has a version that is none.
    pub async fn version(&self) -> Result<ServerVersion, CliError> {
        let kind = Kind {
            plural: "/version".into(),
            group: String::new(),
        };
        let asked = self.client.apiserver_version();
        let info = self.bounded(asked, "get", &kind, None).await?;
        ServerVersion::parse(&info.major, &info.minor).ok_or_else(|| {
            CliError::Internal(format!(
                "{}.{} is no version of an API server",
                info.major, info.minor
            ))
        })
    }
}
