//! How many bytes of telemetry the agent may hold: counted exactly, taken before the memory is, given
//! back when it is dropped. Must not know what the bytes are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The budget all requests and exports share.
#[derive(Debug)]
pub(crate) struct Budget {
    /// New telemetry is refused above this.
    soft: usize,
    /// Exports wait above this.
    hard: usize,
    used: AtomicUsize,
    exporting: AtomicUsize,
    released: Notify,
}

/// The budget is used up for now.
#[derive(Debug)]
pub(crate) struct Exhausted;

impl Budget {
    /// A budget of `limit` bytes, the last `spike` of them kept for exports.
    pub(crate) fn new(limit: usize, spike: usize) -> Arc<Self> {
        Arc::new(Self {
            soft: limit.saturating_sub(spike),
            hard: limit,
            used: AtomicUsize::new(0),
            exporting: AtomicUsize::new(0),
            released: Notify::new(),
        })
    }

    /// Bytes held now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes up to which new telemetry is taken.
    pub(crate) fn soft_limit(&self) -> usize {
        self.soft
    }

    /// An empty permit, to be grown as bytes arrive.
    pub(crate) fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }

    /// Takes `bytes` for one export, waiting while other exports hold what there is. One export may
    /// always run, so a batch larger than what is left cannot block for ever.
    pub(crate) async fn export(self: &Arc<Self>, bytes: usize) -> ExportPermit {
        loop {
            let released = self.released.notified();
            if self.exporting.load(Ordering::Relaxed) == 0 || self.used() + bytes <= self.hard {
                self.exporting.fetch_add(1, Ordering::Relaxed);
                let mut permit = self.permit();
                permit.set(bytes);
                return ExportPermit(permit);
            }
            released.await;
        }
    }
}

/// Bytes taken from a budget; given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Permit {
    /// Takes `more` bytes, unless new telemetry must be refused.
    ///
    /// # Errors
    /// Nothing is taken where the budget has no room for all of them.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Exhausted> {
        let used = self.budget.used.fetch_add(more, Ordering::Relaxed) + more;
        self.bytes += more;
        if used > self.budget.soft {
            self.set(self.bytes - more);
            return Err(Exhausted);
        }
        Ok(())
    }

    /// Gives back `less` bytes.
    pub(crate) fn shrink(&mut self, less: usize) {
        self.set(self.bytes.saturating_sub(less));
    }

    /// Holds exactly `bytes` from now on; meant for giving back.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            self.budget.used.fetch_add(more, Ordering::Relaxed);
        } else {
            let less = self.bytes - bytes;
            self.budget.used.fetch_sub(less, Ordering::Relaxed);
            self.budget.released.notify_waiters();
        }
        self.bytes = bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A permit of an export under way.
#[derive(Debug)]
pub(crate) struct ExportPermit(Permit);

impl ExportPermit {
    /// Holds exactly `bytes` from now on: what compression left over.
    pub(crate) fn set(&mut self, bytes: usize) {
        self.0.set(bytes);
    }
}

impl Drop for ExportPermit {
    fn drop(&mut self) {
        self.0.budget.exporting.fetch_sub(1, Ordering::Relaxed);
        self.0.set(0);
    }
}
