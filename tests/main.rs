//! The operator's tests, one binary: `cargo test -p otelagent-operator pure::` and so on run a part.

mod cluster;
mod inject;
mod process;
mod pure;
