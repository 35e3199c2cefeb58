//! From the lanes to the upstreams. What is sent when is decided by the crate `otelagent-flow`; here is the I/O, and
//! what health reports about delivery.

mod acknowledged;
mod answer;
mod attempt;
mod avoided;
mod connect;
mod connection_end;
mod debug;
mod delivery;
mod destination;
mod diagnosis;
mod error;
mod fallback;
mod grpc;
mod headers;
mod http;
mod progress;
mod push;
mod race;
mod sender;
mod sliced_body;
mod tunnel;
mod upstream;

pub(crate) use self::acknowledged::acknowledges;
pub(crate) use self::destination::{Destination, MissingFiles};
pub(crate) use self::error::ExportError;
pub(crate) use self::push::Pushed;
pub(crate) use self::sender::send_lane;
pub(crate) use self::upstream::{Shared, Upstream};
