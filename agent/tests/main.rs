//! Tests of the agent as a process, and of its configuration.

// A test says what it does in its name; items are public to be shared between modules.
#![allow(missing_docs, unreachable_pub)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::panic)]

mod certificates;
mod clients;
mod config;
mod conformance;
mod cut;
mod dialing;
mod durable;
mod encodings;
mod failover;
mod forward;
mod handover;
mod hanging;
mod hostile;
mod idle;
mod incidents;
mod ingress;
mod json;
mod large;
mod memory;
mod metrics;
mod misdirected;
mod missing_files;
mod node_port;
mod observability;
mod profiles;
mod proxy;
mod push;
mod receive;
mod refuse;
mod reload;
mod resolver;
mod shares;
mod shutdown;
mod support;
mod surface;
mod tls;
mod unix;
mod upstream;
mod wait;

/// The program under test: the one that `OTELAGENT_AGENT` names, for instance as released, or that of this build.
fn program() -> std::path::PathBuf {
    let named = std::env::var_os("OTELAGENT_AGENT");
    named.map_or_else(|| env!("CARGO_BIN_EXE_otelagent-agent").into(), Into::into)
}
