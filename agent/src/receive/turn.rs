//! Reading in turns: what all connections together read before the tasks that take it over have run.
//! Otherwise hundreds of clients that fill their windows, or open all their calls, at the same moment
//! would be held in memory at once, paid for by nobody. Must not know HTTP.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes of one turn. Less would cost throughput, more memory.
const TURN: usize = 2 * 1024 * 1024;

/// What a request weighs, whatever its bytes: its headers, its stream, its task.
const REQUEST: usize = 4 * 1024;

/// The turn all connections share. It relies on a scheduler of one thread that runs tasks in the order
/// they were woken: who yields comes again when everything that was woken before has run.
#[derive(Debug)]
pub(super) struct Turn {
    number: AtomicU64,
    read: AtomicUsize,
}

impl Turn {
    pub(super) fn bytes_arrived(&self, bytes: usize) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn request_arrived(&self) {
        self.read.fetch_add(REQUEST, Ordering::Relaxed);
    }

    /// Whether a connection has to let others run before it reads on. `poll` is how often its task has
    /// run, `waited` where it remembers for which turn it has stepped back, and in which run of its task.
    pub(super) fn is_over(&self, poll: u64, waited: &mut (u64, u64)) -> bool {
        if self.read.load(Ordering::Relaxed) < TURN {
            return false;
        }
        let number = self.number.load(Ordering::Relaxed);
        if waited.0 != number {
            *waited = (number, poll);
        }
        if waited.1 == poll {
            return true;
        }
        self.number.store(number + 1, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
        false
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            number: AtomicU64::new(1),
            read: AtomicUsize::new(0),
        }
    }
}
