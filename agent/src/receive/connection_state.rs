//! The state of one client connection: requests in flight, time of silence, whether it must close, and the
//! memory it uses.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection_cost::ConnectionCost;
use crate::lock::lock;

/// The time limit for the headers of a request, up to one check longer.
const HEADERS: Duration = Duration::from_secs(10);

/// A request that takes longer has a slow sender; the table may evict such a connection like an idle one.
const SLOW: Duration = Duration::from_secs(1);

/// A connection that was just opened or answered gets this long for its next request before the table may
/// evict it.
const FRESH: Duration = Duration::from_millis(250);

/// Frees memory that other connections use.
pub(super) trait MakeRoom: Send + Sync {
    /// Evicts connections to pay for more requests of another one.
    fn make_room_for_requests(&self);
}

/// The state of one connection. Times are milliseconds since its start.
pub(super) struct ConnectionState {
    started: Instant,
    in_flight: AtomicUsize,
    served: AtomicBool,
    /// The time a request last began or ended.
    changed: AtomicU64,
    /// The arrival of the first byte of incomplete headers; 0 for none.
    partial_since: AtomicU64,
    /// It waits for memory itself.
    waiting: AtomicBool,
    /// The number of times its task has run.
    polls: AtomicU64,
    /// It was asked to close.
    evicted: AtomicBool,
    /// It will close; HTTP/1.1 announces this in the next answer.
    closing: AtomicBool,
    /// It uses more memory than it may and closes at once.
    overdrawn: AtomicBool,
    close_request: Notify,
    /// The number of concurrent requests it has paid for.
    paid: AtomicUsize,
    cost: Mutex<Option<ConnectionCost>>,
    table: Weak<dyn MakeRoom>,
}

/// The order of eviction: connections without a request before those with a slow sender, and the longest
/// silent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EvictionRank {
    /// It has no request in flight.
    pub(super) quiet: bool,
    silence: Duration,
}

impl ConnectionState {
    pub(super) fn new(cost: ConnectionCost, table: Weak<dyn MakeRoom>) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            in_flight: AtomicUsize::new(0),
            served: AtomicBool::new(false),
            changed: AtomicU64::new(0),
            partial_since: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            overdrawn: AtomicBool::new(false),
            close_request: Notify::new(),
            paid: AtomicUsize::new(0),
            cost: Mutex::new(Some(cost)),
            table,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

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

    /// Pays for more concurrent requests than ever before; HTTP/2 keeps their memory until the connection
    /// ends.
    fn pay(&self) {
        if let Some(more) = self.with_cost(|cost| cost.as_mut()?.more_requests()) {
            self.paid_for(more);
            return;
        }
        let first = !self.overdrawn.swap(true, Ordering::Relaxed);
        self.ask_to_close();
        if first && let Some(table) = self.table.upgrade() {
            // This connection closes; its client finds memory when it connects again.
            table.make_room_for_requests();
        }
    }

    /// Notes that this many more concurrent requests are paid for.
    pub(super) fn paid_for(&self, more: usize) {
        self.paid.fetch_add(more, Ordering::Relaxed);
    }

    fn is_overdrawn(&self) -> bool {
        self.overdrawn.load(Ordering::Relaxed)
    }

    /// Reads or changes the cost of the connection; `None` after its end.
    pub(super) fn with_cost<T>(&self, use_it: impl FnOnce(&mut Option<ConnectionCost>) -> T) -> T {
        use_it(&mut lock(&self.cost))
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

    /// Whether any request has arrived.
    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Makes answers announce the end of the connection.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether answers announce the end of the connection.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn is_quiet(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// Whether the connection had no request for this long; zero means no limit.
    pub(super) fn is_idle(&self, limit: Duration) -> bool {
        !limit.is_zero() && self.is_quiet() && self.silence() >= limit
    }

    /// Whether incomplete headers exceed their time limit.
    pub(super) fn is_stuck(&self) -> bool {
        let since = self.partial_since.load(Ordering::Relaxed);
        self.is_quiet() && since != 0 && self.now() - since.min(self.now()) >= millis(HEADERS)
    }

    /// Notes whether the connection waits for memory; afterwards it counts as fresh.
    pub(super) fn wait(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
        self.settle();
    }

    /// The rank for eviction, if the connection can close.
    pub(super) fn eviction_rank(&self) -> Option<EvictionRank> {
        let can_close = self.can_close()
            && !self.evicted.load(Ordering::Relaxed)
            && !self.waiting.load(Ordering::Relaxed);
        can_close.then(|| EvictionRank {
            quiet: self.is_quiet(),
            silence: self.silence(),
        })
    }

    /// Whether no request makes progress.
    pub(super) fn can_close(&self) -> bool {
        let patience = if self.is_quiet() { FRESH } else { SLOW };
        self.is_overdrawn() || self.silence() >= patience
    }

    pub(super) fn ask_to_close(&self) {
        self.evicted.store(true, Ordering::Relaxed);
        self.close_request.notify_one();
    }

    /// Waits for a request to close; returns whether to close at once.
    pub(super) async fn asked_to_close(&self) -> bool {
        self.close_request.notified().await;
        self.is_overdrawn()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Counts a request as in flight until it is dropped.
pub(super) struct InFlight(Arc<ConnectionState>);

impl InFlight {
    pub(super) fn state(&self) -> Arc<ConnectionState> {
        Arc::clone(&self.0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.settle();
    }
}
