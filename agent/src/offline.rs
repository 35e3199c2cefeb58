//! The receiving side without sockets: connections are any streams of bytes, and what they leave behind
//! can be asked for. For fuzz targets, and for tests whose clock is their own. Must decide nothing.

use std::sync::Arc;
use std::time::Duration;

use otlp_wire::{Edits, Signal};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::budget::Budget;
use crate::config::{Connections, Queue};
use crate::encoding::{self, Encoding};
use crate::metrics::Metrics;
use crate::queue::Lane;
use crate::receive::{Door, Intake, Limits, Places, Route, serve};

/// An agent that takes requests and keeps them.
pub struct Offline {
    door: Arc<Door>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    lanes: Vec<Arc<Lane>>,
    stop: watch::Sender<bool>,
}

impl Offline {
    /// Takes requests of at most `request` bytes, and may hold `memory` bytes.
    pub fn new(request: usize, memory: usize) -> Self {
        let metrics = Arc::new(Metrics::default());
        let budget = Budget::new(memory, memory / 5);
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
            edits: Edits::new(&[]),
        });
        let limits = Limits {
            grpc_message: request,
            http_body: request,
            concurrent_streams: 256,
            lifetimes: Connections::default(),
        };
        let intake = Intake::new(
            routes.collect(),
            Arc::clone(&budget),
            Places::new(1000, memory, Arc::clone(&budget)),
            Arc::clone(&metrics),
            limits,
            Vec::new(),
        );
        Self {
            door: Door::new(intake),
            budget,
            metrics,
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
        if let Some(place) = self.door.places().enter().await {
            serve(stream, Arc::clone(&self.door), stop, place).await;
        }
    }

    /// Bytes of memory that are accounted for.
    pub fn held(&self) -> usize {
        self.budget.in_use()
    }

    /// Bytes of requests that were taken.
    pub fn taken(&self) -> usize {
        self.lanes.iter().map(|lane| lane.held_bytes()).sum()
    }

    /// Items that were acknowledged, and items that are kept.
    pub fn items(&self) -> (u64, u64) {
        let books = Signal::ALL.map(|signal| self.metrics.books(signal));
        let accepted = books.iter().map(|books| books.accepted).sum();
        (accepted, books.iter().map(|books| books.in_queue).sum())
    }
}

/// Decompresses a body as a request's is, to at most `limit` bytes, with `memory` bytes for it.
///
/// # Errors
/// Why it cannot be, in words; unknown encodings among them.
pub fn decompress(
    encoding: &[u8],
    body: Vec<u8>,
    limit: usize,
    memory: usize,
) -> Result<Vec<u8>, String> {
    let encoding = Encoding::parse(Some(encoding)).ok_or("unknown encoding")?;
    let mut permit = Budget::new(memory, 0).permit();
    encoding::decode(encoding, body, limit, &mut permit).map_err(|error| error.to_string())
}
