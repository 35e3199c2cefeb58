//! From a lane to the upstream: every batch is encoded, sent, and sent again until it is delivered or
//! counted as lost. Must not know receivers or configuration files.

pub(crate) mod connect;
mod delivery;
mod ending;
mod grpc;
mod headers;
mod http;
pub(crate) mod retry;
mod rope;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use self::delivery::{Deliveries, Delivery};
use self::retry::{Backoff, Outcome};
use crate::budget::{Budget, Permit};
use crate::compress::{self, Compressor};
use crate::config::{Compression, Exporter, Protocol};
use crate::fold::Fold;
use crate::live::causes;
use crate::merge;
use crate::metrics::{Lost, Metrics};
use crate::queue::{Batch, Lane};
use crate::scan::{self, Signal};
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
}

/// One configured exporter.
pub(crate) struct Upstream {
    exporter: Exporter,
    client: Client,
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
    #[expect(dead_code, reason = "held for its drop")]
    permit: Option<Permit>,
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
    /// Prepares an exporter; nothing is connected before there is something to send.
    pub(crate) fn new(exporter: &Exporter, shared: Shared) -> Result<Arc<Self>, ExportError> {
        let age = shared.connection_age;
        let client = match exporter.protocol {
            Protocol::Grpc => Client::Grpc(grpc::Client::new(exporter, age)?),
            Protocol::Http => Client::Http(http::Client::new(exporter, age)?),
        };
        Ok(Arc::new(Self {
            exporter: exporter.clone(),
            client,
            shared,
            deliveries: Deliveries::new(&exporter.id),
            partial: Fold::default(),
            halves: Fold::default(),
            losses: Fold::default(),
        }))
    }

    /// The component id.
    pub(crate) fn id(&self) -> &str {
        &self.exporter.id
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
        let slots = Arc::new(Semaphore::new(self.exporter.queue.consumers));
        let mut under_way = JoinSet::new();
        // The slot comes first: while all are taken, requests gather into larger batches.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let Some(batch) = lane.next().await else {
                break;
            };
            while under_way.try_join_next().is_some() {}
            let upstream = Arc::clone(&self);
            under_way.spawn(async move {
                upstream.deliver(batch).await;
                drop(slot);
            });
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
            if let (Err(Failed::TooLarge(why)), Some(at)) = (&result, merge::middle(&piece)) {
                self.tell_halves(length, why);
                lengths.push(length - at);
                lengths.push(at);
                continue;
            }
            // It was inspected when it came.
            let items = scan::inspect(signal, &piece).unwrap_or_default() as u64;
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
                exporter = self.id(),
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
                exporter = self.id(),
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
                exporter = self.id(),
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
        let mut backoff = Backoff::new(self.exporter.retry);
        let mut kept = None;
        loop {
            let encoded = match kept.take() {
                Some(encoded) => encoded,
                None => self.encode(parts).await?,
            };
            let (after, answered, why) = match self.attempt(signal, &encoded.body).await {
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
                kept = Some(encoded);
            }
            let Some(wait) = backoff.next(started.elapsed(), after, fastrand::f64()) else {
                return Err(Failed::GivenUp(why));
            };
            self.deliveries.pause(signal, wait, answered).await;
        }
    }

    async fn encode(&self, parts: &[Bytes]) -> Result<Encoded, Failed> {
        let compression = self.exporter.compression;
        if compression == Compression::None {
            let (body, permit) = (parts.to_vec(), None);
            return Ok(Encoded { body, permit });
        }
        let turn = self.shared.compressor.turn().await;
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let needed = bytes + compress::context(compression);
        let permit = self.shared.budget.export(needed).await;
        let body = turn
            .encode(compression, parts)
            .await
            .map_err(|error| Failed::Permanent(format!("compressing: {error}")))?;
        let permit = permit.keep(body.iter().map(Bytes::len).sum());
        Ok(Encoded {
            body,
            permit: Some(permit),
        })
    }

    async fn attempt(&self, signal: Signal, body: &[Bytes]) -> Outcome {
        self.shared.metrics.in_flight(signal, true);
        let sent = async {
            match &self.client {
                Client::Grpc(client) => client.send(signal, body).await,
                Client::Http(client) => client.send(signal, body).await,
            }
        };
        let outcome = timeout(self.exporter.timeout, sent).await;
        self.shared.metrics.in_flight(signal, false);
        if let Ok(outcome) = outcome {
            return outcome;
        }
        // A peer that has vanished without a word keeps its connection open for a quarter of an hour.
        if let Client::Grpc(client) = &self.client {
            client.forget().await;
        }
        no_answer(format!("no answer within {:?}", self.exporter.timeout))
    }
}

/// Why a batch will not be sent again as it is.
enum Failed {
    TooLarge(String),
    Permanent(String),
    GivenUp(String),
}
