//! From the lanes to the upstreams: clients, retries, and what health reports about delivery.

mod backoff;
mod connect;
mod connection_end;
mod debug;
mod delivery;
mod destination;
mod error;
mod grpc;
mod headers;
mod http;
mod outcome;
mod sliced_body;
mod upstream;

pub(crate) use self::destination::Destination;
pub(crate) use self::error::ExportError;
pub(crate) use self::upstream::{Shared, Upstream};
