//! Limits what all connections together read before the tasks that consume it have run. Otherwise hundreds
//! of clients that fill their windows at the same moment would hold memory that no budget counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The bytes of one round. Less would cost throughput, more would cost memory.
const QUOTA: usize = 2 * 1024 * 1024;

/// The weight of a request beside its body: headers, stream and task.
const REQUEST: usize = 4 * 1024;

/// The quota that all connections share. It relies on a single-threaded scheduler that runs tasks in the
/// order of their wake-ups: a task that yields runs again after every task that was woken before.
#[derive(Debug)]
pub(super) struct ReadQuota {
    round: AtomicU64,
    read: AtomicUsize,
}

impl ReadQuota {
    pub(super) fn bytes_arrived(&self, bytes: usize) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn request_arrived(&self) {
        self.read.fetch_add(REQUEST, Ordering::Relaxed);
    }

    /// Whether a connection must let others run before it reads on. `poll` counts the runs of its task;
    /// `waited` holds the round in which it yielded last, and the run of its task at that time.
    pub(super) fn is_used_up(&self, poll: u64, waited: &mut (u64, u64)) -> bool {
        if self.read.load(Ordering::Relaxed) < QUOTA {
            return false;
        }
        let round = self.round.load(Ordering::Relaxed);
        if waited.0 != round {
            *waited = (round, poll);
        }
        if waited.1 == poll {
            return true;
        }
        self.round.store(round + 1, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
        false
    }
}

impl Default for ReadQuota {
    fn default() -> Self {
        Self {
            round: AtomicU64::new(1),
            read: AtomicUsize::new(0),
        }
    }
}
