//! Listening sockets and the accept loop: connections are counted, errors slow it down instead of
//! making it spin, TLS is spoken where configured, and what the kernel has already accepted is served
//! before the socket closes. Must not know HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::unix::UnixSocket;
use super::{Intake, connection};
use crate::config::{self, Address, Place};
use crate::export::connect::resolve;
use crate::fold::Fold;
use crate::stream::Stream;
use crate::tls::{Acceptor, TlsError};

/// Connections the kernel keeps for us.
const BACKLOG: i32 = 1024;

/// Pause after an error such as "too many open files".
const PAUSE: Duration = Duration::from_millis(100);

/// A client has this long to prove what it must and to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The same while the agent stops.
const HANDSHAKE_WHILE_STOPPING: Duration = Duration::from_millis(500);

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The host has no address.
    #[error("{address} has no address")]
    Resolve {
        /// As configured.
        address: Address,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: Address,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The Unix socket cannot be made.
    #[error("cannot listen on the Unix socket {path}")]
    Unix {
        /// As configured.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Certificates cannot be used.
    #[error("TLS on {place}")]
    Tls {
        /// As configured.
        place: Place,
        /// What is wrong with them.
        #[source]
        source: TlsError,
    },
}

impl ListenError {
    /// Stable word for logs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Bind { .. } => "bind",
            Self::Unix { .. } => "unix_socket",
            Self::Tls { source, .. } => source.reason(),
        }
    }
}

/// Binds an address. With `reuse_port` two agents may hold the same port, so that one can follow the
/// other without a gap.
pub(crate) async fn bind(address: &Address, reuse_port: bool) -> Result<TcpListener, ListenError> {
    let socket_address = if address.host.is_empty() {
        SocketAddr::from(([0, 0, 0, 0], address.port))
    } else {
        let found = resolve(address).await.and_then(|found| {
            found
                .into_iter()
                .next()
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        });
        found.map_err(|source| ListenError::Resolve {
            address: address.clone(),
            source,
        })?
    };
    listen(socket_address, reuse_port).map_err(|source| ListenError::Bind {
        address: address.clone(),
        source,
    })
}

fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where OTLP arrives.
pub(crate) struct Listener {
    socket: Socket,
    tls: Option<Handshakes>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// TLS with whoever connects.
struct Handshakes {
    acceptor: Acceptor,
    failures: Fold,
}

impl Listener {
    /// Binds what is configured and reads its certificates.
    pub(crate) async fn bind(
        configured: &config::Listener,
        reuse_port: bool,
    ) -> Result<Self, ListenError> {
        let place = &configured.place;
        let acceptor = |tls| Acceptor::new(tls, &place.to_string());
        let tls = configured.tls.as_ref().map(acceptor).transpose();
        let tls = tls.map_err(|source| ListenError::Tls {
            place: place.clone(),
            source,
        })?;
        let socket = match place {
            Place::Tcp(address) => Socket::Tcp(bind(address, reuse_port).await?),
            Place::Unix(path) => {
                let socket = UnixSocket::bind(path);
                Socket::Unix(socket.map_err(|source| ListenError::Unix {
                    path: path.clone(),
                    source,
                })?)
            }
        };
        let tls = tls.map(|acceptor| Handshakes {
            acceptor,
            failures: Fold::default(),
        });
        Ok(Self { socket, tls })
    }

    /// Where it listens, which tells the port where 0 was configured.
    pub(crate) fn place(&self) -> String {
        match &self.socket {
            Socket::Tcp(listener) => listener
                .local_addr()
                .map(|address| address.to_string())
                .unwrap_or_default(),
            Socket::Unix(socket) => format!("unix:{}", socket.path().display()),
        }
    }

    /// Accepts and serves until `stop` turns true; then until every connection has ended.
    pub(crate) async fn run(
        self,
        intake: Arc<Intake>,
        places: Arc<Semaphore>,
        mut stop: watch::Receiver<bool>,
    ) {
        let Self { socket, tls } = self;
        let tls = tls.map(Arc::new);
        let mut connections = JoinSet::new();
        let serve = |stream: Stream, stop: &watch::Receiver<bool>| {
            intake.metrics.connected();
            serve(stream, tls.clone(), Arc::clone(&intake), stop.clone())
        };
        let stopped = stop.clone();
        let errors = Fold::default();
        loop {
            let place = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = socket.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok(stream) => {
                    let served = serve(stream, &stopped);
                    connections.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    if let Some(left_out) = errors.due() {
                        warn!(%error, left_out, "cannot accept a connection");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
        // What is in the backlog was connected as far as its client can tell.
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(5), socket.accept()).await {
            connections.spawn(serve(stream, &stopped));
        }
        drop(socket);
        while connections.join_next().await.is_some() {}
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // An error here means that the client has already gone.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}

/// One connection in a task of its own, handshake included: nobody waits for another's.
async fn serve(
    stream: Stream,
    tls: Option<Arc<Handshakes>>,
    intake: Arc<Intake>,
    stop: watch::Receiver<bool>,
) {
    let stream = match (stream, tls) {
        (Stream::Tcp(stream), Some(tls)) => {
            // Boxed, so that plain connections do not pay for its size.
            let handshake = Box::pin(tls.with(stream, stop.clone()));
            let Some(stream) = handshake.await else {
                intake.metrics.handshake_failed();
                return;
            };
            stream
        }
        (stream, _) => stream,
    };
    connection::serve(stream, intake, stop).await;
}

impl Handshakes {
    /// `None` where the client cannot or may not; the log gets a line a minute of that.
    async fn with(&self, stream: TcpStream, mut stop: watch::Receiver<bool>) -> Option<Stream> {
        let peer = stream.peer_addr();
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
            sleep(HANDSHAKE_WHILE_STOPPING).await;
        };
        let why = tokio::select! {
            result = timeout(HANDSHAKE, self.acceptor.accept(stream)) => match result {
                Ok(Ok(stream)) => return Some(Stream::Tls(Box::new(stream))),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "took too long".to_owned(),
            },
            () = stopped => return None,
        };
        if let Some(left_out) = self.failures.due() {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            warn!(peer, why, left_out, "TLS handshake failed");
        }
        None
    }
}
