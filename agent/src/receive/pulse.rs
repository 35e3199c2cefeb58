//! What is known about a connection: whether requests are in flight, since when it is quiet, whether it
//! has to leave, and what it costs of the memory. Must not know HTTP.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::places::{Cost, Places};

/// The headers of a request arrive within this of their first byte, give or take one look at them.
const HEADERS: Duration = Duration::from_secs(10);

/// A request takes longer than this only where its sender is slow; where places are scarce, such a
/// connection has to make way like an idle one.
const SLOW: Duration = Duration::from_secs(1);

/// A connection that was just opened, or has just been answered, gets this long for its next request
/// before it has to make way.
const FRESH: Duration = Duration::from_millis(250);

/// The liveliness of one connection. Times are milliseconds after its start.
#[derive(Debug)]
pub(super) struct Pulse {
    started: Instant,
    in_flight: AtomicUsize,
    served: AtomicBool,
    /// When a request last began or ended.
    changed: AtomicU64,
    /// When the first byte of a request came whose headers are not complete; 0 for none.
    partial_since: AtomicU64,
    /// It waits for a place itself.
    waiting: AtomicBool,
    /// How often its task has run.
    polls: AtomicU64,
    leaving: AtomicBool,
    /// The connection is to end; HTTP/1.1 says so with the next answer.
    closing: AtomicBool,
    /// It costs more than it may, and ends at once.
    overdrawn: AtomicBool,
    leave: Notify,
    /// Requests in flight that are paid for.
    paid: AtomicUsize,
    cost: Mutex<Option<Cost>>,
    /// Where others make way.
    places: Weak<Places>,
}

/// How gladly a connection is spared: those without a request before those whose sender is slow, and
/// of each the longest silent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// No request is in flight.
    pub(super) quiet: bool,
    silence: Duration,
}

impl Pulse {
    pub(super) fn new(cost: Cost, places: &Arc<Places>) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            in_flight: AtomicUsize::new(0),
            served: AtomicBool::new(false),
            changed: AtomicU64::new(0),
            partial_since: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            overdrawn: AtomicBool::new(false),
            leave: Notify::new(),
            paid: AtomicUsize::new(0),
            cost: Mutex::new(Some(cost)),
            places: Arc::downgrade(places),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Runs the connection, counting how often its task is run.
    pub(super) async fn run(&self, mut connection: Pin<Box<impl Future<Output = ()>>>) {
        poll_fn(|cx| {
            self.polls.fetch_add(1, Ordering::Relaxed);
            connection.as_mut().poll(cx)
        })
        .await;
    }

    pub(super) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_arrived(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            let now = self.now();
            let _ =
                self.partial_since
                    .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        let open = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        if open > self.paid.load(Ordering::Relaxed) {
            self.pay();
        }
        self.served.store(true, Ordering::Relaxed);
        self.settle();
        InFlight(Arc::clone(self))
    }

    /// More requests are in flight than ever before: HTTP/2 keeps the room they take until the
    /// connection ends.
    fn pay(&self) {
        if let Some(more) = self.with_cost(|cost| cost.as_mut()?.more_requests()) {
            self.paid_for(more);
            return;
        }
        let first = !self.overdrawn.swap(true, Ordering::Relaxed);
        self.ask_to_leave();
        if first && let Some(places) = self.places.upgrade() {
            // It ends, since nobody may cost more; there is room once its client comes again.
            places.make_way_for_requests();
        }
    }

    /// So many more requests in flight are paid for.
    pub(super) fn paid_for(&self, more: usize) {
        self.paid.fetch_add(more, Ordering::Relaxed);
    }

    /// Whether it costs more than it may.
    fn is_overdrawn(&self) -> bool {
        self.overdrawn.load(Ordering::Relaxed)
    }

    /// Looks at what the connection costs, or changes it; `None` once it costs nothing any more.
    pub(super) fn with_cost<T>(&self, use_it: impl FnOnce(&mut Option<Cost>) -> T) -> T {
        use_it(&mut self.cost.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn settle(&self) {
        self.changed.store(self.now(), Ordering::Relaxed);
        self.partial_since.store(0, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        let silent = self
            .now()
            .saturating_sub(self.changed.load(Ordering::Relaxed));
        Duration::from_millis(silent)
    }

    /// Whether any request has come.
    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// From now on answers say that the connection ends.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether answers say so.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn is_quiet(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// Whether no request came for so long; a limit of zero is none.
    pub(super) fn is_idle(&self, limit: Duration) -> bool {
        !limit.is_zero() && self.is_quiet() && self.silence() >= limit
    }

    /// Whether the headers of a request have begun and do not end.
    pub(super) fn is_stuck(&self) -> bool {
        let since = self.partial_since.load(Ordering::Relaxed);
        self.is_quiet() && since != 0 && self.now() - since.min(self.now()) >= millis(HEADERS)
    }

    /// Whether the connection waits for a place itself; afterwards it is as good as new.
    pub(super) fn wait(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
        self.settle();
    }

    /// How gladly the connection is spared, if at all.
    pub(super) fn dispensable(&self) -> Option<Rank> {
        let can_go = self.can_go()
            && !self.leaving.load(Ordering::Relaxed)
            && !self.waiting.load(Ordering::Relaxed);
        can_go.then(|| Rank {
            quiet: self.is_quiet(),
            silence: self.silence(),
        })
    }

    /// Whether nothing is under way, or nothing that gets on.
    pub(super) fn can_go(&self) -> bool {
        let patience = if self.is_quiet() { FRESH } else { SLOW };
        self.is_overdrawn() || self.silence() >= patience
    }

    /// Asks the connection to end.
    pub(super) fn ask_to_leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.leave.notify_one();
    }

    /// Waits until the connection is asked to end; whether that has to be at once.
    pub(super) async fn asked_to_leave(&self) -> bool {
        self.leave.notified().await;
        self.is_overdrawn()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Counts a request as in flight for as long as its answer takes.
pub(super) struct InFlight(Arc<Pulse>);

impl InFlight {
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.settle();
    }
}
