//! One function per fuzz target; it panics if an invariant is violated. Each compares with another reader of the
//! same bytes, or with the inverse operation.

mod connection;
mod requests;
mod segment;
mod text;
mod upstream;

pub use connection::connection;
pub use requests::{edits, framing, inflate, json, scan};
pub use segment::segment;
pub use text::{config, status};
pub use upstream::upstream;
