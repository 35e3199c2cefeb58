//! From a lane to the upstream: every batch is encoded, sent, and sent again until it is delivered or
//! counted as lost. Must not know receivers or configuration files.

pub(crate) mod connect;
mod grpc;
mod headers;
mod http;
pub(crate) mod retry;
mod rope;

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use self::retry::{Backoff, Outcome};
use crate::budget::Budget;
use crate::config::{Exporter, Protocol};
use crate::encoding;
use crate::fold::Fold;
use crate::live::causes;
use crate::metrics::{Lost, Metrics};
use crate::queue::{Batch, Lane};
use crate::tls::TlsError;

/// `user-agent` of every request.
const AGENT: &str = concat!("otelagent-agent/", env!("CARGO_PKG_VERSION"));

/// What is read of an answer (OTLP specification: 4 MiB are enough for every answer).
const MAX_RESPONSE: usize = 4 * 1024 * 1024;

/// Longest wait between attempts while the agent shuts down.
const DRAIN_WAIT: Duration = Duration::from_millis(500);

/// An upstream that stays away is mentioned this often.
const REMINDER: Duration = Duration::from_mins(1);

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
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    delivery: Mutex<Delivery>,
    /// An attempt has succeeded after others failed, or the agent shuts down: no need to wait longer.
    hurry: Notify,
    draining: AtomicBool,
    partial: Fold,
    losses: Fold,
}

/// Whether delivery works, as health tells it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivery {
    /// Since when every attempt has failed, and why the last one did.
    pub(crate) failing: Option<(Instant, String)>,
    /// When a batch was last taken.
    pub(crate) succeeded: Option<Instant>,
    attempts: u64,
    mentioned: Option<Instant>,
}

/// No answer at all.
fn retry_on(error: &dyn Error) -> Outcome {
    no_answer(causes(error))
}

fn no_answer(why: impl Into<String>) -> Outcome {
    Outcome::Retry {
        after: None,
        why: why.into(),
    }
}

impl Upstream {
    /// Prepares an exporter; nothing is connected before there is something to send. Connections live
    /// for `connection_age` at most.
    pub(crate) fn new(
        exporter: &Exporter,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
        connection_age: Duration,
    ) -> Result<Arc<Self>, ExportError> {
        let client = match exporter.protocol {
            Protocol::Grpc => Client::Grpc(grpc::Client::new(exporter, connection_age)?),
            Protocol::Http => Client::Http(http::Client::new(exporter, connection_age)?),
        };
        Ok(Arc::new(Self {
            exporter: exporter.clone(),
            client,
            budget,
            metrics,
            delivery: Mutex::default(),
            hurry: Notify::new(),
            draining: AtomicBool::new(false),
            partial: Fold::default(),
            losses: Fold::default(),
        }))
    }

    /// The component id.
    pub(crate) fn id(&self) -> &str {
        &self.exporter.id
    }

    /// Whether delivery works.
    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on waits between attempts are short, and those under way end.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.hurry.notify_waiters();
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

