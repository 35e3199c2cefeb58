//! Injection: the function's properties, and both engines on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers of tests may panic like tests and take json!() as it comes; tables are long"
)]

mod addresses;
mod ca;
pub(crate) mod callee;
mod contested;
mod engines;
mod equivalence;
mod files;
mod guard;
mod installed;
mod kyverno;
mod limits;
mod nulls;
mod older_crd;
mod others;
mod owner;
mod pod_shapes;
mod samples;
mod sdks;
mod selection;
mod server;
mod start_gate;
mod uninstalled;
mod warning;
