//! What was read of a cluster at one moment, and what could not be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use otelagent_api::{ACCEPTED, OtelAgent, OtelAgentSpec, ResourceExt};
use otelagent_core::build::{Environment, IpFamily, ServerVersion};
use otelagent_core::names;
use otelagent_core::read::{Decoded, Labels, PartialPod};
use otelagent_core::reconcile::Active;
use otelagent_core::switching::NodeStates;

use crate::error::Right;
use crate::installation::Installation;

/// Namespace and name of an object.
pub type Key = (String, String);

/// What was read of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The `OtelAgent`s that are known, by namespace and name.
    pub agents: BTreeMap<Key, Decoded>,
    /// Pods, by namespace and name.
    pub pods: BTreeMap<Key, SeenPod>,
    /// Nodes; `None` if they may not be read.
    pub nodes: Option<NodeStates>,
    /// Labels of namespaces; `None` if they may not be read.
    pub namespaces: Option<BTreeMap<String, Labels>>,
    /// Agent workloads on nodes, by namespace and name.
    pub daemon_sets: BTreeMap<Key, DaemonSet>,
    /// What new pods get, by the `OtelAgent`; `None` if bindings may not be read.
    pub active: Option<BTreeMap<Key, Active>>,
    /// How the operator is installed.
    pub installation: Installation,
    /// Family of the nodes' addresses.
    pub family: IpFamily,
    /// Version of the API server.
    pub server: Option<ServerVersion>,
    /// Rights for which something is not known.
    pub missing: BTreeSet<Right>,
    /// Whether a watch was interrupted, so that what is here may be old.
    pub is_interrupted: bool,
}

/// A pod as read.
#[derive(Clone, Debug)]
pub struct SeenPod {
    /// Its fields.
    pub pod: PartialPod,
    /// Its outline, which [`PartialPod`] has as a text of its own.
    pub outline: Arc<str>,
}

impl From<PartialPod> for SeenPod {
    fn from(mut pod: PartialPod) -> Self {
        let outline = std::mem::take(&mut pod.outline).into();
        Self { pod, outline }
    }
}

impl Snapshot {
    /// What rendered objects depend on. Without rights to read how the operator is installed, the namespaces of accepted
    /// `OtelAgent`s that only a platform namespace may have count as such.
    pub fn environment(&self) -> Environment {
        let oldest = ServerVersion {
            major: 1,
            minor: 33,
        };
        let server = self.server.unwrap_or(oldest);
        let mut environment = self.installation.environment(server, self.family);
        if !self.installation.is_known {
            let agents = self.agents.values();
            let agents = agents.filter_map(|agent| agent.agent.as_ref().ok());
            let accepted = agents.filter(|agent| is_accepted(agent));
            let platform = accepted.filter(|agent| needs_platform(&agent.spec));
            let platform = platform.filter_map(ResourceExt::namespace);
            environment.platform_namespaces.extend(platform);
        }
        environment
    }

    /// The labels of a namespace. Where they may not be read, the one that every namespace has.
    pub fn labels_of(&self, namespace: &str) -> Labels {
        match &self.namespaces {
            Some(known) => known.get(namespace).cloned().unwrap_or_default(),
            None => [(
                otelagent_core::inject::policy::NAMESPACE_NAME.to_owned(),
                namespace.to_owned(),
            )]
            .into(),
        }
    }

    /// What new pods get of an `OtelAgent`, as its binding says, if that may be read.
    pub fn active_of(&self, agent: &Key) -> Option<&Active> {
        self.active.as_ref()?.get(agent)
    }

    /// The agents of one `OtelAgent`, by its label, in its own namespace only.
    pub fn agents_of(&self, namespace: &str, label: &str) -> impl Iterator<Item = &PartialPod> {
        let first = (namespace.to_owned(), String::new());
        let own = self.pods.range(first..);
        let own = own.take_while(move |((of, _), _)| of == namespace);
        let pods = own.map(|(_, seen)| &seen.pod);
        pods.filter(move |pod| {
            pod.labels
                .get(names::LABEL_OWNER)
                .is_some_and(|of| of == label)
        })
    }
}

fn is_accepted(agent: &OtelAgent) -> bool {
    let status = agent.status.as_ref();
    let mut conditions = status.iter().flat_map(|status| &status.conditions);
    conditions.any(|one| one.type_ == ACCEPTED && one.status == "True")
}

/// Whether only a platform namespace may have this spec.
fn needs_platform(spec: &OtelAgentSpec) -> bool {
    let workloads = spec.workloads.as_ref();
    spec.mode.on_nodes() || workloads.is_some_and(|own| own.namespace_selector.is_some())
}
