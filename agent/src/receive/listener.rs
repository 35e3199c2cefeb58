//! Listening sockets and the accept loop: connections are counted, errors slow it down instead of
//! making it spin, TLS is spoken where configured, and a socket that leaves loses no connection. Must
//! not know HTTP.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

use super::places::Place;
use super::unix::UnixSocket;
use super::{Door, connection, handover};
use crate::config::{self, Address};
use crate::export::connect::resolve;
use crate::fold::Fold;
use crate::stream::Stream;
use crate::tls::{Acceptor, TlsError};

/// Connections the kernel keeps for us.
const BACKLOG: i32 = 1024;

/// What Linux answers where it was started without IPv6 (`errno.h`).
const EAFNOSUPPORT: i32 = 97;

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
        place: config::BindAddress,
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

/// When a listener and its connections are to end.
pub(crate) struct Ending {
    /// Connections end once their requests are answered. If another agent listens on the same address
    /// the socket leaves to it; if not, new connections are served still, one request each.
    pub(crate) leave: watch::Receiver<bool>,
    /// The socket closes.
    pub(crate) close: watch::Receiver<bool>,
    /// Dropped once every connection that was open when `leave` turned true has ended.
    pub(crate) left: mpsc::Sender<Infallible>,
}

/// Binds an address. With `reuse_port` two agents may hold the same port, so that one can follow the
/// other without a gap.
pub(crate) async fn bind(address: &Address, reuse_port: bool) -> Result<TcpListener, ListenError> {
    let socket_address = if address.host.is_empty() {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port))
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
    let bound = match listen(socket_address, reuse_port) {
        Err(error) if is_any_without_ipv6(socket_address, &error) => {
            let any = (Ipv4Addr::UNSPECIFIED, address.port).into();
            listen(any, reuse_port)
        }
        bound => bound,
    };
    bound.map_err(|source| ListenError::Bind {
        address: address.clone(),
        source,
    })
}

/// Whether the kernel knows no IPv6 at all.
fn is_any_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    address.ip() == Ipv6Addr::UNSPECIFIED && error.raw_os_error() == Some(EAFNOSUPPORT)
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
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // All addresses are meant, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
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
        configured: &config::ListenSocket,
        reuse_port: bool,
    ) -> Result<Self, ListenError> {
        let place = &configured.address;
        let acceptor = |tls| Acceptor::new(tls, &place.to_string());
        let tls = configured.tls.as_ref().map(acceptor).transpose();
        let tls = tls.map_err(|source| ListenError::Tls {
            place: place.clone(),
            source,
        })?;
        let socket = match place {
            config::BindAddress::Tcp(address) => Socket::Tcp(bind(address, reuse_port).await?),
            config::BindAddress::Unix(path) => {
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

    /// Accepts and serves until it is told to end; then until every connection has ended.
    pub(crate) async fn run(self, door: Arc<Door>, mut ending: Ending) {
        let port = Port {
            socket: self.socket,
            tls: self.tls.map(Arc::new),
            door,
            leave: ending.leave.clone(),
            errors: Fold::default(),
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = is_set(&mut ending.leave) => break,
                accepted = port.socket.accept() => port.serve(accepted, &mut connections).await,
            }
            while connections.try_join_next().is_some() {}
        }
        if port.socket.has_successor() {
            port.close(&mut connections).await;
            while connections.join_next().await.is_some() {}
            return;
        }
        let mut late = JoinSet::new();
        let mut left = Some(ending.left);
        loop {
            if connections.is_empty() {
                left.take();
            }
            tokio::select! {
                biased;
                () = is_set(&mut ending.close) => break,
                Some(_) = connections.join_next() => {}
                accepted = port.socket.accept() => port.serve(accepted, &mut late).await,
            }
            while late.try_join_next().is_some() {}
        }
        port.close(&mut late).await;
        while late.join_next().await.is_some() {}
        while connections.join_next().await.is_some() {}
    }
}

async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await;
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

    /// Whether another agent listens in the same place, so that new connections reach it.
    fn has_successor(&self) -> bool {
        match self {
            Self::Tcp(listener) => listener.local_addr().is_ok_and(handover::has_successor),
            Self::Unix(socket) => !socket.is_reached(),
        }
    }

    /// Keeps new connections from arriving.
    fn turn_away(&self) {
        match self {
            Self::Tcp(listener) => handover::turn_away(listener),
            Self::Unix(socket) => socket.turn_away(),
        }
    }
}

/// A listening socket and what its connections share.
struct Port {
    socket: Socket,
    tls: Option<Arc<Handshakes>>,
    door: Arc<Door>,
    leave: watch::Receiver<bool>,
    errors: Fold,
}

impl Port {
    async fn serve(&self, accepted: io::Result<Stream>, connections: &mut JoinSet<()>) {
        match accepted {
            Ok(stream) => self.spawn(stream, connections).await,
            Err(error) => {
                self.door.metrics().accept_failed();
                if let Some(left_out) = self.errors.due() {
                    warn!(%error, left_out, "cannot accept a connection");
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// Serves a connection as soon as there is a place for it.
    async fn spawn(&self, stream: Stream, connections: &mut JoinSet<()>) {
        let open = self.door.metrics().connected();
        let Some(place) = self.door.places().enter().await else {
            return;
        };
        let (door, leave) = (Arc::clone(&self.door), self.leave.clone());
        // Boxed, so that a task is no larger than what is served in it.
        let served: Pin<Box<dyn Future<Output = ()> + Send>> = match (stream, self.tls.clone()) {
            (Stream::Tcp(stream), Some(tls)) => {
                Box::pin(serve_tls(stream, tls, door, leave, place))
            }
            (stream, _) => Box::pin(connection::serve(stream, door, leave, place)),
        };
        connections.spawn(async move {
            served.await;
            drop(open);
        });
    }

    /// Serves what the kernel has accepted, and closes the socket.
    async fn close(self, connections: &mut JoinSet<()>) {
        self.socket.turn_away();
        let until = Instant::now() + handover::SETTLE;
        while let Ok(accepted) = timeout_at(until, self.socket.accept()).await {
            match accepted {
                Ok(stream) => self.spawn(stream, connections).await,
                Err(_) => sleep(PAUSE / 10).await,
            }
        }
    }
}

/// Shakes hands and serves, in a task of its own: nobody waits for another's handshake.
async fn serve_tls(
    stream: TcpStream,
    tls: Arc<Handshakes>,
    door: Arc<Door>,
    leave: watch::Receiver<bool>,
    place: Place,
) {
    let stream = tokio::select! {
        stream = tls.with(stream, &place, leave.clone()) => stream,
        _ = place.pulse.asked_to_leave() => None,
    };
    // Boxed, as the handshake is, so that a connection that says nothing costs little.
    match stream {
        Some(stream) => Box::pin(connection::serve(stream, door, leave, place)).await,
        None => door.metrics().handshake_failed(),
    }
}

impl Handshakes {
    /// `None` where the client cannot or may not; the log gets a line a minute of that.
    async fn with(
        &self,
        stream: TcpStream,
        place: &Place,
        mut stop: watch::Receiver<bool>,
    ) -> Option<Stream> {
        let peer = stream.peer_addr();
        let shaken = async {
            stream.peek(&mut [0]).await?;
            place.speak_tls().await;
            Box::pin(self.acceptor.accept(stream)).await
        };
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
            sleep(HANDSHAKE_WHILE_STOPPING).await;
        };
        let why = tokio::select! {
            result = timeout(HANDSHAKE, shaken) => match result {
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
