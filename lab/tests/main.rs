//! The operator on API servers and nodes, one binary: `cargo test -p lab-tests inject::` in `lab/` and so on run a part.

// Helpers of tests fail like tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod away;
mod cluster;
mod effort;
mod inject;
mod oracle;
mod process;
mod servers;
mod simulated;
mod threats;
mod walks;
mod way;
