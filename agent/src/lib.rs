//! The otelagent agent: takes OTLP from applications, acknowledges once it is held, merges small
//! requests into large ones on the wire bytes, and forwards them.
//!
//! | room | purity | one sentence |
//! |---|---|---|
//! | [`config`] | pure | collector-style YAML to a typed configuration, or every problem in it |
//!
//! The agent knows nothing of Kubernetes: an orchestrator writes its file and reads its answers.

pub mod config;
pub mod scan;
