//! The settings of a queue on disk, and the handle that tells when a request is safe.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use segment_log::LogLimits;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::budget::Budget;
use crate::config::{Queue, Storage};
use crate::logging::LogThrottle;

/// The maximum that is read from disk at once.
const READ_AT_ONCE: usize = 512 * 1024;

/// A disk that has not answered for this long is treated as one that fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// The wait for memory that another lane holds.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// What is read from disk beside a full batch in flight; the most that stays in memory while the upstream fails.
pub(super) const READ_AHEAD: usize = 1024 * 1024;

/// The sizes that a segment may have: large enough that few files hold a long outage, small enough that nearly all of a
/// short one is in segments that wait behind others and so are compressed.
const SEGMENT: RangeInclusive<u64> = 64 * 1024..=2 * 1024 * 1024;

/// The segments of a full queue, unless they would be too small or too large.
const SEGMENTS: u64 = 64;

/// The settings and signals of a lane whose queue is on disk.
#[derive(Debug)]
pub(crate) struct DurableQueue {
    pub(super) exporter: String,
    pub(super) limits: LogLimits,
    pub(super) budget: Arc<Budget>,
    /// How many lanes there are.
    lanes: usize,
    /// Every record below this sequence may be acknowledged.
    safe: watch::Sender<u64>,
    /// Signals that a request has waited for the disk for too long.
    pub(super) late: Notify,
    pub(super) failing: LogThrottle,
    pub(super) damaged: LogThrottle,
}

impl DurableQueue {
    /// The settings of one of `lanes` lanes.
    pub(crate) fn new(
        exporter: &str,
        storage: &Storage,
        queue: &Queue,
        budget: Arc<Budget>,
        lanes: usize,
    ) -> Self {
        let total = match storage.max_size {
            0 => u64::MAX,
            most => most,
        };
        let most = total.min(queue.capacity as u64);
        Self {
            exporter: exporter.to_owned(),
            limits: LogLimits {
                segment: (most / SEGMENTS).clamp(*SEGMENT.start(), *SEGMENT.end()),
                total,
                fsync: storage.fsync,
                directory_mode: storage.directory_permissions,
            },
            lanes: lanes.max(1),
            budget,
            safe: watch::Sender::new(0),
            late: Notify::new(),
            failing: LogThrottle::default(),
            damaged: LogThrottle::default(),
        }
    }

    /// The memory that this lane may use whatever the others do.
    pub(super) fn share(&self) -> usize {
        self.budget.soft_limit() / 2 / self.lanes
    }

    /// The number of bytes to read from disk at once.
    pub(super) fn read_size(&self) -> usize {
        READ_AT_ONCE.min(self.share())
    }

    /// Notes that every record below `sequence` is as safe as configured, or as it can be.
    pub(super) fn safe_below(&self, sequence: u64) {
        self.safe.send_if_modified(|below| {
            let is_higher = sequence > *below;
            *below = sequence.max(*below);
            is_higher
        });
    }

    /// Whether the record of this sequence may be acknowledged.
    pub(super) fn is_safe(&self, sequence: u64) -> bool {
        *self.safe.borrow() > sequence
    }
}

/// Tells when a request may be acknowledged.
#[derive(Debug)]
pub(crate) struct AckHandle {
    /// The queue on disk that it belongs to, if any.
    pub(super) durable: Option<Arc<DurableQueue>>,
    /// The record that must be safe before.
    pub(super) sequence: Option<u64>,
}

impl AckHandle {
    /// Waits until the request may be acknowledged: once it is on disk, if it belongs there and the disk answers.
    pub(crate) async fn ready(self) {
        let Some((durable, sequence)) = self.durable.zip(self.sequence) else {
            return;
        };
        let mut safe = durable.safe.subscribe();
        let is_safe = safe.wait_for(|below| *below > sequence);
        if timeout(PATIENCE, is_safe).await.is_err() {
            durable.late.notify_one();
        }
    }
}
