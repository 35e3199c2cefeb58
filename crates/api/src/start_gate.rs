//! The start gate of workloads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Whether new pods wait for the agent of their node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartGate {
    /// None: pods start at once. Wait: a first init container, of the bundled agent's image, ends when the agent takes
    /// telemetry.
    #[serde(rename = "type")]
    pub kind: StartGateType,
    /// How long a pod waits at most; then it starts without an agent. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::start_timeout")]
    pub timeout: Option<String>,
}

/// What a start gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StartGateType {
    /// Nothing.
    None,
    /// Pods wait.
    Wait,
}
