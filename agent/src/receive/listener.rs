//! Listening sockets and the accept loop: connections are counted, errors slow it down instead of
//! making it spin, and what the kernel has already accepted is served before the socket closes. Must
//! not know HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::places::{Place, Places};
use super::{Intake, connection};
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

/// Accepts and serves until `stop` turns true; then until every connection has ended.
pub(crate) async fn run(
    listener: TcpListener,
    intake: Arc<Intake>,
    places: Arc<Places>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let serve = |stream: TcpStream, stop: &watch::Receiver<bool>, place: Place| {
        // An error here means that the client has already gone.
        let _ = stream.set_nodelay(true);
        connection::serve(stream, Arc::clone(&intake), stop.clone(), place)
    };
    let stopped = stop.clone();
    let errors = Fold::default();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                intake.metrics.connected();
                if let Some(place) = places.enter().await {
                    connections.spawn(serve(stream, &stopped, place));
                }
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
    while let Ok(Ok((stream, _))) = timeout(Duration::from_millis(5), listener.accept()).await {
        intake.metrics.connected();
        if let Some(place) = places.enter().await {
            connections.spawn(serve(stream, &stopped, place));
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
