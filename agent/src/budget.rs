//! The memory budget: counts the bytes of telemetry that the agent holds. Code takes bytes before it allocates
//! them and gives them back when it drops them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// The budget that all requests and exports share.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The limit for new telemetry, not counting exports.
    soft: AtomicUsize,
    /// The limit for new telemetry, counting everything.
    hard: AtomicUsize,
    used: AtomicUsize,
    /// The part of `used` that exports need besides the telemetry in them.
    exporting_bytes: AtomicUsize,
    /// The free KiB for connections, which wait for them.
    pub(crate) connections: Arc<Semaphore>,
    /// All of the KiB for connections.
    connection_kib: usize,
}

/// The budget is used up.
#[derive(Debug)]
pub(crate) struct Exhausted;

impl Budget {
    /// A budget of `limit` bytes, with the last `spike` of them reserved for exports. Connections may use
    /// `connection_kib` KiB beside the telemetry on them.
    pub(crate) fn new(limit: usize, spike: usize, connection_kib: usize) -> Arc<Self> {
        Arc::new(Self {
            soft: AtomicUsize::new(limit.saturating_sub(spike)),
            hard: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            exporting_bytes: AtomicUsize::new(0),
            connections: Arc::new(Semaphore::new(connection_kib)),
            connection_kib,
        })
    }

    /// Changes the limits. Held bytes stay, even above a smaller limit.
    pub(crate) fn set_limits(&self, limit: usize, spike: usize) {
        self.soft
            .store(limit.saturating_sub(spike), Ordering::Relaxed);
        self.hard.store(limit, Ordering::Relaxed);
    }

    /// The bytes of telemetry held now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The same without what exports need besides it.
    pub(crate) fn held(&self) -> usize {
        self.used()
            .saturating_sub(self.exporting_bytes.load(Ordering::Relaxed))
    }

    /// The bytes of telemetry and connections together.
    pub(crate) fn in_use(&self) -> usize {
        self.used() + self.connection_bytes()
    }

    /// Whether `more` bytes of new telemetry fit.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        let wanted = self.connection_bytes().saturating_add(more);
        self.held().saturating_add(wanted) <= self.soft_limit()
            && self.used().saturating_add(wanted) <= self.hard.load(Ordering::Relaxed)
    }

    fn connection_bytes(&self) -> usize {
        let left = self.connections.available_permits();
        self.connection_kib.saturating_sub(left) * 1024
    }

    /// The limit for new telemetry.
    pub(crate) fn soft_limit(&self) -> usize {
        self.soft.load(Ordering::Relaxed)
    }

    /// An empty permit, which grows as bytes arrive.
    pub(crate) fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }

    /// Takes `bytes` for an export, without a check of the limits. The compressor bounds the sum, since it
    /// handles one batch at a time.
    pub(crate) fn export(self: &Arc<Self>, bytes: usize) -> ExportPermit {
        let mut export = ExportPermit(self.permit());
        export.set(bytes);
        export
    }
}

/// Bytes taken from a budget; a drop gives them back.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Permit {
    /// Takes `more` bytes if they fit.
    ///
    /// # Errors
    /// Takes nothing if not all of them fit.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Exhausted> {
        self.set(self.bytes + more);
        if self.budget.has_room(0) {
            return Ok(());
        }
        self.set(self.bytes - more);
        Err(Exhausted)
    }

    /// An empty permit of the same budget.
    pub(crate) fn another(&self) -> Self {
        self.budget.permit()
    }

    /// Gives `less` bytes back.
    pub(crate) fn shrink(&mut self, less: usize) {
        self.set(self.bytes.saturating_sub(less));
    }

    /// Holds exactly `bytes` from now on, without a check of the limits.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            self.budget.used.fetch_add(more, Ordering::Relaxed);
        } else {
            let less = self.bytes - bytes;
            self.budget.used.fetch_sub(less, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The bytes that an export needs besides its telemetry; a drop gives them back.
#[derive(Debug)]
pub(crate) struct ExportPermit(Permit);

impl ExportPermit {
    /// Holds exactly `bytes` from now on.
    pub(crate) fn set(&mut self, bytes: usize) {
        let exporting = &self.0.budget.exporting_bytes;
        exporting.fetch_add(bytes, Ordering::Relaxed);
        exporting.fetch_sub(self.0.bytes, Ordering::Relaxed);
        self.0.set(bytes);
    }
}

impl Drop for ExportPermit {
    fn drop(&mut self) {
        self.set(0);
    }
}
