//! The memory budget: counts the bytes that the agent holds. Code asks for bytes before it allocates them and gives
//! them back when it drops them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, Semaphore};

use crate::senders::{Sender, Senders, reserve};

/// How often a thread looks whether memory was given back.
const RETRY: Duration = Duration::from_millis(5);

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
    /// Held by the export that waits for memory, so that exports get it in order of arrival.
    export_turn: Mutex<()>,
    /// Signals that memory was given back.
    freed: Notify,
    /// The free KiB for connections, which wait for them.
    pub(crate) connections: Arc<Semaphore>,
    /// All of the KiB for connections.
    connection_kib: AtomicUsize,
    /// Whose telemetry it is.
    pub(crate) senders: Senders,
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
            export_turn: Mutex::default(),
            freed: Notify::new(),
            connections: Arc::new(Semaphore::new(connection_kib)),
            connection_kib: AtomicUsize::new(connection_kib),
            senders: Senders::default(),
        })
    }

    /// Changes the limits. Held bytes and connections stay, even above a smaller limit.
    pub(crate) fn set_limits(&self, limit: usize, spike: usize, connection_kib: usize) {
        self.soft
            .store(limit.saturating_sub(spike), Ordering::Relaxed);
        self.hard.store(limit, Ordering::Relaxed);
        let before = self.connection_kib.load(Ordering::Relaxed);
        let after = if connection_kib > before {
            self.connections.add_permits(connection_kib - before);
            connection_kib
        } else {
            before - self.connections.forget_permits(before - connection_kib)
        };
        self.connection_kib.store(after, Ordering::Relaxed);
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

    /// Whether `more` bytes of a sender's telemetry fit, and `beside` bytes stay free.
    pub(crate) fn has_room(&self, sender: &Sender, more: usize, beside: usize) -> bool {
        let soft = self.soft_limit();
        let wanted = self.connection_bytes().saturating_add(more);
        let held = self.held().saturating_add(wanted).saturating_add(beside);
        held <= soft
            && self.used().saturating_add(wanted) <= self.hard.load(Ordering::Relaxed)
            && (held <= soft - reserve(soft) || self.senders.is_within_share(sender, more, soft))
    }

    fn connection_bytes(&self) -> usize {
        let left = self.connections.available_permits();
        let all = self.connection_kib.load(Ordering::Relaxed);
        all.saturating_sub(left) * 1024
    }

    /// The limit for new telemetry.
    pub(crate) fn soft_limit(&self) -> usize {
        self.soft.load(Ordering::Relaxed)
    }

    /// An empty permit, which grows as bytes of a sender arrive; none for telemetry of earlier processes and for
    /// exports.
    pub(crate) fn permit(self: &Arc<Self>, sender: Option<Arc<Sender>>) -> Permit {
        Permit {
            budget: Arc::clone(self),
            sender,
            bytes: 0,
        }
    }

    /// Takes `bytes` for an export. Waits until they fit, unless no other export is under way: one must always be
    /// possible, and fits if it needs no more than the reserve.
    pub(crate) async fn export(self: &Arc<Self>, bytes: usize) -> ExportPermit {
        let _turn = self.export_turn.lock().await;
        while self.is_exporting() && !self.is_within_limit(bytes) {
            self.freed.notified().await;
        }
        let mut export = ExportPermit(self.permit(None));
        export.set(bytes);
        export
    }

    fn is_exporting(&self) -> bool {
        self.exporting_bytes.load(Ordering::Relaxed) > 0
    }

    /// Whether `bytes` more fit, not counting what is reserved for exports and shared by senders.
    fn is_within_limit(&self, bytes: usize) -> bool {
        self.in_use().saturating_add(bytes) <= self.hard.load(Ordering::Relaxed)
    }
}

/// Bytes taken from a budget; a drop gives them back.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    sender: Option<Arc<Sender>>,
    bytes: usize,
}

impl Permit {
    /// Takes `more` bytes if they fit.
    ///
    /// # Errors
    /// Takes nothing if not all of them fit.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Exhausted> {
        self.set(self.bytes + more);
        let budget = &self.budget;
        let fits = match &self.sender {
            Some(sender) => budget.has_room(sender, 0, 0),
            None => budget.is_within_limit(0),
        };
        if fits {
            return Ok(());
        }
        self.set(self.bytes - more);
        Err(Exhausted)
    }

    /// Takes `more` bytes for work that can wait: only if half of the memory for telemetry stays free. Returns whether it
    /// does.
    pub(crate) fn grow_if_ample(&mut self, more: usize) -> bool {
        let budget = &self.budget;
        let is_ample = budget.in_use().saturating_add(more) <= budget.soft_limit() / 2;
        if is_ample {
            self.set(self.bytes + more);
        }
        is_ample
    }

    /// Takes `more` bytes for what is read back from disk, in turn with exports: waits while one is under way that may
    /// free them. Blocks.
    pub(crate) fn grow_in_turn(&mut self, more: usize) {
        let budget = Arc::clone(&self.budget);
        let _turn = budget.export_turn.blocking_lock();
        while budget.is_exporting() && !budget.is_within_limit(more) {
            std::thread::sleep(RETRY);
        }
        self.set(self.bytes + more);
    }

    /// An empty permit of the same budget for an export, which no sender's share bounds.
    pub(crate) fn another(&self) -> Self {
        self.budget.permit(None)
    }

    /// Whose bytes they are, unless an earlier process has accepted them.
    pub(crate) fn sender(&self) -> Option<&Arc<Sender>> {
        self.sender.as_ref()
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
            // Kept for the next export that looks, if none waits now.
            self.budget.freed.notify_one();
        }
        if let Some(sender) = &self.sender {
            self.budget.senders.hold(sender, self.bytes, bytes);
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
