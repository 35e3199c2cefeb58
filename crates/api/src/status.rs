//! `OtelAgent.status`: what is so, never what is hoped for.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mode;

/// What is so now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtelAgentStatus {
    /// The generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The serving mode: what a pod created now is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Where a pod created now sends telemetry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Node modes whose agents stand: the wanted and the serving one, and older ones that pods still use.
    /// Where somebody else takes one of them away, it is made again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub paths: Vec<Mode>,
    /// The agents of the serving mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentCounts>,
    /// The pods that use, or should use, this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// Workloads that are, or are not, restarted; only with workloads.restart Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<RestartCounts>,
    /// Accepted, Ready, Switching, Injected, and with workloads.restart Rolling also Restarting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How many agents there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentCounts {
    /// Nodes (Sidecar: pods) that should have one.
    #[schemars(range(min = 0))]
    pub desired: i32,
    /// Ready ones.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// Those made from the present spec.
    #[schemars(range(min = 0))]
    pub updated: i32,
}

/// How many pods use the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Live pods injected for this agent.
    #[schemars(range(min = 0))]
    pub injected: i32,
    /// Of these, pods with the serving mode and configuration.
    #[schemars(range(min = 0))]
    pub current: i32,
    /// Of these, pods with an older mode or configuration.
    #[schemars(range(min = 0))]
    pub stale: i32,
    /// Live selected pods that were not injected.
    #[schemars(range(min = 0))]
    pub missed: i32,
    /// Of the injected ones, pods on a node where no agent of their mode is ready.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub uncovered: i32,
    /// Injected pods by the mode they were born with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_mode: BTreeMap<String, i32>,
}

/// How many workloads with stale, missed or uncovered pods there are, by what becomes of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartCounts {
    /// Those being restarted.
    #[schemars(range(min = 0))]
    pub running: i32,
    /// Those that will be.
    #[schemars(range(min = 0))]
    pub waiting: i32,
    /// Those that were, and whose pods are as they were; they are not restarted again.
    #[schemars(range(min = 0))]
    pub stuck: i32,
    /// Those that are somebody else's to restart.
    #[schemars(range(min = 0))]
    pub not_restartable: i32,
}

/// Condition: workloads are being restarted or wait for it; only with workloads.restart Rolling.
pub const RESTARTING: &str = "Restarting";
/// Condition: the spec can be carried out; False says what to change.
pub const ACCEPTED: &str = "Accepted";
/// Condition: a pod created now would be served.
pub const READY: &str = "Ready";
/// Condition: an older path still has users, or a new one is being made ready.
pub const SWITCHING: &str = "Switching";
/// Condition: injection is in force and no selected pod was missed.
pub const INJECTED: &str = "Injected";
