//! From the network into the lanes: connections, the two protocols, and what both do with a request.

mod answer;
mod connection;
mod connection_cost;
mod connection_state;
mod connection_table;
mod cors;
mod grpc;
mod handover;
mod http;
pub(crate) mod listener;
mod port_claim;
mod read_quota;
mod refusal;
mod request_body;
mod server;
mod token;
mod unix;

pub(crate) use self::answer::{Answer, response};
pub(crate) use self::connection::serve;
pub(crate) use self::connection_cost::connection_memory;
pub(crate) use self::connection_table::ConnectionTable;
pub(crate) use self::port_claim::PortOwner;
pub(crate) use self::server::{ReceiverRules, Route, ServerState, SharedState};
pub(crate) use self::token::TokenError;
