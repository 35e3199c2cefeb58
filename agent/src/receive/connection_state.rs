//! The state of one client connection: requests in flight, time of silence, whether it must close, and the
//! memory it uses.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::connection_cost::{FIRST, STEP, STEP_COSTS, UNPAID};
use crate::lock::lock;
use crate::senders::Sender;

/// The time limit for the headers of a request, up to one check longer.
const HEADERS: Duration = Duration::from_secs(10);

/// A request that takes longer has a slow sender; the table may evict such a connection like an idle one.
const SLOW: Duration = Duration::from_secs(1);

/// A connection that was just opened or answered gets this long for its next request before the table may
/// evict it.
const FRESH: Duration = Duration::from_millis(250);

/// The state of one connection.
pub(super) struct ConnectionState {
    progress: Mutex<ReadProgress>,
    /// The number of times its task has run.
    polls: AtomicU64,
    close_request: Notify,
    /// Whose connection it is.
    pub(super) sender: Arc<Sender>,
}

/// What has happened to a connection.
#[expect(clippy::struct_excessive_bools, reason = "any of them may be true")]
pub(super) struct ReadProgress {
    in_flight: usize,
    /// Of these, the requests whose bodies have not arrived.
    arriving: usize,
    /// Whether any request has arrived.
    pub(super) served: bool,
    /// The time a request last began or ended.
    changed: Instant,
    /// The arrival of the first byte of incomplete headers.
    partial_since: Option<Instant>,
    /// It waits for memory itself.
    waiting: bool,
    /// It was asked to close.
    evicted: bool,
    /// It will close; HTTP/1.1 announces this in the next answer.
    pub(super) closing: bool,
    /// It uses more memory than it may and closes at once.
    pub(super) overdrawn: bool,
    /// The number of concurrent requests for which it has reserved memory.
    paid: usize,
    /// The KiB of memory it uses; `None` after its end.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

/// The order of eviction: connections of a sender with many of them first, then those without a request before
/// those with a slow sender, and the longest silent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EvictionRank {
    crowd: u32,
    /// It has no request in flight.
    pub(super) quiet: bool,
    silence: Duration,
}

impl ReadProgress {
    fn settle(&mut self) {
        self.changed = Instant::now();
        self.partial_since = None;
    }

    fn is_quiet(&self) -> bool {
        self.in_flight == 0
    }

    pub(super) fn bytes_arrived(&mut self) {
        if self.is_quiet() {
            self.partial_since.get_or_insert_with(Instant::now);
        }
    }

    /// Notes whether the connection waits for memory; afterwards it counts as fresh.
    pub(super) fn wait(&mut self, waiting: bool) {
        self.waiting = waiting;
        self.settle();
    }

    /// Whether the connection had no request for this long; zero means no limit.
    pub(super) fn is_idle(&self, limit: Duration) -> bool {
        !limit.is_zero() && self.is_quiet() && self.changed.elapsed() >= limit
    }

    /// Whether incomplete headers exceed their time limit.
    pub(super) fn is_stuck(&self) -> bool {
        let since = self.partial_since.filter(|_| self.is_quiet());
        since.is_some_and(|since| since.elapsed() >= HEADERS)
    }

    /// Whether no request makes progress. One that has arrived waits for the agent, not for its sender.
    pub(super) fn can_close(&self) -> bool {
        let patience = if self.is_quiet() { FRESH } else { SLOW };
        let waits_for_client = self.is_quiet() || self.arriving > 0;
        self.overdrawn || (waits_for_client && self.changed.elapsed() >= patience)
    }

    /// Reserves memory for more concurrent requests than before; HTTP/2 keeps that memory until the
    /// connection ends. Returns whether connections may use that much.
    fn pay_for_more(&mut self) -> bool {
        let Some(memory) = &mut self.memory else {
            return false;
        };
        let all = Arc::clone(memory.semaphore());
        let Ok(more) = all.try_acquire_many_owned(STEP_COSTS) else {
            return false;
        };
        memory.merge(more);
        self.paid += STEP as usize;
        true
    }
}

impl ConnectionState {
    pub(super) fn new(memory: OwnedSemaphorePermit, sender: Arc<Sender>) -> Arc<Self> {
        Arc::new(Self {
            progress: Mutex::new(ReadProgress {
                in_flight: 0,
                arriving: 0,
                served: false,
                changed: Instant::now(),
                partial_since: None,
                waiting: false,
                evicted: false,
                closing: false,
                overdrawn: false,
                paid: FIRST,
                memory: Some(memory),
            }),
            polls: AtomicU64::new(0),
            close_request: Notify::new(),
            sender,
        })
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, ReadProgress> {
        lock(&self.progress)
    }

    pub(super) async fn run(&self, mut connection: Pin<Box<dyn Future<Output = ()> + Send>>) {
        poll_fn(|cx| {
            self.polls.fetch_add(1, Ordering::Relaxed);
            connection.as_mut().poll(cx)
        })
        .await;
    }

    /// The rank for eviction, if the connection can close.
    pub(super) fn eviction_rank(&self) -> Option<EvictionRank> {
        let progress = self.progress();
        let can_close = progress.can_close() && !progress.evicted && !progress.waiting;
        can_close.then(|| EvictionRank {
            crowd: self.sender.crowd(),
            quiet: progress.is_quiet(),
            silence: progress.changed.elapsed(),
        })
    }

    pub(super) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        let mut progress = self.progress();
        progress.in_flight += 1;
        progress.served = true;
        progress.settle();
        let is_paid = progress.in_flight <= progress.paid || progress.pay_for_more();
        progress.overdrawn |= progress.in_flight > progress.paid + UNPAID;
        let is_overdrawn = progress.overdrawn;
        drop(progress);
        if is_overdrawn {
            self.ask_to_close();
        }
        InFlight {
            state: Arc::clone(self),
            is_paid,
        }
    }

    /// The rest of a refused request is still to come.
    pub(super) fn go_on(self: &Arc<Self>) -> InFlight {
        self.progress().in_flight += 1;
        InFlight {
            state: Arc::clone(self),
            is_paid: true,
        }
    }

    pub(super) fn ask_to_close(&self) {
        self.progress().evicted = true;
        self.close_request.notify_one();
    }

    /// Waits for a request to close; returns whether to close at once.
    pub(super) async fn asked_to_close(&self) -> bool {
        self.close_request.notified().await;
        self.progress().overdrawn
    }
}

/// Counts a request as in flight until it is dropped.
pub(super) struct InFlight {
    pub(super) state: Arc<ConnectionState>,
    /// Whether the connection has memory for it.
    pub(super) is_paid: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut progress = self.state.progress();
        progress.in_flight -= 1;
        progress.settle();
    }
}

/// Counts the body of a request as not yet arrived until it is dropped.
pub(super) struct Arriving(Arc<ConnectionState>);

impl Arriving {
    pub(super) fn new(state: &Arc<ConnectionState>) -> Self {
        state.progress().arriving += 1;
        Self(Arc::clone(state))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.progress().arriving -= 1;
    }
}
