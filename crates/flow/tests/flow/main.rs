//! Flows against simulated upstreams, on a virtual clock.

// A test says what it does in its name.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::unchecked_time_subtraction)]

mod answers;
mod failover;
mod incidents;
mod load;
mod properties;
mod sim;
