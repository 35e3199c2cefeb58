//! "Nobody let in": what somebody with every right in a namespace of their own, or a stolen agent, cannot do.
//!
//! `docs/security.md` is the table of threats; every test it names exists ([`document`]). Here is what no
//! other room proves:
//!
//! - [`tenants`]: one who may do everything in a namespace of its own, `OtelAgent`s and their status
//!   included, against whoever else is on the cluster.
//! - [`crowd`]: thousands of `OtelAgent`s of one tenant.
//! - [`rights`]: what the `ServiceAccount`s are granted is what they use, for the webhook; [`grants`]: what no
//!   manifest may grant.
//! - [`manifests`]: shipped and rendered pods, and the webhook's entries, by the checklist.
//! - [`network`]: the policies that are shipped and documented.
//! - [`code`]: what must be so of the code and its dependencies.
//!
//! The operator is the real controller, with the rights of the installed `ServiceAccount`, on a real control
//! plane without nodes. Tenants are users that the API server itself confines.

#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers take json!() as it comes; stories are long"
)]

mod bed;
mod network;
mod quota;
mod rights;
mod tenants;
