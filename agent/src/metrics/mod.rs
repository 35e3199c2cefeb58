//! Counters of what happens to telemetry, and their Prometheus text under the collector's names. The
//! books balance at all times: accepted + recovered = delivered + in queue + lost by reason. Must not
//! know how telemetry is received or sent.

mod process;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use otlp_wire::Signal;

pub(crate) use self::text::{Labels, PipelineLabels};

/// The transport a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
}

impl Transport {
    const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its bytes are no OTLP request.
    Malformed,
    /// It is larger than the limit.
    TooLarge,
    /// The queue of its signal is full.
    QueueFull,
    /// The memory limit is reached.
    Memory,
    /// No such path, signal, encoding or method.
    Unsupported,
    /// The client went away or was too slow.
    Aborted,
    /// The agent ends.
    ShuttingDown,
}

/// Why acknowledged telemetry was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The upstream said that it will never take it.
    Permanent,
    /// The upstream took the request and rejected some of its items.
    Rejected,
    /// A single request is larger than the upstream takes.
    TooLarge,
    /// `max_elapsed_time` ran out, or retrying is switched off.
    GivenUp,
    /// The grace period of a shutdown ran out.
    Shutdown,
    /// It was on disk only, and is damaged or gone there.
    Storage,
}

impl Refused {
    const ALL: [Self; 7] = [
        Self::Malformed,
        Self::TooLarge,
        Self::QueueFull,
        Self::Memory,
        Self::Unsupported,
        Self::Aborted,
        Self::ShuttingDown,
    ];

    /// The value of the `reason` label.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
            Self::Memory => "memory_limit",
            Self::Unsupported => "unsupported",
            Self::Aborted => "aborted",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

impl Lost {
    const ALL: [Self; 6] = [
        Self::Permanent,
        Self::Rejected,
        Self::TooLarge,
        Self::GivenUp,
        Self::Shutdown,
        Self::Storage,
    ];

    /// The value of the `reason` label.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::GivenUp => "given_up",
            Self::Shutdown => "shutdown",
            Self::Storage => "storage",
        }
    }
}

/// What became of a look at the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// It is in use now.
    Applied,
    /// It means what is in use already.
    Unchanged,
    /// It has problems, or needs a restart.
    Refused,
}

impl Reload {
    const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    fn result(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

#[derive(Debug, Default)]
struct SignalCounts {
    accepted: [AtomicU64; 2],
    refused_items: [AtomicU64; 2],
    sent: AtomicU64,
    lost: [AtomicU64; 6],
    recovered: AtomicU64,
    damaged_records: AtomicU64,
    damaged_bytes: AtomicU64,
    leftover_bytes: AtomicU64,
    /// 0: no storage is configured, 1: it works, 2: it fails.
    storage: AtomicU64,
    enqueue_failed: AtomicU64,
    memory_refused: AtomicU64,
    queue_items: AtomicU64,
    queue_bytes: AtomicU64,
    in_flight: AtomicU64,
    batch_items: Histogram<22>,
    batch_bytes: Histogram<10>,
    /// Sizes of all attempts, before and after compression.
    plain_bytes: AtomicU64,
    wire_bytes: AtomicU64,
}

/// How often values were no larger than each bound; the last count is of those above all.
#[derive(Debug)]
struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    above: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    fn record(&self, bounds: &[u64; N], value: u64) {
        let fitting = bounds.iter().position(|bound| value <= *bound);
        let counter = fitting.and_then(|at| self.counts.get(at));
        add(counter.unwrap_or(&self.above), 1);
        add(&self.sum, value);
    }
}

/// Every counter of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    started: Instant,
    signals: [SignalCounts; Signal::COUNT],
    requests_taken: [AtomicU64; 2],
    requests_refused: [[AtomicU64; 7]; 2],
    attempts_failed: AtomicU64,
    connections: AtomicU64,
    connections_open: AtomicU64,
    accept_errors: AtomicU64,
    handshakes_failed: AtomicU64,
    reloads: [AtomicU64; 3],
    /// Seconds since 1970 at which the configuration in use was read, and its fingerprint.
    configured: [AtomicU64; 2],
}

/// What a signal's books say, in items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Books {
    /// Acknowledged to clients.
    pub(crate) accepted: u64,
    /// Taken over from an earlier process.
    pub(crate) recovered: u64,
    /// Acknowledged by the upstream.
    pub(crate) delivered: u64,
    /// Held now.
    pub(crate) in_queue: u64,
    /// Gone, all reasons together.
    pub(crate) lost: u64,
}

impl Books {
    /// What is unaccounted for: 0, or the agent has a defect.
    pub(crate) fn imbalance(&self) -> i128 {
        i128::from(self.accepted) + i128::from(self.recovered)
            - i128::from(self.delivered)
            - i128::from(self.in_queue)
            - i128::from(self.lost)
    }
}

/// An open client connection.
#[derive(Debug)]
pub(crate) struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            signals: Default::default(),
            requests_taken: Default::default(),
            requests_refused: Default::default(),
            attempts_failed: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            reloads: Default::default(),
            configured: Default::default(),
        }
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "every index is an enum's own position"
)]
impl Metrics {
    fn of(&self, signal: Signal) -> &SignalCounts {
        &self.signals[signal.index()]
    }

