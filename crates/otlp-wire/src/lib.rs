//! OTLP on its wire bytes: requests are checked, counted, edited, split and read from JSON without
//! being decoded into objects. The crate does no I/O and keeps no state.
//!
//! | module | what it does |
//! |---|---|
//! | [`inspect()`] | checks a request and counts its items |
//! | [`repair()`] | mends strings that are not UTF-8 |
//! | [`Edits`] | edits resource attributes in the bytes of a request |
//! | [`is_mergeable`] | tells whether a request may be merged with others |
//! | [`RequestPart`] | cuts a request between its items |
//! | [`json`] | turns OTLP/JSON into the bytes of OTLP/protobuf |
//! | [`frame`] | reads gRPC's frame around a message |
//! | [`status`] | reads and writes `google.rpc.Status` and the text of gRPC headers |
//!
//! Mergeable requests of one signal are merged by concatenating their bytes, since their only field is
//! repeated.

mod edit;
pub mod frame;
mod inspect;
pub mod json;
mod malformed;
mod messages;
mod repair;
mod schema;
mod signal;
mod split;
pub mod status;
mod wire;

pub use edit::{AttributeAction, AttributeEdit, AttributeValue, EditError, Edits};
pub use inspect::inspect;
pub use malformed::{MAX_DEPTH, Malformed};
pub use repair::repair;
pub use signal::Signal;
pub use split::{RequestPart, is_mergeable};
