//! Every decision of the operator, as functions of values.
//!
//! | module | decides |
//! |---|---|
//! | [`build`] | whether a spec is valid, and which objects each mode needs |
//! | [`inject`] | pod and recipe to injected pod, and the same as admission policies |
//! | [`delivery`] | which agents to ask whether they deliver, and what their answers say together |
//! | [`switching`] | which modes are kept, and which serves |
//! | [`restart`] | which workloads to restart, and when |
//! | [`node_addresses`] | of which family the addresses are that pods get of their nodes |
//! | [`owners`] | which workload a pod belongs to |
//! | [`pods`] | which pods are injected, current, stale, missed, uncovered |
//! | [`status`] | conditions, counts and events |
//! | [`advise`] | which mode to use in a cluster, and why |
//! | [`preview`] | what a changed spec will do, before it does |
//! | [`mode_option`], [`measured`] | the five topologies, and what switches between them lose |
//! | [`names`] | every name the operator gives or reads |
//! | [`support`] | what a support bundle holds, without secrets |
//! | [`quantity`] | how sizes, durations and numbers of nodes are read and printed |
//!
//! The crate depends on no runtime, no client, no clock and no log.

pub mod advise;
pub mod build;
pub mod delivery;
pub mod inject;
pub mod measured;
pub mod mode_option;
pub mod names;
pub mod node_addresses;
pub mod owners;
pub mod pods;
pub mod preview;
pub mod quantity;
pub mod reconcile;
pub mod restart;
pub mod status;
pub mod support;
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
