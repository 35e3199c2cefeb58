//! The otelagent operator's shells: they do the I/O, and decide nothing.
//!
//! - [`controller`]: watches the cluster and executes what `otelagent-core` decides.
//! - [`runtime`]: what a process needs around its work: arguments, logs, metrics, probes, client, lease, end.
//!
//! Decisions are in `crates/core`, the API in `crates/api`, the webhook in `crates/webhook`.

mod ca_upkeep;
mod cache;
pub mod controller;
mod discovery;
pub mod runtime;
