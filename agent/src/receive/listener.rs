//! Listening sockets and the accept loop. Errors slow the loop down instead of making it spin, and a socket
//! that closes loses no connection.

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

use super::connection_table::ConnectionSlot;
use super::server::ServerState;
use super::unix::UnixSocket;
use super::{connection, handover};
use crate::config::{self, Address};
use crate::logging::LogThrottle;
use crate::resolve::resolve;
use crate::stream::Stream;
use crate::tls::{Acceptor, TlsError};

/// The number of connections that wait in the kernel.
const BACKLOG: i32 = 1024;

/// The error of a Linux kernel without IPv6 (`errno.h`).
const EAFNOSUPPORT: i32 = 97;

/// The pause after an error such as "too many open files".
const PAUSE: Duration = Duration::from_millis(100);

/// The time limit for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The same during shutdown.
const HANDSHAKE_WHILE_STOPPING: Duration = Duration::from_millis(500);

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("{address} has no address")]
    Resolve {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on {address}")]
    Bind {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on the Unix socket {path}")]
    Unix {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("TLS on {place}")]
    Tls {
        place: config::Place,
        #[source]
        source: TlsError,
    },
}

impl ListenError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Bind { .. } => "bind",
            Self::Unix { .. } => "unix_socket",
            Self::Tls { source, .. } => source.reason(),
        }
    }
}

/// The signals that end a listener and its connections.
pub(crate) struct StopSignals {
    /// Connections end once their requests are answered. If another agent listens on the same address, the
    /// socket closes too; otherwise it still serves new connections, one request each.
    pub(crate) leave: watch::Receiver<bool>,
    /// The socket closes.
    pub(crate) close: watch::Receiver<bool>,
    /// Dropped after the end of every connection that was open when `leave` turned true.
    pub(crate) left: mpsc::Sender<Infallible>,
}

/// Binds an address. With `reuse_port` two agents may share the port, so that one can replace the other
/// without a gap.
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

/// Whether the kernel lacks IPv6 altogether.
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
        // Listens on IPv4 too, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A bound socket for OTLP.
pub(crate) struct OtlpListener {
    socket: Socket,
    tls: Option<Handshakes>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// TLS handshakes with clients.
struct Handshakes {
    acceptor: Acceptor,
    failures: LogThrottle,
}

impl OtlpListener {
    /// Binds the configured socket and reads its certificates.
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
            config::Place::Tcp(address) => Socket::Tcp(bind(address, reuse_port).await?),
            config::Place::Unix(path) => {
                let socket = UnixSocket::bind(path);
                Socket::Unix(socket.map_err(|source| ListenError::Unix {
                    path: path.clone(),
                    source,
                })?)
            }
        };
        let tls = tls.map(|acceptor| Handshakes {
            acceptor,
            failures: LogThrottle::default(),
        });
        Ok(Self { socket, tls })
    }

    /// The bound address, with the actual port for a configured 0.
    pub(crate) fn place(&self) -> String {
        match &self.socket {
            Socket::Tcp(listener) => listener
                .local_addr()
                .map(|address| address.to_string())
                .unwrap_or_default(),
            Socket::Unix(socket) => format!("unix:{}", socket.path().display()),
        }
    }

    /// Accepts and serves until it is stopped and every connection has ended.
    pub(crate) async fn run(self, server: Arc<ServerState>, mut ending: StopSignals) {
        let port = AcceptLoop {
            socket: self.socket,
            tls: self.tls.map(Arc::new),
            server,
            leave: ending.leave.clone(),
            errors: LogThrottle::default(),
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
                // Fails only if the client is gone.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok(Stream::Unix(stream))
            }
        }
    }

    /// Whether another agent listens on the same address and gets new connections.
    fn has_successor(&self) -> bool {
        match self {
            Self::Tcp(listener) => listener.local_addr().is_ok_and(handover::has_successor),
            Self::Unix(socket) => !socket.is_reached(),
        }
    }

    /// Stops new connections from arriving.
    fn refuse_new_connections(&self) {
        match self {
            Self::Tcp(listener) => handover::refuse_new_connections(listener),
            Self::Unix(socket) => socket.refuse_new_connections(),
        }
    }
}

/// A listening socket and what its connections need.
struct AcceptLoop {
    socket: Socket,
    tls: Option<Arc<Handshakes>>,
    server: Arc<ServerState>,
    leave: watch::Receiver<bool>,
    errors: LogThrottle,
}

impl AcceptLoop {
    async fn serve(&self, accepted: io::Result<Stream>, connections: &mut JoinSet<()>) {
        match accepted {
            Ok(stream) => self.spawn(stream, connections).await,
            Err(error) => {
                self.server.metrics().accept_failed();
                if let Some(left_out) = self.errors.due() {
                    warn!(%error, left_out, "cannot accept a connection");
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// Serves a connection as soon as it has a slot.
    async fn spawn(&self, stream: Stream, connections: &mut JoinSet<()>) {
        let open = self.server.metrics().connected();
        let Some(slot) = self.server.connections().enter().await else {
            return;
        };
        let (server, leave) = (Arc::clone(&self.server), self.leave.clone());
        // Boxed, so that a task is no larger than its own connection needs.
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = match (stream, self.tls.clone()) {
            (Stream::Tcp(stream), Some(tls)) => {
                Box::pin(serve_tls(stream, tls, server, leave, slot))
            }
            (stream, _) => Box::pin(connection::serve(stream, server, leave, slot)),
        };
        connections.spawn(async move {
            task.await;
            drop(open);
        });
    }

    /// Serves the connections that the kernel has accepted, and closes the socket.
    async fn close(self, connections: &mut JoinSet<()>) {
        self.socket.refuse_new_connections();
        let until = Instant::now() + handover::SETTLE;
        while let Ok(accepted) = timeout_at(until, self.socket.accept()).await {
            match accepted {
                Ok(stream) => self.spawn(stream, connections).await,
                Err(_) => sleep(PAUSE / 10).await,
            }
        }
    }
}

/// Performs the handshake in the connection's own task, so that no other connection waits for it.
async fn serve_tls(
    stream: TcpStream,
    tls: Arc<Handshakes>,
    server: Arc<ServerState>,
    leave: watch::Receiver<bool>,
    slot: ConnectionSlot,
) {
    let stream = tokio::select! {
        stream = tls.with(stream, &slot, leave.clone()) => stream,
        _ = slot.state.asked_to_close() => None,
    };
    // Boxed like the handshake, so that a silent connection uses little memory.
    match stream {
        Some(stream) => Box::pin(connection::serve(stream, server, leave, slot)).await,
        None => server.metrics().handshake_failed(),
    }
}

impl Handshakes {
    /// `None` if the handshake fails; logs at most one failure a minute.
    async fn with(
        &self,
        stream: TcpStream,
        slot: &ConnectionSlot,
        mut stop: watch::Receiver<bool>,
    ) -> Option<Stream> {
        let peer = stream.peer_addr();
        let shaken = async {
            stream.peek(&mut [0]).await?;
            slot.speak_tls().await;
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
