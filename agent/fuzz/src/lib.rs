//! One function per fuzz target: bytes in, a panic where what must hold does not. Each compares with
//! somebody else's reading of the same bytes, or with its own the other way round.

mod connection;
mod requests;
mod segment;
mod text;

pub use connection::connection;
pub use requests::{edits, framing, inflate, json, scan};
pub use segment::segment;
pub use text::{config, status};