    /// Sends one batch until it is settled; what is too large is sent in halves.
    async fn deliver(&self, batch: Batch) {
        let mut waiting = vec![batch];
        while let Some(mut batch) = waiting.pop() {
            match self.attempts(&batch).await {
                Ok(rejected) => batch.delivered(rejected),
                Err(Failed::TooLarge(why)) if batch.requests() > 1 => {
                    info!(
                        reason = "too_large",
                        bytes = batch.bytes(),
                        why,
                        "sending a batch in halves"
                    );
                    waiting.push(batch.split());
                    waiting.push(batch);
                }
                Err(failed) => self.lose(batch, &failed),
            }
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

    fn lose(&self, batch: Batch, failed: &Failed) {
        let (reason, why) = match failed {
            Failed::TooLarge(why) => (Lost::TooLarge, why),
            Failed::Permanent(why) => (Lost::Permanent, why),
            Failed::GivenUp(why) => (Lost::GivenUp, why),
        };
        if let Some(left_out) = self.losses.due() {
            error!(
                exporter = self.id(),
                signal = batch.signal().name(),
                items = batch.items(),
                reason = reason.reason(),
                why,
                left_out,
                "telemetry lost"
            );
        }
        batch.lost(reason);
    }

    /// Attempts until one is answered for good; the answer is the number of rejected items.
    async fn attempts(&self, batch: &Batch) -> Result<u64, Failed> {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.exporter.retry);
        loop {
            let (after, why) = match self.attempt(batch).await {
                Outcome::Delivered { rejected, message } => {
                    self.succeeded();
                    if rejected > 0 || !message.is_empty() {
                        self.tell_partial(rejected, &message);
                    }
                    return Ok(rejected);
                }
                Outcome::TooLarge(why) => return Err(Failed::TooLarge(why)),
                Outcome::Permanent(why) => return Err(Failed::Permanent(why)),
                Outcome::Retry { after, why } => (after, why),
            };
            self.failed(&why);
            let Some(wait) = backoff.next(started.elapsed(), after, fastrand::f64()) else {
                return Err(Failed::GivenUp(why));
            };
            self.pause(wait, after.is_some()).await;
        }
    }

    async fn attempt(&self, batch: &Batch) -> Outcome {
        let mut permit = self.budget.export(batch.bytes()).await;
        let parts = batch.parts();
        let body = match encoding::encode(self.exporter.compression, &parts).await {
            Ok(body) => body,
            Err(error) => return Outcome::Permanent(format!("compressing: {error}")),
        };
        permit.set(match self.exporter.compression {
            crate::config::Compression::None => 0,
            _ => body.iter().map(bytes::Bytes::len).sum(),
        });
        self.metrics.in_flight(batch.signal(), true);
        let sent = async {
            match &self.client {
                Client::Grpc(client) => client.send(batch.signal(), &body).await,
                Client::Http(client) => client.send(batch.signal(), &body).await,
            }
        };
        let outcome = timeout(self.exporter.timeout, sent).await;
        self.metrics.in_flight(batch.signal(), false);
        if let Ok(outcome) = outcome {
            return outcome;
        }
        // A peer that has vanished without a word keeps its connection open for a quarter of an hour.
        if let Client::Grpc(client) = &self.client {
            client.forget().await;
        }
        no_answer(format!("no answer within {:?}", self.exporter.timeout))
    }

    /// Waits before the next attempt; where the upstream named a time, nothing but a shutdown cuts it.
    async fn pause(&self, wait: Duration, asked: bool) {
        let hurry = self.hurry.notified();
        if self.draining.load(Ordering::Relaxed) {
            tokio::time::sleep(wait.min(DRAIN_WAIT)).await;
            return;
        }
        let until = Instant::now() + wait;
        let _ = tokio::time::timeout_at(until, hurry).await;
        if asked && !self.draining.load(Ordering::Relaxed) {
            tokio::time::sleep_until(until).await;
        }
    }

    fn succeeded(&self) {
        let mut delivery = self.delivery.lock().unwrap_or_else(PoisonError::into_inner);
        delivery.succeeded = Some(Instant::now());
        let Some((since, _)) = delivery.failing.take() else {
            return;
        };
        let attempts = std::mem::take(&mut delivery.attempts);
        delivery.mentioned = None;
        drop(delivery);
        info!(
            exporter = self.id(),
            failed_attempts = attempts,
            seconds = since.elapsed().as_secs(),
            "delivery works again"
        );
        self.hurry.notify_waiters();
    }

    /// Remembers a failure; the log gets the first of a row and then one line a minute.
    fn failed(&self, why: &str) {
        self.metrics.attempt_failed();
        let mut delivery = self.delivery.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = delivery.failing.as_ref().map_or(now, |(since, _)| *since);
        delivery.failing = Some((since, why.to_owned()));
        delivery.attempts += 1;
        let attempts = delivery.attempts;
        let due = delivery
            .mentioned
            .is_none_or(|last| now.duration_since(last) >= REMINDER);
        if due {
            delivery.mentioned = Some(now);
        }
        drop(delivery);
        if due {
            warn!(
                exporter = self.id(),
                failed_attempts = attempts,
                seconds = since.elapsed().as_secs(),
                why,
                "delivery fails; telemetry is kept and sent again"
            );
        }
    }
}

/// Why a batch will not be sent again as it is.
enum Failed {
    TooLarge(String),
    Permanent(String),
    GivenUp(String),
}
