//! Listening sockets and the accept loop. Errors slow the loop down instead of making it spin, and a socket
//! that closes loses no connection.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

use super::connection_table::ConnectionSlot;
use super::port_claim::{self, ClaimError, PortClaim, PortOwner};
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
    #[error("{0} has no address")]
    Resolve(Address, #[source] io::Error),
    #[error("cannot listen on {0}")]
    Bind(Address, #[source] io::Error),
    #[error("cannot listen on {0}")]
    Claim(Address, #[source] ClaimError),
    #[error("cannot listen on the Unix socket {0}")]
    Unix(String, #[source] io::Error),
    #[error("TLS on {0}")]
    Tls(config::BindAddress, #[source] TlsError),
}

impl ListenError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Resolve(..) => "resolve",
            Self::Bind(..) => "bind",
            Self::Claim(..) => "port_owner",
            Self::Unix(..) => "unix_socket",
            Self::Tls(_, source) => source.reason(),
        }
    }
}

/// A bound TCP socket, and the claim that lets agents of the same owner share its port.
pub(crate) struct PortListener {
    listener: TcpListener,
    claim: Option<PortClaim>,
}

/// Binds an address. Agents of the same `owner` may share the port, so that one can replace the other without a
/// gap.
pub(crate) async fn bind(
    address: &Address,
    owner: Option<&PortOwner>,
) -> Result<PortListener, ListenError> {
    let socket_address = if address.host.is_empty() {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port))
    } else {
        let found = resolve(address).await.and_then(|found| {
            let none = io::Error::from(io::ErrorKind::NotFound);
            found.first().copied().ok_or(none)
        });
        found.map_err(|source| ListenError::Resolve(address.clone(), source))?
    };
    let bound = match socket(socket_address, owner) {
        Err(error) if is_any_without_ipv6(socket_address, &error) => {
            let any = (Ipv4Addr::UNSPECIFIED, address.port).into();
            socket(any, owner)
        }
        bound => bound,
    };
    let failed = |source| ListenError::Bind(address.clone(), source);
    let refused = |source| ListenError::Claim(address.clone(), source);
    let bound = bound.map_err(|source| {
        let is_in_use = source.kind() == io::ErrorKind::AddrInUse;
        let owner = owner.filter(|_| is_in_use);
        let holder = owner.and_then(|owner| port_claim::holder(owner, socket_address));
        holder.map_or_else(|| failed(source), refused)
    })?;
    let claim = owner.map(|owner| {
        let local = bound.local_addr().ok().and_then(|local| local.as_socket());
        PortClaim::new(owner, local.unwrap_or(socket_address), &bound)
    });
    let claim = claim.transpose().map_err(refused)?;
    bound.listen(BACKLOG).map_err(failed)?;
    let listener = TcpListener::from_std(bound.into()).map_err(failed)?;
    Ok(PortListener { listener, claim })
}

/// Whether the kernel lacks IPv6 altogether.
fn is_any_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    address.ip() == Ipv6Addr::UNSPECIFIED && error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// A bound socket that does not listen yet.
fn socket(address: SocketAddr, owner: Option<&PortOwner>) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if owner.is_some() {
        socket.set_reuse_port(true)?;
    }
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // Listens on IPv4 too, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl PortListener {
    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }

    /// The bound address, with the actual port for a configured 0.
    pub(crate) fn place(&self) -> String {
        let address = self.listener.local_addr();
        address.map_or_else(|_| String::new(), |address| address.to_string())
    }

    /// Whether another agent of the same owner listens on the same address and gets new connections.
    fn has_successor(&self) -> bool {
        let claim = self.claim.as_ref().zip(self.listener.local_addr().ok());
        claim.is_some_and(|(claim, address)| claim.has_successor(address))
    }
}

/// A bound socket for OTLP, and what its connections need.
pub(crate) struct OtlpListener {
    socket: Socket,
    tls: Option<Arc<Acceptor>>,
    server: Arc<ServerState>,
    leave: watch::Receiver<bool>,
    errors: LogThrottle,
}

enum Socket {
    Tcp(PortListener),
    Unix(UnixSocket),
}

