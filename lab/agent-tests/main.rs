//! The agent beside other people's programs.

// A test says what it does in its name; items are public to be shared between modules.
#![allow(missing_docs, unreachable_pub)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::panic)]

mod compatible;
mod h2spec;
#[path = "../../agent/tests/support/mod.rs"]
#[allow(dead_code, reason = "the agent's own tests use the rest")]
mod support;

/// The program that is tested.
fn program() -> std::path::PathBuf {
    demo::images::program("otelagent-agent").unwrap()
}
