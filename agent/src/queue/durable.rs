//! The settings of a queue on disk, and the handle that tells when a request is safe.

use std::sync::Arc;

use segment_log::LogLimits;
use tokio::sync::{Notify, watch};

use crate::budget::Budget;
use crate::config::{Queue, Storage};
use crate::logging::LogThrottle;

/// The maximum that is read from disk at once.
const READ_AT_ONCE: usize = 512 * 1024;

/// The largest segment.
const SEGMENT: u64 = 8 * 1024 * 1024;

/// The settings and signals of a lane whose queue is on disk.
#[derive(Debug)]
pub(crate) struct DurableQueue {
    pub(super) exporter: String,
    pub(super) limits: LogLimits,
    pub(super) budget: Arc<Budget>,
    /// The number of lanes that share the memory.
    lanes: usize,
    /// Every record below this sequence survives a loss of power.
    synced: watch::Sender<u64>,
    /// Signals records to sync.
    pub(super) appended: Notify,
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
                segment: (most / 8).clamp(64 * 1024, SEGMENT),
                total,
                fsync: storage.fsync,
                directory_mode: storage.directory_permissions,
            },
            lanes: lanes.max(1),
            budget,
            synced: watch::Sender::new(0),
            appended: Notify::new(),
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

    /// A handle that is ready once the record is as safe as configured.
    pub(super) fn ack(&self, sequence: Option<u64>) -> AckHandle {
        AckHandle(sequence.filter(|_| self.limits.fsync).map(|sequence| {
            self.appended.notify_one();
            (self.synced.subscribe(), sequence)
        }))
    }

    /// Notes that every record below `sequence` survives a loss of power.
    pub(super) fn synced_below(&self, sequence: u64) {
        self.synced.send_if_modified(|below| {
            let is_higher = sequence > *below;
            *below = sequence.max(*below);
            is_higher
        });
    }
}

/// Tells when a request may be acknowledged.
#[derive(Debug)]
#[must_use]
pub(crate) struct AckHandle(Option<(watch::Receiver<u64>, u64)>);

impl AckHandle {
    /// A handle that is ready at once.
    pub(super) fn immediate() -> Self {
        Self(None)
    }

    /// Waits until the request may be acknowledged: at once, unless it must survive a loss of power.
    pub(crate) async fn ready(self) {
        if let Some((mut synced, sequence)) = self.0 {
            let _ = synced.wait_for(|below| *below > sequence).await;
        }
    }
}
