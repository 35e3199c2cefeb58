//! Counters of what happens to telemetry. They balance at all times: accepted + recovered = delivered + in
//! queue + lost by reason.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use otlp_wire::Signal;

use crate::lock::lock;

/// Bounds of the collector's histograms of batches, in items.
pub(super) const ITEM_BOUNDS: [u64; 22] = [
    10, 25, 50, 75, 100, 250, 500, 750, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000,
    10_000, 20_000, 30_000, 50_000, 100_000,
];

/// The same in bytes, where the collector's bounds would end far below a usual batch.
pub(super) const BYTE_BOUNDS: [u64; 10] = [
    1000, 4000, 16_000, 64_000, 256_000, 512_000, 1_000_000, 2_000_000, 4_000_000, 16_000_000,
];

/// Declares the values of a label, each with a meaning of one line.
macro_rules! label {
    ($(#[$doc:meta])* $label:ident { $(#[doc = $meaning:literal] $value:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $label {
            $(#[doc = $meaning] $value,)*
        }

        impl $label {
            pub(crate) const ALL: &[Self] = &[$(Self::$value),*];

            /// Every value with its meaning, for the reference.
            pub(super) const MEANINGS: &[(&str, &str)] = &[$(($name, $meaning)),*];

            /// The label's value.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)*
                }
            }
        }
    };
}

label! {
    /// The transport of a request.
    Transport {
        /// OTLP/gRPC.
        Grpc = "grpc",
        /// OTLP/HTTP.
        Http = "http",
    }
}

label! {
    /// Why a request was refused.
    Refused {
        /// Its bytes are not an OTLP request.
        Malformed = "malformed",
        /// It is larger than the limit.
        TooLarge = "too_large",
        /// The queue of its signal is full.
        QueueFull = "queue_full",
        /// The memory limit is reached.
        Memory = "memory_limit",
        /// No such path, signal, encoding or method.
        Unsupported = "unsupported",
        /// The client sent no token, or a wrong one.
        Unauthenticated = "unauthenticated",
        /// The client disconnected or was too slow.
        Aborted = "aborted",
        /// The agent is shutting down.
        ShuttingDown = "shutting_down",
    }
}

label! {
    /// Why acknowledged telemetry was lost.
    Lost {
        /// The upstream said that it will never take it.
        Permanent = "permanent",
        /// The upstream took the request and rejected some of its items.
        Rejected = "rejected",
        /// A single request is larger than the upstream takes.
        TooLarge = "too_large",
        /// `max_elapsed_time` ran out, or retries are switched off.
        GivenUp = "given_up",
        /// The grace period of a shutdown ran out.
        Shutdown = "shutdown",
        /// It was only on disk, and is damaged or gone there.
        Storage = "storage",
    }
}

label! {
    /// Why an attempt to send failed that is repeated.
    FailedAttempt {
        /// There was no connection.
        Unreachable = "unreachable",
        /// The upstream speaks HTTP/1.1 where HTTP/2 is configured, or the other way round.
        Protocol = "wrong_protocol",
        /// The upstream speaks TLS where none is configured, or the other way round.
        Scheme = "wrong_scheme",
        /// The certificates or versions of the two do not fit.
        Tls = "tls",
        /// The proxy opens no way to the upstream.
        Proxy = "proxy",
        /// A file that the configuration names is missing.
        File = "file",
        /// The upstream refuses this agent.
        Denied = "denied",
        /// The upstream is overloaded or short of something.
        Busy = "busy",
        /// There was no answer in time.
        TimedOut = "timed_out",
        /// The connection ended before the answer.
        Broken = "broken",
    }
}

label! {
    /// The result of reading the configuration file.
    Reload {
        /// It is in use now.
        Applied = "applied",
        /// It equals the configuration in use.
        Unchanged = "unchanged",
        /// It has problems, or needs a restart.
        Refused = "refused",
    }
}

label! {
    /// The result of a push of the agent's own metrics.
    Push {
        /// The endpoint took all of them.
        Delivered = "delivered",
        /// It rejected some.
        Rejected = "rejected",
        /// It took none, or there was no answer.
        Failed = "failed",
    }
}

