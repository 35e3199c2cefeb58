//! Everything that the caches hold about one `OtelAgent`, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use otelagent_api::{Mode, OtelAgent, ResourceExt};
use serde_json::Value;

use super::active::Active;
use super::step::{AdmissionObject, Correction};
use crate::build::{Environment, ObjectOwner, ValidAgent};
use crate::inject::Selection;
use crate::inject::namespace_limits::ContainerLimit;
use crate::names;
use crate::pods::PodTally;
use crate::status;
use crate::switching::{AgentWorkload, NodeStates};

/// The content of the caches about one `OtelAgent` at one moment.
#[derive(Clone, Debug)]
pub struct Observation<'a> {
    /// The moment.
    pub now: Timestamp,
    /// The object.
    pub agent: &'a OtelAgent,
    /// What new pods get.
    pub active: Active,
    /// Pods that older `OtelAgent`s select and this one must leave alone.
    pub exclusions: Vec<Selection>,
    /// These older `OtelAgent`s, as `namespace/name`.
    pub preceding: Vec<String>,
    /// The nodes.
    pub nodes: Arc<NodeStates>,
    /// Its `DaemonSet`s by mode.
    pub workloads: BTreeMap<Mode, ObservedWorkload>,
    /// The `ConfigMap`s of their agents by mode, even if they belong to somebody else.
    pub configurations: BTreeMap<Mode, Value>,
    /// The Service with its name, even if it belongs to somebody else.
    pub service: Option<Value>,
    /// Its pods, including those that it should have injected.
    pub pods: PodTally,
    /// Whether it selects pods of any namespace that exists and may be injected.
    pub selects_namespaces: bool,
    /// What `LimitRange`s and `ResourceQuota`s of selected namespaces demand: namespace, object and demands.
    pub namespace_limits: Vec<(String, String, Vec<ContainerLimit>)>,
    /// Cluster-scoped objects whose names contain its name.
    pub admission: Vec<AdmissionObject>,
    /// Modes whose readiness the API server has not confirmed.
    pub unconfirmed: BTreeSet<Mode>,
    /// Whether the API server has live pods of a mode, for the modes that were asked about.
    pub used: BTreeMap<Mode, bool>,
}

/// A `DaemonSet` of one mode.
#[derive(Clone, Debug)]
pub struct ObservedWorkload {
    /// The object, without its managers.
    pub object: Value,
    /// The state of its agents.
    pub workload: AgentWorkload,
    /// Since when no pod has used it, if so.
    pub unused_since: Option<Timestamp>,
    /// Version of the operator that last wrote it.
    pub written_by: Option<String>,
}

impl Observation<'_> {
    /// The label value that names the `OtelAgent`.
    pub fn label(&self) -> String {
        let namespace = self.agent.namespace().unwrap_or_default();
        names::agent_label(&namespace, &self.agent.name_any())
    }

    /// The `OtelAgent` as its objects name it.
    pub fn owner(&self) -> ObjectOwner {
        ObjectOwner {
            uid: self.agent.uid().unwrap_or_default(),
            name: self.agent.name_any(),
            label: self.label(),
        }
    }

    /// The mode of new pods, now or when the status was last written.
    pub fn last_mode(&self) -> Option<Mode> {
        let reported = self.agent.status.as_ref();
        self.active.mode.or(reported.and_then(|status| status.mode))
    }

    /// Whether injection was active when the status was last written.
    pub fn was_active(&self) -> bool {
        let status = self.agent.status.as_ref();
        status.is_some_and(status::says_active)
    }

    /// Applies a correction that the API server gave instead of confirming a precondition.
    pub fn correct(&mut self, correction: Correction) {
        match correction {
            Correction::NotReady(mode) => {
                self.unconfirmed.insert(mode);
            }
            Correction::Used(mode, is_used) => {
                self.used.insert(mode, is_used);
            }
        }
    }

    /// The object of a kind and name.
    pub fn admission_object(&self, kind: &str, name: &str) -> Option<&AdmissionObject> {
        let mut objects = self.admission.iter();
        objects.find(|object| object.kind == kind && object.name == name)
    }

    /// Objects of a kind that are this `OtelAgent`'s.
    pub fn owned(&self, kind: &str) -> impl Iterator<Item = &AdmissionObject> {
        let objects = self.admission.iter();
        objects.filter(move |object| object.kind == kind && object.is_ours)
    }

    /// Node modes whose agents ran when the status was last written.
    pub fn reported_routes(&self) -> Vec<Mode> {
        let status = self.agent.status.as_ref();
        status
            .map(|status| status.paths.clone())
            .unwrap_or_default()
    }
}

/// The reconciled object and its installation.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The object.
    pub valid: &'a ValidAgent,
    /// The installation.
    pub environment: &'a Environment,
    /// The canary namespace.
    pub canary_namespace: &'a str,
    /// Owner reference for cluster-scoped objects.
    pub installation: Option<&'a Value>,
}
