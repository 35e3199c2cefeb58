//! What unit tests and cluster tests share: fixtures, recipes, tables of pods, the shipped manifests.

// A helper that fails is a test that fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc
)]
#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers take json!() as it comes; tables are long"
)]

pub mod agents;
pub mod manifests;
mod pod_case;
pub mod pod_shapes;
pub mod pod_variants;
pub mod pods;
pub mod recipes;

use std::path::Path;

/// The repository.
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("tests/support is two folders deep")
}
