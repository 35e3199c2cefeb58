//! The otelagent operator.
//!
//! Pure rooms take values and return values; they know no client, clock, randomness or log:
//! - [`names`]: every name given or read.
//! - [`api`]: what users write and read.
//! - [`authority`]: the webhook's own certificate authority over time.
//! - [`desired`]: what must exist for an `OtelAgent`.
//! - [`inject`]: pod and recipe to injected pod, and the same as admission policies.
//! - [`switching`]: which modes stand at a moment, and which serves.
//! - [`restart`]: which workloads are rolled, which wait, which are left alone.
//! - [`status`]: what is so, and which transitions are news.
//!
//! Shell rooms do I/O and hold no decisions:
//! - [`controller`]: watches the cluster and carries out what the pure rooms decide.
//! - [`webhook`]: answers the API server where the webhook engine is used.
//! - [`process`]: what a process needs around its work: arguments, logs, metrics, probes, lease, end.

pub mod api;
pub mod authority;
pub mod controller;
pub mod desired;
pub mod inject;
pub mod names;
pub mod process;
pub mod restart;
pub mod status;
pub mod switching;
pub mod webhook;