/// A number that several tasks increment.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn subtract(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether the queue that should be on disk is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StorageHealth {
    /// No storage is configured.
    #[default]
    None,
    Works,
    /// It does not, for this reason.
    Fails(&'static str),
}

#[derive(Debug, Default)]
pub(super) struct SignalCounts {
    pub(super) accepted: [Count; Transport::ALL.len()],
    pub(super) refused_items: [Count; Transport::ALL.len()],
    pub(super) sent: Count,
    pub(super) lost: [Count; Lost::ALL.len()],
    pub(super) recovered: Count,
    pub(super) damaged_records: Count,
    pub(super) damaged_bytes: Count,
    pub(super) leftover_bytes: Count,
    pub(super) storage: Mutex<StorageHealth>,
    pub(super) enqueue_failed: Count,
    pub(super) memory_refused: Count,
    pub(super) queue_items: Count,
    pub(super) queue_bytes: Count,
    pub(super) in_flight: Count,
    pub(super) batch_items: Distribution,
    pub(super) batch_bytes: Distribution,
    /// Sizes of all attempts, before and after compression.
    pub(super) plain_bytes: Count,
    pub(super) wire_bytes: Count,
}

/// How many values were within each bound but above the previous one; the last count is of values above all
/// bounds.
#[derive(Debug, Default)]
pub(super) struct Distribution {
    pub(super) counts: [Count; ITEM_BOUNDS.len() + 1],
    pub(super) sum: Count,
}

impl Distribution {
    fn record(&self, bounds: &[u64], value: u64) {
        let at = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.add(1);
        }
        self.sum.add(value);
    }
}

/// Every counter of the process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(super) signals: [SignalCounts; Signal::COUNT],
    pub(super) requests_taken: [Count; Transport::ALL.len()],
    pub(super) requests_refused: [[Count; Refused::ALL.len()]; Transport::ALL.len()],
    pub(super) attempts_failed: [Count; FailedAttempt::ALL.len()],
    pub(super) connections: Count,
    pub(super) connections_open: Count,
    /// Strings that were not UTF-8.
    pub(crate) repaired_strings: Count,
    /// Connections that could not be accepted.
    pub(crate) accept_errors: Count,
    /// Connections that ended before the TLS handshake was complete.
    pub(crate) handshakes_failed: Count,
    pub(super) reloads: [Count; Reload::ALL.len()],
    pub(super) pushes: [Count; Push::ALL.len()],
    /// Seconds since 1970 at which the configuration in use was read, and its fingerprint.
    pub(super) configured: [Count; 2],
}

/// The counters of a signal, in items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Books {
    /// Acknowledged to clients.
    pub(crate) accepted: u64,
    /// Taken over from an earlier process.
    pub(crate) recovered: u64,
    /// Acknowledged by the upstream.
    pub(crate) delivered: u64,
    /// Currently held.
    pub(crate) in_queue: u64,
    /// Lost, for any reason.
    pub(crate) lost: u64,
}

