//! From a lane to the upstream: encodes batches and sends them until they are delivered or counted as lost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use otlp_wire::{Signal, inspect, split_point};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::delivery::{Deliveries, Delivery};
use super::destination::Destination;
use super::error::ExportError;
use super::outcome::Outcome;
use crate::budget::{Budget, ExportPermit};
use crate::compress::{self, Compressor};
use crate::config::{Compression, Exporter};
use crate::lock::lock;
use crate::logging::LogThrottle;
use crate::metrics::{Lost, Metrics};
use crate::queue::{Batch, Lane};

/// One configured exporter.
pub(crate) struct Upstream {
    name: String,
    destination: Mutex<Arc<Destination>>,
    shared: Shared,
    deliveries: Deliveries,
    partial: LogThrottle,
    halves: LogThrottle,
    losses: LogThrottle,
}

/// What all exporters share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The memory budget.
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
    /// Batches use it in order of arrival.
    pub(crate) compressor: Arc<tokio::sync::Mutex<Compressor>>,
    /// The maximum age of connections to an upstream.
    pub(crate) connection_age: Duration,
}

/// A request ready to be sent, and the memory it holds.
struct Encoded {
    body: Vec<Bytes>,
    /// The size before compression.
    bytes: usize,
    #[expect(dead_code, reason = "held for its drop")]
    permit: Option<ExportPermit>,
}

impl Upstream {
    /// Prepares an exporter.
    pub(crate) fn new(exporter: &Exporter, shared: Shared) -> Result<Arc<Self>, ExportError> {
        Ok(Arc::new(Self {
            name: exporter.name(),
            destination: Mutex::new(Destination::new(exporter, shared.connection_age)?),
            shared,
            deliveries: Deliveries::new(&exporter.name()),
            partial: LogThrottle::default(),
            halves: LogThrottle::default(),
            losses: LogThrottle::default(),
        }))
    }

    fn destination(&self) -> Arc<Destination> {
        Arc::clone(&lock(&self.destination))
    }

    /// Replaces the destination of further attempts. Waiting attempts start at once, since the reason for
    /// their wait may be gone.
    pub(crate) fn change(&self, destination: Arc<Destination>) {
        *lock(&self.destination) = destination;
        self.deliveries.wake();
    }

    /// The component id, with the signal if the exporter carries only one.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether delivery works.
    pub(crate) fn delivery(&self) -> Delivery {
        self.deliveries.overall()
    }

    /// Makes waits between attempts short from now on.
    pub(crate) fn drain(&self) {
        self.deliveries.drain();
    }

