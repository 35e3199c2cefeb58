//! Counters of what happens to telemetry, and their Prometheus text under the collector's names. The
//! books balance at all times: accepted + recovered = delivered + in queue + lost by reason. Must not
//! know how telemetry is received or sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use otlp_wire::Signal;

/// Bounds of the collector's histograms of batches, in items.
pub(super) const ITEM_BOUNDS: [u64; 22] = [
    10, 25, 50, 75, 100, 250, 500, 750, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000,
    10_000, 20_000, 30_000, 50_000, 100_000,
];

/// The same in bytes, where the collector's bounds would end far below a usual batch.
pub(super) const BYTE_BOUNDS: [u64; 10] = [
    1000, 4000, 16_000, 64_000, 256_000, 512_000, 1_000_000, 2_000_000, 4_000_000, 16_000_000,
];

/// The transport a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
}

impl Transport {
    pub(super) const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its bytes are not an OTLP request.
    Malformed,
    /// It is larger than the limit.
    TooLarge,
    /// The queue of its signal is full.
    QueueFull,
    /// The memory limit is reached.
    Memory,
    /// No such path, signal, encoding or method.
    Unsupported,
    /// The client disconnected or was too slow.
    Aborted,
    /// The agent is shutting down.
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
    /// `max_elapsed_time` ran out, or retries are switched off.
    GivenUp,
    /// The grace period of a shutdown ran out.
    Shutdown,
    /// It was only on disk, and is damaged or gone there.
    Storage,
}

impl Refused {
    pub(super) const ALL: [Self; 7] = [
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
    pub(super) const ALL: [Self; 6] = [
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

/// What became of the configuration file when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// It is in use now.
    Applied,
    /// It means the same as what is in use.
    Unchanged,
    /// It has problems, or needs a restart.
    Refused,
}

impl Reload {
    pub(super) const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    pub(super) fn result(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct SignalCounts {
    pub(super) accepted: [AtomicU64; 2],
    pub(super) refused_items: [AtomicU64; 2],
    pub(super) sent: AtomicU64,
    pub(super) lost: [AtomicU64; 6],
    pub(super) recovered: AtomicU64,
    pub(super) damaged_records: AtomicU64,
    pub(super) damaged_bytes: AtomicU64,
    pub(super) leftover_bytes: AtomicU64,
    /// 0: no storage is configured, 1: it works, 2: it fails.
    pub(super) storage: AtomicU64,
    pub(super) enqueue_failed: AtomicU64,
    pub(super) memory_refused: AtomicU64,
    pub(super) queue_items: AtomicU64,
    pub(super) queue_bytes: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) batch_items: Histogram<22>,
    pub(super) batch_bytes: Histogram<10>,
    /// Sizes of all attempts, before and after compression.
    pub(super) plain_bytes: AtomicU64,
    pub(super) wire_bytes: AtomicU64,
}

/// How often values were within each bound, and how often above all of them.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    pub(super) counts: [AtomicU64; N],
    pub(super) above: AtomicU64,
    pub(super) sum: AtomicU64,
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
    pub(super) started: Instant,
    pub(super) signals: [SignalCounts; Signal::COUNT],
    pub(super) requests_taken: [AtomicU64; 2],
    pub(super) requests_refused: [[AtomicU64; 7]; 2],
    pub(super) attempts_failed: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) connections_open: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
    pub(super) reloads: [AtomicU64; 3],
    /// Seconds since 1970 at which the configuration in use was read, and its fingerprint.
    pub(super) configured: [AtomicU64; 2],
}

/// The books of a signal, in items.
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
    /// Lost, for any reason.
    pub(crate) lost: u64,
}

impl Books {
    /// What is unaccounted for: anything but 0 is a defect of the agent.
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

pub(super) fn get(counter: &AtomicU64) -> u64 {
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
    pub(super) fn of(&self, signal: Signal) -> &SignalCounts {
        &self.signals[signal.index()]
    }

    /// The agent holds these items from now on and will acknowledge them.
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

    /// A request was refused; `items` if they are known.
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

    /// The upstream has acknowledged items.
    pub(crate) fn delivered(&self, signal: Signal, items: u64) {
        add(&self.of(signal).sent, items);
    }

    /// Acknowledged items are lost.
    pub(crate) fn lost(&self, signal: Signal, reason: Lost, items: u64) {
        add(&self.of(signal).lost[reason as usize], items);
    }

    /// The agent no longer holds items; it has counted their delivery or loss.
    pub(crate) fn released(&self, signal: Signal, items: u64, bytes: u64) {
        let counts = self.of(signal);
        counts.queue_items.fetch_sub(items, Ordering::Relaxed);
        counts.queue_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The agent holds items from now on that an earlier process has acknowledged.
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

    /// Bytes of earlier processes that are on disk and not read yet.
    pub(crate) fn leftover(&self, signal: Signal, bytes: u64) {
        let counts = self.of(signal);
        counts.leftover_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether the queue that should be on disk is there.
    pub(crate) fn storage(&self, signal: Signal, works: bool) {
        let state = if works { 1 } else { 2 };
        self.of(signal).storage.store(state, Ordering::Relaxed);
    }

    /// An attempt to send failed and will be repeated.
    pub(crate) fn attempt_failed(&self) {
        add(&self.attempts_failed, 1);
    }

    /// A request to the upstream begins or ends.
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
        counts.batch_items.record(&ITEM_BOUNDS, items);
        counts.batch_bytes.record(&BYTE_BOUNDS, bytes);
    }

    /// An attempt to send was made, whatever its outcome; sizes before and after compression.
    pub(crate) fn attempted(&self, signal: Signal, plain: u64, wire: u64) {
        let counts = self.of(signal);
        add(&counts.plain_bytes, plain);
        add(&counts.wire_bytes, wire);
    }

    /// A client connection was accepted; it is open until the returned value is dropped.
    pub(crate) fn connected(self: &Arc<Self>) -> Open {
        add(&self.connections, 1);
        add(&self.connections_open, 1);
        Open(Arc::clone(self))
    }

    /// A connection could not be accepted.
    pub(crate) fn accept_failed(&self) {
        add(&self.accept_errors, 1);
    }

    /// A client connection ended before the TLS handshake was complete.
    pub(crate) fn handshake_failed(&self) {
        add(&self.handshakes_failed, 1);
    }

    /// The configuration file was read.
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
