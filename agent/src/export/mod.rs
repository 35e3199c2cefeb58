//! From a lane to the upstream: every batch is encoded, sent, and sent again until it is delivered or
//! counted as lost. Must not know receivers or configuration files.

pub(crate) mod connect;
mod debug;
mod delivery;
mod ending;
mod grpc;
mod headers;
mod http;
pub(crate) mod retry;
mod rope;

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use otlp_wire::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use self::delivery::{Deliveries, Delivery};
use self::retry::{Backoff, Outcome};
use crate::budget::{Budget, ExportPermit};
use crate::compress::{self, Compressor};
use crate::config::{Compression, Exporter, Protocol};
use crate::fold::Fold;
use crate::live::causes;
use crate::metrics::{Lost, Metrics};
use crate::queue::{Batch, Lane};
use crate::tls::TlsError;

/// `user-agent` of every request.
const AGENT: &str = concat!("otelagent-agent/", env!("CARGO_PKG_VERSION"));

/// What is read of an answer (OTLP specification: 4 MiB are enough for every answer).
const MAX_RESPONSE: usize = 4 * 1024 * 1024;

/// Why an exporter cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The endpoint is no authority a request can carry.
    #[error("the endpoint cannot be used in a request")]
    Endpoint(#[source] ::http::Error),
    /// A header's name or value cannot be sent.
    #[error("header {0} cannot be sent")]
    Header(String),
    /// A header's value can no longer be read.
    #[error("header {0}: {1}")]
    HeaderFile(String, String),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ExportError {
    /// Stable word for logs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Header(_) | Self::HeaderFile(..) => "header",
            Self::Tls(error) => error.reason(),
        }
    }
}

enum Client {
    Grpc(grpc::Client),
    Http(http::Client),
    Debug(debug::Client),
    Nop,
}

/// How batches are sent at present: a configuration, and the connections made for it.
pub(crate) struct Way {
    exporter: Exporter,
    client: Client,
}

impl Way {
    /// Prepares it; nothing is connected before there is something to send. Connections live for
    /// `age` at most.
    pub(crate) fn new(exporter: &Exporter, age: Duration) -> Result<Arc<Self>, ExportError> {
        let client = match exporter.protocol {
            Protocol::Grpc => Client::Grpc(grpc::Client::new(exporter, age)?),
            Protocol::Http => Client::Http(http::Client::new(exporter, age)?),
            Protocol::Debug => Client::Debug(debug::Client::new(&exporter.id)),
            Protocol::Nop => Client::Nop,
        };
        Ok(Arc::new(Self {
            exporter: exporter.clone(),
            client,
        }))
    }
}

/// One configured exporter.
pub(crate) struct Upstream {
    name: String,
    way: Mutex<Arc<Way>>,
    shared: Shared,
    deliveries: Deliveries,
    partial: Fold,
    halves: Fold,
    losses: Fold,
}

/// What all exporters have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Bytes that may be held.
    pub(crate) budget: Arc<Budget>,
    /// The books.
    pub(crate) metrics: Arc<Metrics>,
    /// What compresses.
    pub(crate) compressor: Arc<Compressor>,
    /// Connections to an upstream live this long at most.
    pub(crate) connection_age: Duration,
}

/// A request ready to be sent, and what its bytes cost.
struct Encoded {
    body: Vec<Bytes>,
    /// Before compression.
    bytes: usize,
    #[expect(dead_code, reason = "held for its drop")]
    permit: Option<ExportPermit>,
}

/// No answer at all.
fn retry_on(error: &dyn Error) -> Outcome {
    no_answer(causes(error))
}

fn no_answer(why: impl Into<String>) -> Outcome {
    Outcome::Retry {
        after: None,
        answered: false,
        why: why.into(),
    }
}

impl Upstream {
    /// Prepares an exporter.
    pub(crate) fn new(exporter: &Exporter, shared: Shared) -> Result<Arc<Self>, ExportError> {
        Ok(Arc::new(Self {
            name: exporter.name(),
            way: Mutex::new(Way::new(exporter, shared.connection_age)?),
            shared,
            deliveries: Deliveries::new(&exporter.name()),
            partial: Fold::default(),
            halves: Fold::default(),
            losses: Fold::default(),
        }))
    }

