//! Connects to an upstream: resolves its name anew every time, tries its addresses one shortly after the other,
//! and performs the TLS handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::avoided::Avoided;
use super::race::race;
use super::tunnel::{self, TunnelError};
use crate::config::{Address, Exporter, Protocol, Proxy};
use crate::resolve::resolve;
use crate::stream::Stream;
use crate::tls::{Connector, TlsError};

/// The time limit of a proxy for its own connection.
const TUNNEL: Duration = Duration::from_secs(10);

/// The time limit of one address for its connection, and again for the TLS handshake.
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
    #[error("the name {0} has no address")]
    NoAddress(Address),
    #[error("connecting to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("TLS with {0}: {1}")]
    Tls(SocketAddr, io::Error),
    #[error("the proxy {0}, by {1}: {2}")]
    NoProxy(Address, &'static str, Box<Self>),
    #[error("the proxy {0}: {1}")]
    Tunnel(Address, TunnelError),
    #[error("connecting")]
    Http(#[source] hyper::Error),
    #[error("the connection was given up")]
    GivenUp,
}

/// Connects to one upstream.
pub(super) struct Dialer {
    /// Of the upstream.
    pub(super) address: Address,
    proxy: Option<Proxy>,
    /// Whether the proxy reads the requests and sends them on.
    pub(super) is_forwarded: bool,
    tls: Option<Connector>,
    max_age: Duration,
    avoided: Avoided,
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
            proxy: exporter.proxy.clone(),
            is_forwarded: is_forwarded(exporter),
            tls: exporter.tls.as_ref().map(connector).transpose()?,
            max_age,
            avoided: Avoided::default(),
        }))
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The time to replace a connection made now, spread by half, so that new replicas behind a name get
    /// connections.
    pub(super) fn expiry(&self) -> Instant {
        Instant::now() + self.max_age.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Nothing has come from this address: others are tried before it for a while.
    pub(super) fn avoid(&self, address: SocketAddr) {
        self.avoided.add(address);
    }

    /// Connects to any address of the host, in random order; the first connection counts.
    pub(super) async fn dial(self: &Arc<Self>) -> Result<(Stream, SocketAddr), ConnectError> {
        self.first(|address| {
            let dialer = Arc::clone(self);
            async move {
                let stream = dialer.connect(address).await;
                if stream.is_err() {
                    dialer.avoid(address);
                }
                Ok((stream?, address))
            }
        })
        .await
    }

    /// The same without TLS.
    pub(super) async fn dial_plain(self: &Arc<Self>) -> Result<TcpStream, ConnectError> {
        self.first(|address| {
            let dialer = Arc::clone(self);
            async move { dialer.tcp(address).await }
        })
        .await
    }

    async fn first<T, F>(&self, connect: impl Fn(SocketAddr) -> F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ConnectError>> + Send + 'static,
    {
        let next = self
            .proxy
            .as_ref()
            .map_or(&self.address, |proxy| &proxy.address);
        let first = async {
            let mut addresses = resolve(next)
                .await
                .map_err(|error| ConnectError::Resolve(next.clone(), error))?;
            fastrand::shuffle(&mut addresses);
            self.avoided.order(&mut addresses);
            let first = race(addresses, connect).await;
            first.unwrap_or_else(|| Err(ConnectError::NoAddress(next.clone())))
        };
        first.await.map_err(|error| match (&self.proxy, error) {
            (
                Some(proxy),
                error @ (ConnectError::Resolve(..)
                | ConnectError::NoAddress(_)
                | ConnectError::Connect(..)),
            ) => ConnectError::NoProxy(proxy.address.clone(), proxy.origin, Box::new(error)),
            (_, error) => error,
        })
    }

    async fn tcp(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let mut stream = tcp(address).await?;
        let Some(proxy) = self.proxy.as_ref().filter(|_| !self.is_forwarded) else {
            return Ok(stream);
        };
        let opened = timeout(TUNNEL, tunnel::open(&mut stream, &self.address, proxy)).await;
        let slow = |_| Err(TunnelError::slow(&self.address));
        let failed = |error| ConnectError::Tunnel(proxy.address.clone(), error);
        opened.unwrap_or_else(slow).map_err(failed)?;
        Ok(stream)
    }

    async fn connect(&self, address: SocketAddr) -> Result<Stream, ConnectError> {
        let stream = self.tcp(address).await?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let failed = |error| ConnectError::Tls(address, error);
        within(tls.connect(stream)).await.map_err(failed)
    }
}

/// As HTTP clients do it with a proxy for requests without TLS.
pub(super) fn is_forwarded(exporter: &Exporter) -> bool {
    exporter.proxy.is_some() && exporter.tls.is_none() && exporter.protocol == Protocol::Http
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let failed = |error| ConnectError::Connect(address, error);
    let stream = within(TcpStream::connect(address)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let keepalive = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY);
    // Without keepalive, the next attempt finds a dead connection.
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    Ok(stream)
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "it took too long");
    timeout(PER_ADDRESS, step).await.map_err(slow)?
}
