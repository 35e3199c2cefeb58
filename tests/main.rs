//! What can be shown without a cluster: golden files, properties, the shipped manifests.

// Helpers of tests fail like tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documentation;
mod inject;
mod pure;
mod threats;