/// A connection before its TLS handshake; there is none on a Unix socket.
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl OtlpListener {
    /// Binds the configured socket and reads its certificates.
    ///
    /// Once `leave` turns true, connections end when their requests are answered. If a successor listens on
    /// the same address, the socket closes too; otherwise it still serves new connections, one request each.
    pub(crate) async fn bind(
        configured: &config::ListenSocket,
        owner: Option<&PortOwner>,
        server: Arc<ServerState>,
        leave: watch::Receiver<bool>,
    ) -> Result<Self, ListenError> {
        let place = &configured.address;
        let acceptor = |tls| Acceptor::new(tls, &place.to_string());
        let tls = configured.tls.as_ref().map(acceptor).transpose();
        let tls = tls.map_err(|source| ListenError::Tls(place.clone(), source))?;
        let socket = match place {
            config::BindAddress::Tcp(address) => Socket::Tcp(bind(address, owner).await?),
            config::BindAddress::Unix(path) => {
                let failed = |source| ListenError::Unix(path.clone(), source);
                Socket::Unix(UnixSocket::bind(path).map_err(failed)?)
            }
        };
        Ok(Self {
            socket,
            tls: tls.map(Arc::new),
            server,
            leave,
            errors: LogThrottle::default(),
        })
    }

    /// The bound address.
    pub(crate) fn place(&self) -> String {
        match &self.socket {
            Socket::Tcp(listener) => listener.place(),
            Socket::Unix(socket) => format!("unix:{}", socket.path.display()),
        }
    }

    /// Accepts and serves until it is stopped and every connection has ended. `close` closes the socket; `left`
    /// is dropped after the end of every connection that was open when `leave` turned true.
    pub(crate) async fn run(
        self,
        mut close: watch::Receiver<bool>,
        left: mpsc::Sender<Infallible>,
    ) {
        let mut connections = JoinSet::new();
        // Those that were accepted after `leave` turned true.
        let mut late = JoinSet::new();
        let (mut leave, mut left) = (self.leave.clone(), Some(left));
        let mut is_leaving = false;
        loop {
            if is_leaving && connections.is_empty() {
                left.take();
            }
            tokio::select! {
                biased;
                () = is_set(&mut leave), if !is_leaving => {
                    is_leaving = true;
                    if self.socket.has_successor() {
                        break;
                    }
                }
                () = is_set(&mut close), if is_leaving => break,
                Some(_) = connections.join_next() => {}
                Some(_) = late.join_next() => {}
                accepted = self.socket.accept() => {
                    let open = if is_leaving { &mut late } else { &mut connections };
                    self.serve(accepted, open).await;
                }
            }
        }
        self.close(&mut late).await;
        while late.join_next().await.is_some() {}
        while connections.join_next().await.is_some() {}
    }

    async fn serve(&self, accepted: io::Result<Accepted>, connections: &mut JoinSet<()>) {
        match accepted {
            Ok(stream) => self.spawn(stream, connections).await,
            Err(error) => {
                self.server.shared.metrics.accept_errors.add(1);
                if let Some(left_out) = self.errors.due() {
                    warn!(%error, left_out, "cannot accept a connection");
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// Serves a connection as soon as it has a slot.
    async fn spawn(&self, stream: Accepted, connections: &mut JoinSet<()>) {
        let shared = &self.server.shared;
        let open = shared.metrics.connected();
        let peer = match &stream {
            Accepted::Tcp(_, peer) => Some(peer.ip()),
            Accepted::Unix(_) => None,
        };
        let sender = shared.budget.senders.at(peer);
        let Some(slot) = shared.connections.enter(sender).await else {
            return;
        };
        let (server, leave) = (Arc::clone(&self.server), self.leave.clone());
        // Boxed, so that a task is no larger than its own connection needs.
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = match (stream, self.tls.clone()) {
            (Accepted::Tcp(stream, _), Some(tls)) => {
                Box::pin(serve_tls(stream, tls, server, leave, slot))
            }
            (Accepted::Tcp(stream, _), None) => {
                Box::pin(connection::serve(Box::new(stream), server, leave, slot))
            }
            (Accepted::Unix(stream), _) => {
                Box::pin(connection::serve(Box::new(stream), server, leave, slot))
            }
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

async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await;
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Fails only if the client is gone.
                let _ = stream.set_nodelay(true);
                Ok(Accepted::Tcp(stream, peer))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok(Accepted::Unix(stream))
            }
        }
    }

    /// Whether a successor listens on the same address and gets new connections.
    fn has_successor(&self) -> bool {
        match self {
            Self::Tcp(port) => port.has_successor(),
            Self::Unix(socket) => !socket.is_reached(),
        }
    }

    /// Stops new connections from arriving.
    fn refuse_new_connections(&self) {
        match self {
            Self::Tcp(port) => handover::refuse_new_connections(&port.listener),
            Self::Unix(socket) => socket.refuse_new_connections(),
        }
    }
}

/// Performs the handshake in the connection's own task, so that no other connection waits for it.
async fn serve_tls(
    stream: TcpStream,
    tls: Arc<Acceptor>,
    server: Arc<ServerState>,
    leave: watch::Receiver<bool>,
    slot: ConnectionSlot,
) {
    let stream = tokio::select! {
        stream = shake_hands(stream, &tls, &slot, leave.clone()) => stream,
        _ = slot.state.asked_to_close() => None,
    };
    // Boxed like the handshake, so that a silent connection uses little memory.
    match stream {
        Some(stream) => Box::pin(connection::serve(stream, server, leave, slot)).await,
        None => server.shared.metrics.handshakes_failed.add(1),
    }
}

/// `None` if the handshake fails; logs at most one failure a minute.
async fn shake_hands(
    stream: TcpStream,
    tls: &Acceptor,
    slot: &ConnectionSlot,
    mut stop: watch::Receiver<bool>,
) -> Option<Stream> {
    let peer = stream.peer_addr();
    let shaken = async {
        stream.peek(&mut [0]).await?;
        slot.speak_tls().await;
        Box::pin(tls.accept(stream)).await
    };
    let stopped = async {
        is_set(&mut stop).await;
        sleep(HANDSHAKE_WHILE_STOPPING).await;
    };
    let why = tokio::select! {
        result = timeout(HANDSHAKE, shaken) => match result {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "took too long".to_owned(),
        },
        () = stopped => return None,
    };
    if let Some(left_out) = tls.failures.due() {
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        warn!(peer, why, left_out, "TLS handshake failed");
    }
    None
}
