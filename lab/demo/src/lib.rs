//! What the demo and the cluster tests share: building images, installing, running applications, and
//! reading from the ledger what became of their telemetry.
//!
//! It acts on the cluster as a user does, through kubectl, and knows the operator only by its manifests,
//! its custom resource and the labels it documents.

pub mod account;
pub mod apps;
pub mod follow;
pub mod images;
pub mod ledger;
pub mod python;
pub mod report;
pub mod routes;
pub mod steps;
pub mod tally;
pub mod tour;
pub mod wait;

mod error;
mod kubectl;

pub use error::{Error, Result};
pub use kubectl::Kubectl;

use std::path::Path;

/// The repository this was built from.
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}
