//! Everything the agent promises, each promise a sentence.

// A test says what it does in its name; items are public to be shared between modules.
#![allow(missing_docs, unreachable_pub)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::panic)]

mod config;
mod conformance;
mod forward;
mod handover;
mod hostile;
mod json;
mod keep;
mod profiles;
mod receive;
mod refuse;
mod reload;
mod shutdown;
mod silence;
mod support;
mod surface;
mod tell;
mod tls;
mod unix;
mod upstream;

/// The program that is tested.
fn program() -> std::path::PathBuf {
    env!("CARGO_BIN_EXE_otelagent-agent").into()
}