    /// Items are held from now on and will be acknowledged.
    pub(crate) fn accepted(
        &self,
        signal: Signal,
        transport: Transport,
        items: usize,
        bytes: usize,
    ) {
        let counts = self.of(signal);
        add(&self.requests_taken[transport as usize], 1);
        add(&counts.accepted[transport as usize], items as u64);
        add(&counts.queue_items, items as u64);
        add(&counts.queue_bytes, bytes as u64);
    }

    /// A request without items was answered.
    pub(crate) fn empty(&self, transport: Transport) {
        add(&self.requests_taken[transport as usize], 1);
    }

    /// A request was refused; `items` as far as they are known.
    pub(crate) fn refused(
        &self,
        signal: Option<Signal>,
        transport: Transport,
        reason: Refused,
        items: usize,
    ) {
        add(
            &self.requests_refused[transport as usize][reason as usize],
            1,
        );
        if let Some(signal) = signal {
            let counts = self.of(signal);
            add(&counts.refused_items[transport as usize], items as u64);
            match reason {
                Refused::QueueFull => add(&counts.enqueue_failed, items as u64),
                Refused::Memory => add(&counts.memory_refused, items as u64),
                _ => {}
            }
        }
    }

    /// The upstream has taken items.
    pub(crate) fn delivered(&self, signal: Signal, items: u64) {
        add(&self.of(signal).sent, items);
    }

    /// Acknowledged items are gone.
    pub(crate) fn lost(&self, signal: Signal, reason: Lost, items: u64) {
        add(&self.of(signal).lost[reason as usize], items);
    }

    /// Items are no longer held; their delivery or loss has been counted.
    pub(crate) fn released(&self, signal: Signal, items: u64, bytes: u64) {
        let counts = self.of(signal);
        counts.queue_items.fetch_sub(items, Ordering::Relaxed);
        counts.queue_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Items an earlier process has acknowledged are held from now on.
    pub(crate) fn recovered(&self, signal: Signal, items: u64, bytes: u64) {
        let counts = self.of(signal);
        add(&counts.recovered, items);
        add(&counts.queue_items, items);
        add(&counts.queue_bytes, bytes);
    }

    /// Damage was found on disk.
    pub(crate) fn damaged(&self, signal: Signal, records: u64, bytes: u64) {
        let counts = self.of(signal);
        add(&counts.damaged_records, records);
        add(&counts.damaged_bytes, bytes);
    }

    /// Bytes of earlier processes that are on disk and not looked into yet.
    pub(crate) fn leftover(&self, signal: Signal, bytes: u64) {
        let counts = self.of(signal);
        counts.leftover_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether the queue that should be on disk is.
    pub(crate) fn storage(&self, signal: Signal, works: bool) {
        let state = if works { 1 } else { 2 };
        self.of(signal).storage.store(state, Ordering::Relaxed);
    }

    /// An attempt to send failed and will be made again.
    pub(crate) fn attempt_failed(&self) {
        add(&self.attempts_failed, 1);
    }

    /// A request to the upstream begins or has ended.
    pub(crate) fn in_flight(&self, signal: Signal, begins: bool) {
        let counter = &self.of(signal).in_flight;
        if begins {
            counter.fetch_add(1, Ordering::Relaxed);
        } else {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A batch leaves its lane.
    pub(crate) fn dispatched(&self, signal: Signal, items: u64, bytes: u64) {
        let counts = self.of(signal);
        counts.batch_items.record(&text::ITEM_BOUNDS, items);
        counts.batch_bytes.record(&text::BYTE_BOUNDS, bytes);
    }

    /// An attempt to send was made, whatever its outcome; sizes before and after compression.
    pub(crate) fn attempted(&self, signal: Signal, plain: u64, wire: u64) {
        let counts = self.of(signal);
        add(&counts.plain_bytes, plain);
        add(&counts.wire_bytes, wire);
    }

    /// A client connection was accepted; it is open until what is returned is dropped.
    pub(crate) fn connected(self: &Arc<Self>) -> Open {
        add(&self.connections, 1);
        add(&self.connections_open, 1);
        Open(Arc::clone(self))
    }

    /// A connection could not be accepted.
    pub(crate) fn accept_failed(&self) {
        add(&self.accept_errors, 1);
    }

    /// A client connection ended before TLS was agreed on.
    pub(crate) fn handshake_failed(&self) {
        add(&self.handshakes_failed, 1);
    }

    /// The configuration file was looked at.
    pub(crate) fn reloaded(&self, result: Reload) {
        add(&self.reloads[result as usize], 1);
    }

    /// A configuration with this fingerprint is in use from now on.
    pub(crate) fn configured(&self, fingerprint: u64) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.configured[0].store(now.as_secs(), Ordering::Relaxed);
        self.configured[1].store(fingerprint, Ordering::Relaxed);
    }

    /// The books of one signal.
    pub(crate) fn books(&self, signal: Signal) -> Books {
        let counts = self.of(signal);
        Books {
            accepted: counts.accepted.iter().map(get).sum(),
            recovered: get(&counts.recovered),
            delivered: get(&counts.sent),
            in_queue: get(&counts.queue_items),
            lost: counts.lost.iter().map(get).sum(),
        }
    }

    /// Items lost by reason, all signals; reasons without losses left out.
    pub(crate) fn losses(&self) -> Vec<(Signal, &'static str, u64)> {
        let mut losses = Vec::new();
        for signal in Signal::ALL {
            for reason in Lost::ALL {
                let items = get(&self.of(signal).lost[reason as usize]);
                if items > 0 {
                    losses.push((signal, reason.reason(), items));
                }
            }
        }
        losses
    }
}
