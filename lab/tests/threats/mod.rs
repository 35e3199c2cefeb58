//! What a tenant with every right in its own namespace, or a stolen agent, cannot do.
//!
//! `docs/security-evidence.md` lists the threats and the tests of each. This module holds those that need a
//! control plane:
//!
//! - [`tenants`]: a tenant that may do everything in its own namespace, `OtelAgent`s and their status
//!   included, against every other user of the cluster.
//! - [`quota`]: thousands of `OtelAgent`s of one tenant.
//! - [`rights`]: what the `ServiceAccount`s are granted is what they use, for the webhook.
//! - [`marks`]: workloads that claim to be restarted by the operator.
//! - [`network`]: the policies that are shipped and documented.
//!
//! The operator is the real controller, with the rights of the installed `ServiceAccount`, on a real control
//! plane without nodes. Tenants are users that the API server itself confines.

#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers take json!() as it comes; stories are long"
)]

pub(crate) mod bed;
mod marks;
mod network;
mod quota;
mod rights;
mod tenants;
