//! The operator on API servers and nodes, one binary: `make test-lab TEST=inject::` and so on run a part.

// Helpers of tests fail like tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod circumstances;
mod cli;
mod client;
mod cluster;
mod helm;
mod inject;
mod observe;
mod outages;
mod overlay;
mod pods;
mod process;
mod random_edits;
mod servers;
mod simulated;
mod status_checker;
mod test_scale;
mod threats;
