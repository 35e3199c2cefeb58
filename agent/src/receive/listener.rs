//! Listening sockets and the accept loop: connections are counted, errors slow it down instead of
//! making it spin, and a socket that leaves loses no connection. Must not know HTTP.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::{Door, connection, handover};
use crate::config::Address;
use crate::export::connect::resolve;
use crate::fold::Fold;

/// Connections the kernel keeps for us.
const BACKLOG: i32 = 1024;

/// Pause after an error such as "too many open files".
const PAUSE: Duration = Duration::from_millis(100);

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
}

impl ListenError {
    /// Stable word for logs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Bind { .. } => "bind",
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
    let socket = Socket::new(
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

/// Accepts and serves until it is told to end; then until every connection has ended.
pub(crate) async fn run(
    listener: TcpListener,
    door: Arc<Door>,
    places: Arc<Semaphore>,
    mut ending: Ending,
) {
    let port = Port {
        listener,
        door,
        places,
        leave: ending.leave.clone(),
        errors: Fold::default(),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = is_set(&mut ending.leave) => break,
            accepted = port.accept() => port.serve(accepted, &mut connections).await,
        }
        while connections.try_join_next().is_some() {}
    }
    let local = port.listener.local_addr();
    let mut late = JoinSet::new();
    if local.is_ok_and(handover::has_successor) {
        port.close(&mut connections).await;
        while connections.join_next().await.is_some() {}
        return;
    }
    let mut left = Some(ending.left);
    loop {
        if connections.is_empty() {
            left.take();
        }
        tokio::select! {
            biased;
            () = is_set(&mut ending.close) => break,
            Some(_) = connections.join_next() => {}
            accepted = port.accept() => port.serve(accepted, &mut late).await,
        }
        while late.try_join_next().is_some() {}
    }
    port.close(&mut late).await;
    while late.join_next().await.is_some() {}
    while connections.join_next().await.is_some() {}
}

async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await;
}

type Accepted = io::Result<(TcpStream, Option<OwnedSemaphorePermit>)>;

/// A listening socket and what its connections share.
struct Port {
    listener: TcpListener,
    door: Arc<Door>,
    places: Arc<Semaphore>,
    leave: watch::Receiver<bool>,
    errors: Fold,
}

impl Port {
    /// The next connection, as soon as there is a place for it.
    async fn accept(&self) -> Accepted {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, place))
    }

    async fn serve(&self, accepted: Accepted, connections: &mut JoinSet<()>) {
        match accepted {
            Ok((stream, place)) => self.spawn(stream, place, connections),
            Err(error) => {
                self.door.metrics().accept_failed();
                if let Some(left_out) = self.errors.due() {
                    warn!(%error, left_out, "cannot accept a connection");
                }
                sleep(PAUSE).await;
            }
        }
    }

    fn spawn(
        &self,
        stream: TcpStream,
        place: Option<OwnedSemaphorePermit>,
        connections: &mut JoinSet<()>,
    ) {
        // An error here means that the client has already gone.
        let _ = stream.set_nodelay(true);
        let open = self.door.metrics().connected();
        let served = connection::serve(stream, Arc::clone(&self.door), self.leave.clone());
        connections.spawn(async move {
            served.await;
            drop((place, open));
        });
    }

    /// Serves what the kernel has accepted, whatever the number of places, and closes the socket.
    async fn close(self, connections: &mut JoinSet<()>) {
        handover::turn_away(&self.listener);
        let until = Instant::now() + handover::SETTLE;
        while let Ok(accepted) = timeout_at(until, self.listener.accept()).await {
            match accepted {
                Ok((stream, _)) => self.spawn(stream, None, connections),
                Err(_) => sleep(PAUSE / 10).await,
            }
        }
    }
}
