//! `OtelAgent.status`: what the operator has observed.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mode;

/// The observed state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtelAgentStatus {
    /// The generation of the spec that this status describes. -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The serving mode: the mode that new pods use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Where new pods send telemetry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Node modes whose agents exist: the wanted and the serving mode, and older ones that pods still use.
    /// The operator recreates their objects if they are deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub paths: Vec<Mode>,
    /// The agents of the serving mode; before one serves, those of the wanted mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentCounts>,
    /// The pods that use or should use this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// What agents said when they were last asked whether they deliver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryCounts>,
    /// Workloads to restart, by their progress. Only with workloads.restart Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<RestartCounts>,
    /// Accepted, Ready, Switching, Injected, Delivering, and with workloads.restart Rolling also Restarting.
    /// Reconciling and Stalled are present only while they are True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Numbers of agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentCounts {
    /// Nodes (Sidecar: pods) that should have an agent.
    #[schemars(range(min = 0))]
    pub desired: i32,
    /// Nodes (Sidecar: pods) with a ready agent.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// Nodes (Sidecar: pods) with an agent of the present spec. Agents on nodes count once they say that they run
    /// the present configuration, if their image says it.
    #[schemars(range(min = 0))]
    pub updated: i32,
}

/// Numbers of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Running pods that were injected for this agent.
    #[schemars(range(min = 0))]
    pub injected: i32,
    /// Of the injected pods, those with the serving mode and configuration.
    #[schemars(range(min = 0))]
    pub current: i32,
    /// Of the injected pods, those with an older mode or configuration.
    #[schemars(range(min = 0))]
    pub stale: i32,
    /// Running selected pods that this agent did not inject.
    #[schemars(range(min = 0))]
    pub missed: i32,
    /// Of the missed pods, those that were injected for an OtelAgent that does not exist.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub orphaned: i32,
    /// Of the missed pods, those that cannot be injected, so that a restart would not help.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub uninjectable: i32,
    /// Of the injected pods, those on a node without a ready agent of their mode.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub uncovered: i32,
    /// Injected pods by the mode they were created with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_mode: BTreeMap<String, i32>,
}

/// Numbers of agents that were asked whether they deliver: all agents on nodes, and of sidecars a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryCounts {
    /// Agents that were asked.
    #[schemars(range(min = 0))]
    pub asked: i32,
    /// Of these, agents whose upstream takes what they send.
    #[schemars(range(min = 0))]
    pub delivering: i32,
    /// Of these, agents that have delivered nothing yet and have not failed for a minute.
    #[schemars(range(min = 0))]
    pub idle: i32,
    /// Of these, agents that have not delivered for a minute although they had something to send.
    #[schemars(range(min = 0))]
    pub failing: i32,
    /// Of these, agents that did not answer.
    #[schemars(range(min = 0))]
    pub unanswered: i32,
}

/// Numbers of workloads with stale, missed or uncovered pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartCounts {
    /// Workloads that are being restarted.
    #[schemars(range(min = 0))]
    pub running: i32,
    /// Workloads that wait for their restart.
    #[schemars(range(min = 0))]
    pub waiting: i32,
    /// Workloads whose pods are unchanged after a restart; they are not retried.
    #[schemars(range(min = 0))]
    pub stuck: i32,
    /// Workloads that the operator does not restart; the condition Restarting says why.
    #[schemars(range(min = 0))]
    pub not_restartable: i32,
}

/// Condition: workloads are being restarted or wait for it. Only with workloads.restart Rolling.
pub const RESTARTING: &str = "Restarting";
/// Condition: the spec is valid; False says what to change.
pub const ACCEPTED: &str = "Accepted";
/// Condition: new pods reach an agent.
pub const READY: &str = "Ready";
/// Condition: an older route still has users, or a new one is not ready yet.
pub const SWITCHING: &str = "Switching";
/// Condition: injection is active and no selected pod was missed.
pub const INJECTED: &str = "Injected";
/// Condition: the upstream takes what agents send.
pub const DELIVERING: &str = "Delivering";
/// Condition, present only while it is True: the spec is not in effect yet, and the operator is at it.
pub const RECONCILING: &str = "Reconciling";
/// Condition, present only while it is True: the spec was refused.
pub const STALLED: &str = "Stalled";
/// All types of conditions.
pub const CONDITIONS: [&str; 8] = [
    ACCEPTED,
    READY,
    SWITCHING,
    INJECTED,
    DELIVERING,
    RESTARTING,
    RECONCILING,
    STALLED,
];
