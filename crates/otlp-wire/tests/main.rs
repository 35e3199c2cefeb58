//! Tests of the wire format against opentelemetry-proto, prost and `serde_json`.

// A test says what it does in its name; items are public to be shared between modules.
#![allow(missing_docs, unreachable_pub)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::panic)]

mod edits;
mod ids;
mod json;
mod merge;
mod repair;
mod split;
mod wire;
