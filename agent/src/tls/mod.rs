//! TLS on both sides: credentials and handshakes.

mod client;
mod credentials;
mod server;

pub(crate) use self::client::Connector;
pub(crate) use self::credentials::TlsError;
pub(crate) use self::server::Acceptor;
