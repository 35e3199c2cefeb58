//! Tests of the agent as a process, and of its configuration.

// A test says what it does in its name; items are public to be shared between modules.
#![allow(missing_docs, unreachable_pub)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::panic)]

mod config;
mod conformance;
mod durable;
mod forward;
mod handover;
mod hostile;
mod idle;
mod incidents;
mod ingress;
mod json;
mod memory;
mod observability;
mod profiles;
mod receive;
mod refuse;
mod reload;
mod shares;
mod shutdown;
mod support;
mod surface;
mod tls;
mod unix;
mod upstream;

/// The program under test.
fn program() -> std::path::PathBuf {
    env!("CARGO_BIN_EXE_otelagent-agent").into()
}
