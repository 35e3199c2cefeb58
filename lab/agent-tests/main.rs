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
mod zstd;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

/// The program that is tested.
fn program() -> std::path::PathBuf {
    demo::images::program("otelagent-agent").unwrap()
}

/// A loopback address that nobody else uses, so that who listens on it has all its ports.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low, ..] = std::process::id().to_le_bytes();
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, 1 + high % 254, low, last)
}
