//! Connects to an upstream: resolves its name anew every time, tries its addresses one shortly after the other,
//! and performs the TLS handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::race::race;
use crate::config::{Address, Exporter};
use crate::resolve::resolve;
use crate::stream::Stream;
use crate::tls::{Connector, TlsError};

/// The time limit for one address.
const PER_ADDRESS: Duration = Duration::from_secs(3);

/// TCP keepalive finds an idle connection dead before the next attempt needs it. HTTP/2 pings would not do:
/// gRPC servers punish those of idle clients (grpc-go's enforcement policy).
const PROBE_AFTER: Duration = Duration::from_mins(1);
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("resolving {0}: {1}")]
    Resolve(Address, io::Error),
    #[error("connecting: {0}")]
    Connect(io::Error),
    #[error("TLS with {0}: {1}")]
    Tls(SocketAddr, io::Error),
    #[error("connecting")]
    Http(#[source] hyper::Error),
}

/// Connects to one upstream.
pub(super) struct Dialer {
    address: Address,
    tls: Option<Connector>,
    max_age: Duration,
}

impl Dialer {
    /// Reads certificates; does not connect yet. `protocol` is announced in the TLS handshake.
    pub(super) fn new(
        exporter: &Exporter,
        protocol: &'static [u8],
        max_age: Duration,
    ) -> Result<Arc<Self>, TlsError> {
        let host = exporter.endpoint.host.as_str();
        let connector = |tls| Connector::new(tls, &exporter.id, host, protocol);
        Ok(Arc::new(Self {
            address: exporter.endpoint.clone(),
            tls: exporter.tls.as_ref().map(connector).transpose()?,
            max_age,
        }))
    }

    /// The time to replace a connection made now, spread by half, so that new replicas behind a name get
    /// connections.
    pub(super) fn expiry(&self) -> Instant {
        Instant::now() + self.max_age.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Connects to any address of the host, in random order; the first connection counts.
    pub(super) async fn dial(self: &Arc<Self>) -> Result<Stream, ConnectError> {
        let mut addresses = resolve(&self.address)
            .await
            .map_err(|error| ConnectError::Resolve(self.address.clone(), error))?;
        fastrand::shuffle(&mut addresses);
        let first = race(addresses, |address| Arc::clone(self).try_address(address)).await;
        first.unwrap_or_else(|| {
            let nowhere = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            Err(ConnectError::Connect(nowhere))
        })
    }

    async fn try_address(self: Arc<Self>, address: SocketAddr) -> Result<Stream, ConnectError> {
        let slow = || {
            let slow = io::Error::new(io::ErrorKind::TimedOut, format!("{address} took too long"));
            ConnectError::Connect(slow)
        };
        let connected = timeout(PER_ADDRESS, self.connect(address)).await;
        connected.unwrap_or_else(|_| Err(slow()))
    }

    async fn connect(&self, address: SocketAddr) -> Result<Stream, ConnectError> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(ConnectError::Connect)?;
        stream.set_nodelay(true).map_err(ConnectError::Connect)?;
        let keepalive = TcpKeepalive::new()
            .with_time(PROBE_AFTER)
            .with_interval(PROBE_EVERY);
        // Without keepalive, the next attempt finds a dead connection.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => tls
                .connect(stream)
                .await
                .map_err(|error| ConnectError::Tls(address, error)),
        }
    }
}
