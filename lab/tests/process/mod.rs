//! The process around the controller, and what installs it, on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails is a test that fails"
)]

mod cluster;
mod lease;
mod manifests;
mod release;