    /// Sends the requests of a lane until it is closed and empty.
    pub(crate) async fn run(self: Arc<Self>, lane: Arc<Lane>) {
        let mut under_way = JoinSet::new();
        loop {
            while under_way.try_join_next().is_some() {}
            // While all consumers are busy, requests gather into larger batches.
            while under_way.len() >= self.destination().exporter.queue.consumers {
                under_way.join_next().await;
            }
            let Some(batch) = Batch::next(&lane).await else {
                break;
            };
            let (signal, items, bytes) = (batch.signal(), batch.items(), batch.bytes() as u64);
            self.shared.metrics.dispatched(signal, items, bytes);
            let upstream = Arc::clone(&self);
            under_way.spawn(async move { upstream.deliver(batch).await });
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Sends one batch until it is settled. A batch that is too large is sent in halves, and a single request
    /// in fragments.
    async fn deliver(&self, batch: Batch) {
        let mut waiting = vec![batch];
        while let Some(mut batch) = waiting.pop() {
            match self.attempts(batch.signal(), &batch.parts()).await {
                Ok(rejected) => batch.delivered(rejected),
                Err(Failed::TooLarge(why)) if batch.requests() > 1 => {
                    self.log_split(batch.bytes(), &why);
                    waiting.push(batch.split());
                    waiting.push(batch);
                }
                Err(Failed::TooLarge(why)) => self.deliver_fragments(batch, why).await,
                Err(failed) => {
                    let reason = self.log_loss(batch.signal(), batch.items(), &failed);
                    batch.lost(reason);
                }
            }
        }
    }

    /// Sends one request in fragments, cut between entries until the upstream accepts their size. A single
    /// entry that is too large is lost.
    async fn deliver_fragments(&self, mut batch: Batch, why: String) {
        let signal = batch.signal();
        let mut lengths = vec![batch.bytes()];
        let mut refused = Some(why);
        while let Some(length) = lengths.pop() {
            let fragment = batch.front(length);
            let result = match refused.take() {
                Some(why) => Err(Failed::TooLarge(why)),
                None => self.attempts(signal, std::slice::from_ref(&fragment)).await,
            };
            if let (Err(Failed::TooLarge(why)), Some(at)) = (&result, split_point(&fragment)) {
                self.log_split(length, why);
                lengths.push(length - at);
                lengths.push(at);
                continue;
            }
            // The receiver has checked it.
            let items = inspect(signal, &fragment).unwrap_or_default() as u64;
            let (reason, lost) = match result {
                Ok(rejected) => (Lost::Rejected, rejected),
                Err(failed) => (self.log_loss(signal, items, &failed), items),
            };
            batch.settle_front(length, items, reason, lost);
        }
    }

    fn log_split(&self, bytes: usize, why: &str) {
        if let Some(left_out) = self.halves.due() {
            info!(
                exporter = self.name(),
                reason = "too_large",
                bytes,
                why,
                left_out,
                "sending a batch in halves"
            );
        }
    }

    fn log_partial_success(&self, rejected: u64, upstream: &str) {
        if let Some(left_out) = self.partial.due() {
            warn!(
                exporter = self.name(),
                rejected, upstream, left_out, "partial success"
            );
        }
    }

    fn log_loss(&self, signal: Signal, items: u64, failed: &Failed) -> Lost {
        let (reason, why) = match failed {
            Failed::TooLarge(why) => (Lost::TooLarge, why),
            Failed::Permanent(why) => (Lost::Permanent, why),
            Failed::GivenUp(why) => (Lost::GivenUp, why),
        };
        if let Some(left_out) = self.losses.due() {
            error!(
                exporter = self.name(),
                signal = signal.name(),
                items,
                reason = reason.name(),
                why,
                left_out,
                "telemetry lost"
            );
        }
        reason
    }

    /// Tries until an answer is final; returns the number of rejected items.
    async fn attempts(&self, signal: Signal, parts: &[Bytes]) -> Result<u64, Failed> {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.destination().exporter.retry);
        let mut kept: Option<(Arc<Destination>, Encoded)> = None;
        loop {
            let destination = self.destination();
            let encoded = match kept.take() {
                Some((of, encoded)) if Arc::ptr_eq(&of, &destination) => encoded,
                _ => self.encode(&destination, parts).await?,
            };
            let (after, answered, why) = match self.attempt(&destination, signal, &encoded).await {
                Outcome::Delivered { rejected, message } => {
                    self.deliveries.succeeded(signal);
                    if rejected > 0 || !message.is_empty() {
                        self.log_partial_success(rejected, &message);
                    }
                    return Ok(rejected);
                }
                Outcome::TooLarge(why) => return Err(Failed::TooLarge(why)),
                Outcome::Permanent(why) => return Err(Failed::Permanent(why)),
                Outcome::Retry {
                    after,
                    answered,
                    why,
                } => (after, answered, why),
            };
            self.shared.metrics.attempt_failed();
            self.deliveries.failed(signal, &why);
            // If memory is short, compressing again later is cheaper.
            if !self.shared.budget.is_short() {
                kept = Some((destination, encoded));
            }
            let Some(wait) = backoff.next(started.elapsed(), after, fastrand::f64()) else {
                return Err(Failed::GivenUp(why));
            };
            self.deliveries.wait(signal, wait, answered).await;
        }
    }

    async fn encode(&self, destination: &Destination, parts: &[Bytes]) -> Result<Encoded, Failed> {
        let compression = destination.exporter.compression;
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        if compression == Compression::None {
            let (body, permit) = (parts.to_vec(), None);
            return Ok(Encoded {
                body,
                bytes,
                permit,
            });
        }
        let mut compressor = self.shared.compressor.lock().await;
        let needed = bytes + compress::context(compression);
        let mut permit = self.shared.budget.export(needed);
        let body = compressor
            .encode(compression, parts)
            .await
            .map_err(|error| Failed::Permanent(format!("compressing: {error}")))?;
        drop(compressor);
        permit.set(body.iter().map(Bytes::len).sum());
        Ok(Encoded {
            body,
            bytes,
            permit: Some(permit),
        })
    }

    async fn attempt(
        &self,
        destination: &Destination,
        signal: Signal,
        encoded: &Encoded,
    ) -> Outcome {
        let body = &encoded.body;
        self.shared.metrics.in_flight(signal, true);
        let outcome = destination.send(signal, body).await;
        self.shared.metrics.in_flight(signal, false);
        let wire: usize = body.iter().map(Bytes::len).sum();
        let plain = encoded.bytes as u64;
        self.shared.metrics.attempted(signal, plain, wire as u64);
        outcome
    }
}

/// Why a batch is not sent again as it is.
enum Failed {
    TooLarge(String),
    Permanent(String),
    GivenUp(String),
}
