//! The receiving side without sockets, for fuzz targets and for tests with their own clock: connections are
//! any streams of bytes.

use std::sync::Arc;
use std::time::Duration;

use otlp_wire::Signal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::budget::Budget;
use crate::config::{Connections, Queue, ReceiverConfig};
use crate::encoding;
use crate::metrics::Metrics;
use crate::queue::Lane;
use crate::receive::{
    ConnectionTable, ReceiverRules, Route, ServerState, SharedState, connection_memory, serve,
};
use crate::worker::Worker;

/// An agent that accepts requests and keeps them.
pub struct Offline {
    server: Arc<ServerState>,
    lanes: Vec<Arc<Lane>>,
    stop: watch::Sender<bool>,
}

impl Offline {
    /// Accepts requests of at most `request` bytes, and holds at most `memory` bytes.
    pub fn new(request: usize, memory: usize) -> Self {
        let metrics = Arc::new(Metrics::default());
        let budget = Budget::new(memory, memory / 5, connection_memory(memory));
        let queue = Queue {
            capacity: memory,
            consumers: 1,
            flush_timeout: Duration::from_secs(1),
            min_size: memory,
            max_size: memory,
        };
        let lanes = Signal::ALL.map(|signal| Lane::new(signal, queue, Arc::clone(&metrics), None));
        let routes = lanes.iter().map(|lane| Route {
            lane: Arc::clone(lane),
            edits: Arc::default(),
            reserve: usize::MAX,
        });
        let config = ReceiverConfig {
            id: String::new(),
            listen: Vec::new(),
            max_grpc_message: request,
            max_http_body: request,
            max_concurrent_streams: 256,
            url_paths: Vec::new(),
            connections: Connections::default(),
            auth: None,
            cors: None,
        };
        let shared = SharedState {
            connections: ConnectionTable::new(1000, &budget),
            budget,
            metrics,
            worker: Worker::new("requests"),
            own_path: "".into(),
        };
        let rules = ReceiverRules::open(config);
        Self {
            server: ServerState::new(shared, routes.collect(), rules),
            lanes: lanes.to_vec(),
            stop: watch::Sender::new(false),
        }
    }

    /// Serves one connection to its end.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stop = self.stop.subscribe();
        let shared = &self.server.shared;
        let sender = shared.budget.senders.at(None);
        if let Some(slot) = shared.connections.enter(sender).await {
            serve(Box::new(stream), Arc::clone(&self.server), stop, slot).await;
        }
    }

    /// The bytes of memory in use.
    pub fn held(&self) -> usize {
        self.server.shared.budget.in_use()
    }

    /// The bytes of accepted requests.
    pub fn accepted_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.held_bytes()).sum()
    }

    /// The numbers of acknowledged and of queued items.
    pub fn items(&self) -> (u64, u64) {
        let metrics = &self.server.shared.metrics;
        let books = Signal::ALL.map(|signal| metrics.books(signal));
        let accepted = books.iter().map(|books| books.accepted).sum();
        (accepted, books.iter().map(|books| books.in_queue).sum())
    }
}

/// Decompresses a body like a request's to at most `limit` bytes, within `memory` bytes.
///
/// # Errors
/// A message for an unknown encoding or an invalid body.
pub fn decompress(
    encoding: &[u8],
    body: &[u8],
    limit: usize,
    memory: usize,
) -> Result<Vec<u8>, String> {
    let encoding = encoding::parse(Some(encoding)).ok_or("unknown encoding")?;
    let mut permit = Budget::new(memory, 0, 0).permit(None);
    encoding::decode(encoding, body, limit, &mut permit).map_err(|error| error.to_string())
}
