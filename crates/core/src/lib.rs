//! Every decision of the operator, as functions of values.
//!
//! | module | decides |
//! |---|---|
//! | [`build`] | whether a spec is valid, and which objects each mode needs |
//! | [`inject`] | pod and recipe to injected pod, and the same as admission policies |
//! | [`explain`] | why a pod is injected or not, rule by rule, and what injection changes |
//! | [`delivery`] | which agents to ask whether they deliver, and what their answers say together |
//! | [`switching`] | which modes are kept, and which serves |
//! | [`restart`] | which workloads to restart, and when |
//! | [`owners`] | which workload a pod belongs to |
//! | [`pods`] | which pods are injected, current, stale, missed, uncovered |
//! | [`status`] | conditions, counts and events |
//! | [`names`] | every name the operator gives or reads |
//! | [`read`] | how pods, nodes, namespaces and `OtelAgent`s are decoded |
//! | [`quantity`] | how sizes, durations and numbers of nodes are read and printed |
//!
//! The crate depends on no runtime, no client, no clock and no log.

pub mod build;
pub mod delivery;
pub mod explain;
pub mod inject;
pub mod names;
pub mod owners;
pub mod pods;
pub mod quantity;
pub mod read;
pub mod reconcile;
pub mod restart;
pub mod status;
pub mod switching;

/// An error with its causes, in one line.
pub fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