impl Books {
    /// The imbalance: anything but 0 is a defect of the agent.
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
        self.0.connections_open.subtract(1);
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
        self.requests_taken[transport as usize].add(1);
        counts.accepted[transport as usize].add(items as u64);
        counts.queue_items.add(items as u64);
        counts.queue_bytes.add(bytes as u64);
    }

    /// A request without items was answered.
    pub(crate) fn empty(&self, transport: Transport) {
        self.requests_taken[transport as usize].add(1);
    }

    /// A request was refused; `items` if they are known.
    pub(crate) fn refused(
        &self,
        signal: Option<Signal>,
        transport: Transport,
        reason: Refused,
        items: usize,
    ) {
        self.requests_refused[transport as usize][reason as usize].add(1);
        if let Some(signal) = signal {
            let counts = self.of(signal);
            counts.refused_items[transport as usize].add(items as u64);
            match reason {
                Refused::QueueFull => counts.enqueue_failed.add(items as u64),
                Refused::Memory => counts.memory_refused.add(items as u64),
                _ => {}
            }
        }
    }

    /// The upstream has acknowledged items.
    pub(crate) fn delivered(&self, signal: Signal, items: u64) {
        self.of(signal).sent.add(items);
    }

    /// Acknowledged items are lost.
    pub(crate) fn lost(&self, signal: Signal, reason: Lost, items: u64) {
        self.of(signal).lost[reason as usize].add(items);
    }

    /// The agent no longer holds items; it has counted their delivery or loss.
    pub(crate) fn released(&self, signal: Signal, items: u64, bytes: u64) {
        let counts = self.of(signal);
        counts.queue_items.subtract(items);
        counts.queue_bytes.subtract(bytes);
    }

    /// The agent holds items from now on that an earlier process has acknowledged.
    pub(crate) fn recovered(&self, signal: Signal, items: u64, bytes: u64) {
        let counts = self.of(signal);
        counts.recovered.add(items);
        counts.queue_items.add(items);
        counts.queue_bytes.add(bytes);
    }

    /// Damage was found on disk.
    pub(crate) fn damaged(&self, signal: Signal, records: u64, bytes: u64) {
        let counts = self.of(signal);
        counts.damaged_records.add(records);
        counts.damaged_bytes.add(bytes);
    }

    /// Bytes of earlier processes that are on disk and not read yet.
    pub(crate) fn leftover(&self, signal: Signal, bytes: u64) {
        self.of(signal).leftover_bytes.set(bytes);
    }

    /// Whether the queue that should be on disk is on disk, or why it is not.
    pub(crate) fn storage(&self, signal: Signal, failing: Option<&'static str>) {
        let health = failing.map_or(StorageHealth::Works, StorageHealth::Fails);
        *lock(&self.of(signal).storage) = health;
    }

    /// An attempt to send failed and will be repeated.
    pub(crate) fn attempt_failed(&self, reason: FailedAttempt) {
        self.attempts_failed[reason as usize].add(1);
    }

    /// A request to the upstream begins or ends.
    pub(crate) fn in_flight(&self, signal: Signal, begins: bool) {
        let counter = &self.of(signal).in_flight;
        if begins {
            counter.add(1);
        } else {
            counter.subtract(1);
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
        counts.plain_bytes.add(plain);
        counts.wire_bytes.add(wire);
    }

    /// A client connection was accepted; it is open until the returned value is dropped.
    pub(crate) fn connected(self: &Arc<Self>) -> Open {
        self.connections.add(1);
        self.connections_open.add(1);
        Open(Arc::clone(self))
    }

    /// The configuration file was read.
    pub(crate) fn reloaded(&self, result: Reload) {
        self.reloads[result as usize].add(1);
    }

    /// The agent has pushed its own metrics, or tried to.
    pub(crate) fn pushed(&self, result: Push) {
        self.pushes[result as usize].add(1);
    }

    /// A configuration with this fingerprint is in use from now on.
    pub(crate) fn configured(&self, fingerprint: u64) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.configured[0].set(now.as_secs());
        self.configured[1].set(fingerprint);
    }

    /// The fingerprint of the configuration in use.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:016x}", self.configured[1].get())
    }

    /// The counters of one signal.
    pub(crate) fn books(&self, signal: Signal) -> Books {
        let counts = self.of(signal);
        Books {
            accepted: counts.accepted.iter().map(Count::get).sum(),
            recovered: counts.recovered.get(),
            delivered: counts.sent.get(),
            in_queue: counts.queue_items.get(),
            lost: counts.lost.iter().map(Count::get).sum(),
        }
    }

    /// Items lost by reason, all signals; reasons without losses left out.
    pub(crate) fn losses(&self) -> Vec<(Signal, &'static str, u64)> {
        let mut losses = Vec::new();
        for signal in Signal::ALL {
            for (reason, lost) in Lost::ALL.iter().zip(&self.of(signal).lost) {
                if lost.get() > 0 {
                    losses.push((signal, reason.name(), lost.get()));
                }
            }
        }
        losses
    }
}
