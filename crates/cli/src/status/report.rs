//! The answer of `status`, as `-o json` and `-o yaml` show it. docs/cli.md describes the fields.

use std::collections::BTreeMap;

use otelagent_api::{AgentCounts, DeliveryCounts, Mode, PodCounts, RestartCounts};
use serde::Serialize;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// The `OtelAgent`s, by namespace and name.
    pub items: Vec<AgentReport>,
    /// What could not be read, and what is shown elsewhere.
    pub notes: Vec<String>,
}

/// One `OtelAgent`. What an older operator does not report is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether the operator has seen the present spec and no condition needs attention.
    pub is_as_wished: bool,
    /// Why the object cannot be read, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Whether the status describes the present spec.
    pub is_observed: bool,
    /// The mode that the spec asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Mode>,
    /// The mode that new pods get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<Mode>,
    /// Where applications send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Where agents send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The conditions, as the operator reports them.
    pub conditions: Vec<ConditionReport>,
    /// Counts of the operator: agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentCounts>,
    /// Counts of the operator: pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// Counts of the operator: what agents said of their delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryCounts>,
    /// Counts of the operator: workloads to restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<RestartCounts>,
    /// What runs agents.
    pub agent_workloads: Vec<AgentWorkloadReport>,
    /// The workloads that use this agent or should, by namespace, those that need attention first.
    pub namespaces: Vec<NamespaceReport>,
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionReport {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// When its status last changed.
    pub since: String,
    /// Whether it needs no attention.
    pub is_as_wished: bool,
}

/// What runs agents in one mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentWorkloadReport {
    /// `DaemonSet`, or `Sidecar` for the containers in the applications' pods.
    pub kind: &'static str,
    /// Its name; empty for sidecars.
    pub name: String,
    /// Its mode.
    pub mode: Mode,
    /// How many agents there should be.
    pub desired: i32,
    /// On how many nodes (sidecars: pods) one is ready.
    pub ready: i32,
    /// The nodes, those that need attention first; none for sidecars.
    pub nodes: Vec<NodeReport>,
}

/// The agents of one workload on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The node.
    pub name: String,
    /// `Ready`, `Outdated`, `NotReady`, `Missing`, `NodeDown` or `LeftOut`.
    pub state: &'static str,
    /// Why it is left out, or why the last agent ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether it needs no attention.
    pub is_as_wished: bool,
    /// The agents.
    pub agents: Vec<AgentPodReport>,
}

/// An agent on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentPodReport {
    /// Its pod.
    pub pod: String,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Whether it is of the present pod template.
    pub is_updated: bool,
    /// Why it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// The workloads of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceReport {
    /// The namespace.
    pub name: String,
    /// The workloads, those that need attention first.
    pub workloads: Vec<WorkloadReport>,
}

impl NamespaceReport {
    /// Whether no workload needs attention.
    pub fn is_as_wished(&self) -> bool {
        self.workloads.iter().all(|workload| workload.is_as_wished)
    }
}

/// The pods of one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadReport {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Injected pods by mode.
    pub modes: BTreeMap<String, usize>,
    /// Injected pods as new ones are; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<usize>,
    /// Injected pods of an older mode or configuration; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<usize>,
    /// Selected pods that were not injected.
    pub missed: usize,
    /// Of these, pods that were injected for an `OtelAgent` that does not exist.
    pub orphaned: usize,
    /// Injected pods that reach no agent from their node.
    pub uncovered: usize,
    /// Why pods were missed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why_missed: Vec<MissedReport>,
    /// `Helps`, `MayHelp` or `InVain`; absent if nothing is lacking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<&'static str>,
    /// Why a restart would be in vain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_in_vain: Option<String>,
    /// Whether each pod is injected as new ones are, and reaches an agent.
    pub is_as_wished: bool,
}

/// Pods that were missed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissedReport {
    /// How many.
    pub pods: usize,
    /// Whether they were injected for an `OtelAgent` that does not exist.
    pub is_orphaned: bool,
    /// The reason.
    pub why: String,
}

impl StatusReport {
    /// Whether everything is as wished.
    pub fn is_as_wished(&self) -> bool {
        self.items.iter().all(|item| item.is_as_wished)
    }
}
