//! Tests that need no cluster: golden files, properties, the shipped manifests.

// Helpers of tests fail like tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod book;
mod chart;
mod documentation;
mod inject;
mod observability;
mod pure;
mod threats;
