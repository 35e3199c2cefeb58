//! The Helm chart, by the real Helm; `tests/chart.rs` tests what needs none.
//!
//! - [`compare`]: it renders what `manifests` hold.
//! - [`values`]: wrong values are refused, and optional parts rendered.
//! - [`lifecycle`]: install, upgrade, rollback and uninstall on a control plane.
//! - [`nodes`]: Helm waits until a release runs on nodes.
//! - [`renamed`]: operator and webhook work under the names of any release.

mod bed;
mod compare;
mod lifecycle;
mod nodes;
mod program;
mod renamed;
mod values;
