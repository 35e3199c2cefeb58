//! The answer of `top`, as `-o json` and `-o yaml` show it. docs/cli.md describes the fields.

use clap::ValueEnum;
use serde::Serialize;

/// By what agents are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Items per second.
    #[default]
    Load,
    /// Items lost, then requests refused.
    Losses,
    /// How full their queues are.
    Queue,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopReport {
    /// Agents, in the order that is asked for; those that did not answer last.
    pub items: Vec<AgentLoad>,
    /// Who sends to them, those first that are refused most or of whom most is held.
    pub senders: Vec<SenderLoad>,
    /// Workloads by the telemetry of their sidecars.
    pub workloads: Vec<WorkloadLoad>,
    /// Over how many seconds rates are; absent if since the start of each agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// What is not shown.
    pub notes: Vec<String>,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentLoad {
    /// The namespace of its pod.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its `OtelAgent`, as `namespace.name`.
    pub agent: String,
    /// Why it did not answer, if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<String>,
    /// Items per second that it acknowledged.
    pub items_per_second: f64,
    /// Items that it acknowledged since its start.
    pub accepted: f64,
    /// Items that the upstream took since its start.
    pub sent: f64,
    /// Items that it lost since its start.
    pub lost: f64,
    /// Requests that it refused since its start.
    pub refused_requests: f64,
    /// Bytes that wait.
    pub queued_bytes: f64,
    /// Bytes that may wait.
    pub queue_capacity: f64,
    /// Processors that it uses.
    pub cpu: f64,
    /// Its resident memory, in bytes.
    pub resident_bytes: f64,
    /// Seconds since which nothing could be sent; 0 while the upstream takes what is sent.
    pub failing_seconds: f64,
}

/// Who sends to agents.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SenderLoad {
    /// Its address, or `local`.
    pub sender: String,
    /// Bytes that agents hold of it.
    pub held_bytes: f64,
    /// Its requests that agents refused for lack of room.
    pub refused_requests: f64,
}

/// The sidecars of one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadLoad {
    /// Its namespace.
    pub namespace: String,
    /// Kind and name.
    pub workload: String,
    /// How many sidecars answered.
    pub sidecars: usize,
    /// Items per second that they acknowledged.
    pub items_per_second: f64,
    /// Items that they lost.
    pub lost: f64,
}
