//! TLS on both sides: credentials and handshakes.

mod advice;
mod client;
mod credentials;
mod named;
mod server;

pub(crate) use self::advice::{CLIENT_CERTIFICATE, advice, is_other_protocol};
pub(crate) use self::client::{Connector, client_hello};
pub(crate) use self::credentials::TlsError;
pub(crate) use self::server::Acceptor;
