//! The otelagent operator's I/O. Decisions are in other crates.
//!
//! - [`controller`]: watches the cluster and executes what `otelagent-core` decides.
//! - `delivery`: asks agents whether they deliver.
//! - [`runtime`]: what a process needs besides: arguments, logs, metrics, probes, client, lease, shutdown.
//!
//! Decisions are in `crates/core`, the API in `crates/api`, the webhook in `crates/webhook`.

mod agent_metrics;
mod ca_upkeep;
mod cache;
pub mod controller;
mod delivery;
mod discovery;
mod restarts;
pub mod runtime;
