//! Connections of every kind as one type, so that code for them is compiled only once.

use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection can do.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// TCP, a Unix socket, or TLS on TCP.
pub(crate) type Stream = Box<dyn Connection>;
