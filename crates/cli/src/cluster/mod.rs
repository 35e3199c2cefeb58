//! The cluster, with the user's own rights. Every request has a time limit, and names the right that is missing.

mod connect;
mod facts;
mod part;
mod request;
mod snapshot;
mod watch;

pub use connect::Cluster;
pub use facts::{facts, parts};
pub use request::{Kind, admission_kind};
pub use snapshot::{Reading, Wanted, bare, read, survey};
pub use watch::{Change, watch};