    fn way(&self) -> Arc<Way> {
        Arc::clone(&self.way.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on attempts go another way. Those under way end as they began; those that wait for
    /// their time are made at once, since what they waited for may be different now.
    pub(crate) fn change(&self, way: Arc<Way>) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
        self.deliveries.hurry();
    }

    /// The component id, and the signal where it carries only one.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether delivery works.
    pub(crate) fn delivery(&self) -> Delivery {
        self.deliveries.overall()
    }

    /// From now on waits between attempts are short, and those under way end.
    pub(crate) fn drain(&self) {
        self.deliveries.drain();
    }

    /// Sends what the lane holds until it is closed and empty.
    pub(crate) async fn run(self: Arc<Self>, lane: Arc<Lane>) {
        let mut under_way = JoinSet::new();
        loop {
            while under_way.try_join_next().is_some() {}
            // A free place comes first: while all are taken, requests gather into larger batches.
            while under_way.len() >= self.way().exporter.queue.consumers {
                under_way.join_next().await;
            }
            let Some(batch) = lane.next().await else {
                break;
            };
            let (signal, items, bytes) = (batch.signal(), batch.items(), batch.bytes() as u64);
            self.shared.metrics.dispatched(signal, items, bytes);
            let upstream = Arc::clone(&self);
            under_way.spawn(async move { upstream.deliver(batch).await });
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Sends one batch until it is settled; what is too large is sent in halves, and one request that
    /// is too large in pieces.
    async fn deliver(&self, batch: Batch) {
        let mut waiting = vec![batch];
        while let Some(mut batch) = waiting.pop() {
            match self.attempts(batch.signal(), &batch.parts()).await {
                Ok(rejected) => batch.delivered(rejected),
                Err(Failed::TooLarge(why)) if batch.requests() > 1 => {
                    self.tell_halves(batch.bytes(), &why);
                    waiting.push(batch.split());
                    waiting.push(batch);
                }
                Err(Failed::TooLarge(why)) => self.deliver_pieces(batch, why).await,
                Err(failed) => {
                    let reason = self.tell_loss(batch.signal(), batch.items(), &failed);
                    batch.lost(reason);
                }
            }
        }
    }

    /// Sends one request in pieces cut between its entries, beginning with the first, as small as the
    /// upstream makes them. An entry that is too large by itself is lost.
    async fn deliver_pieces(&self, mut batch: Batch, why: String) {
        let signal = batch.signal();
        let mut lengths = vec![batch.bytes()];
        let mut refused = Some(why);
        while let Some(length) = lengths.pop() {
            let piece = batch.front(length);
            let result = match refused.take() {
                Some(why) => Err(Failed::TooLarge(why)),
                None => self.attempts(signal, std::slice::from_ref(&piece)).await,
            };
            if let (Err(Failed::TooLarge(why)), Some(at)) =
                (&result, otlp_wire::split_point(&piece))
            {
                self.tell_halves(length, why);
                lengths.push(length - at);
                lengths.push(at);
                continue;
            }
            // It was inspected when it came.
            let items = otlp_wire::inspect(signal, &piece).unwrap_or_default() as u64;
            let (reason, lost) = match result {
                Ok(rejected) => (Lost::Rejected, rejected),
                Err(failed) => (self.tell_loss(signal, items, &failed), items),
            };
            batch.settle_front(length, items, reason, lost);
        }
    }

    fn tell_halves(&self, bytes: usize, why: &str) {
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

    fn tell_partial(&self, rejected: u64, upstream: &str) {
        if let Some(left_out) = self.partial.due() {
            warn!(
                exporter = self.name(),
                rejected, upstream, left_out, "partial success"
            );
        }
    }

    fn tell_loss(&self, signal: Signal, items: u64, failed: &Failed) -> Lost {
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
                reason = reason.reason(),
                why,
                left_out,
                "telemetry lost"
            );
        }
        reason
    }

    /// Attempts until one is answered for good; the answer is the number of rejected items.
    async fn attempts(&self, signal: Signal, parts: &[Bytes]) -> Result<u64, Failed> {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.way().exporter.retry);
        let mut kept: Option<(Arc<Way>, Encoded)> = None;
        loop {
            let way = self.way();
            let encoded = match kept.take() {
                Some((of, encoded)) if Arc::ptr_eq(&of, &way) => encoded,
                _ => self.encode(&way, parts).await?,
            };
            let (after, answered, why) = match self.attempt(&way, signal, &encoded).await {
                Outcome::Delivered { rejected, message } => {
                    self.deliveries.succeeded(signal);
                    if rejected > 0 || !message.is_empty() {
                        self.tell_partial(rejected, &message);
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
            // Where memory is short, to compress once more is the lesser evil.
            if !self.shared.budget.is_short() {
                kept = Some((way, encoded));
            }
            let Some(wait) = backoff.next(started.elapsed(), after, fastrand::f64()) else {
                return Err(Failed::GivenUp(why));
            };
            self.deliveries.pause(signal, wait, answered).await;
        }
    }

    async fn encode(&self, way: &Way, parts: &[Bytes]) -> Result<Encoded, Failed> {
        let compression = way.exporter.compression;
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        if compression == Compression::None {
            let (body, permit) = (parts.to_vec(), None);
            return Ok(Encoded {
                body,
                bytes,
                permit,
            });
        }
        let turn = self.shared.compressor.turn().await;
        let needed = bytes + compress::context(compression);
        let permit = self.shared.budget.export(needed).await;
        let body = turn
            .encode(compression, parts)
            .await
            .map_err(|error| Failed::Permanent(format!("compressing: {error}")))?;
        let permit = permit.keep(body.iter().map(Bytes::len).sum());
        Ok(Encoded {
            body,
            bytes,
            permit: Some(permit),
        })
    }

    async fn attempt(&self, way: &Way, signal: Signal, encoded: &Encoded) -> Outcome {
        let body = &encoded.body;
        self.shared.metrics.in_flight(signal, true);
        let sent = async {
            match &way.client {
                Client::Grpc(client) => client.send(signal, body).await,
                Client::Http(client) => client.send(signal, body).await,
                Client::Debug(client) => client.take(signal, body),
                Client::Nop => debug::nothing(),
            }
        };
        let outcome = timeout(way.exporter.timeout, sent).await;
        self.shared.metrics.in_flight(signal, false);
        let wire: usize = body.iter().map(Bytes::len).sum();
        let plain = encoded.bytes as u64;
        self.shared.metrics.attempted(signal, plain, wire as u64);
        if let Ok(outcome) = outcome {
            return outcome;
        }
        // A peer that has vanished without a word keeps its connection open for a quarter of an hour.
        if let Client::Grpc(client) = &way.client {
            client.forget().await;
        }
        no_answer(format!("no answer within {:?}", way.exporter.timeout))
    }
}

/// Why a batch will not be sent again as it is.
enum Failed {
    TooLarge(String),
    Permanent(String),
    GivenUp(String),
}
