//! Answers as text and as documents, from clusters that are values; and the built program, with a server that refuses.

// Helpers of tests fail like tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bed;
mod check;
mod complete;
mod document;
mod explain;
mod program;
mod render;
mod status;
mod top;
