//! From a name to a connection that can be spoken on: resolved anew every time, every address tried,
//! TLS where configured. Must not know what is spoken on it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use crate::config::{Address, Exporter};
use crate::stream::Stream;
use crate::tls::{Connector, TlsError};

/// An address that does not answer may not use up the time of the others.
const PER_ADDRESS: Duration = Duration::from_secs(3);

/// An idle connection is probed below TCP's data after this, so that one whose peer has vanished is
/// found dead before it is needed. Pings of HTTP/2 would not do: gRPC servers punish those of idle
/// clients (grpc-go's enforcement policy), and busy ones have the limit of an attempt.
const PROBE_AFTER: Duration = Duration::from_mins(1);
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The name is unknown for now.
    #[error("resolving {0}: {1}")]
    Resolve(Address, io::Error),
    /// No address answers.
    #[error("connecting: {0}")]
    Connect(io::Error),
    /// Somebody answers, but the wrong one or in the wrong way.
    #[error("TLS with {0}: {1}")]
    Tls(SocketAddr, io::Error),
    /// The connection ends before anything is said on it.
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
    /// Reads certificates; connects to nobody yet. `protocol` is the one TLS announces.
    pub(super) fn new(
        exporter: &Exporter,
        protocol: &'static [u8],
        max_age: Duration,
    ) -> Result<Self, TlsError> {
        let host = exporter.endpoint.host.as_str();
        let connector = |tls| Connector::new(tls, &exporter.id, host, protocol);
        Ok(Self {
            address: exporter.endpoint.clone(),
            tls: exporter.tls.as_ref().map(connector).transpose()?,
            max_age,
        })
    }

    /// When a connection made now is to be replaced, spread by half: replicas that join behind one
    /// name get their share.
    pub(super) fn expiry(&self) -> Instant {
        Instant::now() + self.max_age.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Connects to any address of the host, beginning with a random one.
    pub(super) async fn dial(&self) -> Result<Stream, ConnectError> {
        let mut addresses = resolve(&self.address)
            .await
            .map_err(|error| ConnectError::Resolve(self.address.clone(), error))?;
        fastrand::shuffle(&mut addresses);
        let nowhere = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut last = ConnectError::Connect(nowhere);
        for address in addresses {
            match timeout(PER_ADDRESS, self.connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => {
                    let slow = io::Error::new(io::ErrorKind::TimedOut, "took too long");
                    last = ConnectError::Connect(slow);
                }
            }
        }
        Err(last)
    }

    async fn connect(&self, address: SocketAddr) -> Result<Stream, ConnectError> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(ConnectError::Connect)?;
        stream.set_nodelay(true).map_err(ConnectError::Connect)?;
        let keepalive = TcpKeepalive::new()
            .with_time(PROBE_AFTER)
            .with_interval(PROBE_EVERY);
        // Without probes a dead connection is found by the first attempt on it.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        match &self.tls {
            None => Ok(Stream::Tcp(stream)),
            Some(tls) => match tls.connect(stream).await {
                Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
                Err(error) => Err(ConnectError::Tls(address, error)),
            },
        }
    }
}

/// All addresses of a host. `localhost` needs no hosts file.
pub(crate) async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    match lookup_host((address.host.as_str(), address.port)).await {
        Ok(found) => Ok(found.collect()),
        Err(_) if address.host == "localhost" => {
            Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, address.port))])
        }
        Err(error) => Err(error),
    }
}
