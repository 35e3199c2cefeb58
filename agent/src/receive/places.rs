//! Places for client connections: what each costs of the memory limit, and which of them makes way
//! where they are scarce. Without that, whoever opens connections and leaves them open could use up
//! the memory, or keep everybody else out. Must not know HTTP.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::warn;

use super::pulse::{Pulse, Rank};
use crate::budget::{Budget, Overhead};
use crate::fold::Fold;

/// What a connection costs that has not said anything, in KiB: its task. 1.6 were measured.
const SILENT: u32 = 2;

/// What it costs from its first byte on, in KiB: the buffers of its protocol. Measured: 23 of
/// HTTP/1.1, 26 of HTTP/2.
const SPEAKING: u32 = 28;

/// What TLS costs from its first byte on, in KiB, beside the connection. Measured: 12 in a handshake and
/// after it, 26 where a record of 16 KiB has begun and does not end.
const SECURE: u32 = 26;

/// What a request costs that is in flight at the same time as others, in KiB, for as long as the
/// connection lives. Measured: 2.5.
const REQUEST: u32 = 3;

/// Requests are paid for so many at a time, the first with the connection's first byte.
const STEP: u32 = 8;

/// What they cost, in KiB.
const STEP_COSTS: u32 = STEP * REQUEST;

/// The share of the memory limit that connections may cost together.
const SHARE: usize = 4;

/// However small the memory limit is, so many clients are served.
const FEWEST: usize = 16;

/// How often more connections are asked to leave while one waits for a place.
const PATIENCE: Duration = Duration::from_millis(20);

/// Connections that are looked at to find one that can go.
const LOOK: usize = 64;

/// All places of the process.
pub(crate) struct Places {
    /// Connections.
    seats: Arc<Semaphore>,
    /// KiB of memory.
    memory: Arc<Semaphore>,
    budget: Arc<Budget>,
    taken: Mutex<Taken>,
    scarce: Fold,
}

#[derive(Default)]
struct Taken {
    pulses: Vec<Option<Arc<Pulse>>>,
    free: Vec<usize>,
    /// Where the next look begins.
    hand: usize,
}

impl Places {
    /// At most `most` connections, together costing at most a quarter of `limit` bytes.
    pub(crate) fn new(most: usize, limit: usize, budget: Arc<Budget>) -> Arc<Self> {
        let memory = (limit / SHARE / 1024).max(FEWEST * (SPEAKING + STEP_COSTS) as usize);
        Arc::new(Self {
            seats: Arc::new(Semaphore::new(most)),
            memory: Arc::new(Semaphore::new(memory.min(Semaphore::MAX_PERMITS))),
            budget,
            taken: Mutex::default(),
            scarce: Fold::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while the lock is held; a poisoned state would still be consistent.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that has just been accepted; others leave for it where none is free.
    pub(crate) async fn enter(self: &Arc<Self>) -> Option<Place> {
        let seat = self.wait_for(&self.seats, 1).await?;
        let memory = self.wait_for(&self.memory, SILENT).await?;
        let pulse = Pulse::new(Cost::new(memory, self.budget.overhead()), self);
        let mut taken = self.taken();
        let index = taken.free.pop().unwrap_or(taken.pulses.len());
        let entry = Some(Arc::clone(&pulse));
        match taken.pulses.get_mut(index) {
            Some(slot) => *slot = entry,
            None => taken.pulses.push(entry),
        }
        drop(taken);
        Some(Place {
            places: Arc::clone(self),
            index,
            pulse,
            _seat: seat,
        })
    }

    async fn wait_for(&self, of: &Arc<Semaphore>, many: u32) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(of).try_acquire_many_owned(many) {
            return Some(permit);
        }
        if let Some(left_out) = self.scarce.due() {
            warn!(left_out, "too many connections; the idlest are closed");
        }
        let mut free = std::pin::pin!(Arc::clone(of).acquire_many_owned(many));
        loop {
            self.make_way(many);
            if let Ok(permit) = timeout(PATIENCE, free.as_mut()).await {
                return permit.ok();
            }
        }
    }

    /// Asks connections to leave that cost this many KiB together: the idlest of a few each time, or
    /// those whose sender is slow. One seat is as good as one KiB: whoever leaves has more.
    fn make_way(&self, costs: u32) {
        let mut missing = costs as usize;
        while missing > 0 {
            let Some(freed) = self.dismiss(|_| true) else {
                return;
            };
            missing = missing.saturating_sub(freed);
        }
    }

    /// The same for the next request of a connection that could not pay for it.
    pub(super) fn make_way_for_requests(&self) {
        self.make_way(STEP_COSTS);
    }

    /// Asks one connection to leave whose sender is slow. For when memory is short: requests that never
    /// end must not keep out those that do.
    pub(super) fn end_a_slow_one(&self) {
        self.dismiss(|rank| !rank.quiet);
    }

    /// What the connection costs that was asked to leave, in KiB.
    fn dismiss(&self, may_go: impl Fn(&Rank) -> bool) -> Option<usize> {
        let mut taken = self.taken();
        let mut first: Option<(Rank, Arc<Pulse>)> = None;
        let all = taken.pulses.len();
        for _ in 0..LOOK.min(all) {
            taken.hand = (taken.hand + 1) % all;
            let Some(Some(pulse)) = taken.pulses.get(taken.hand) else {
                continue;
            };
            let rank = pulse.dispensable().filter(&may_go);
            if let Some(rank) =
                rank.filter(|rank| first.as_ref().is_none_or(|(best, _)| rank > best))
            {
                first = Some((rank, Arc::clone(pulse)));
            }
        }
        drop(taken);
        let (_, pulse) = first?;
        pulse.ask_to_leave();
        Some(pulse.with_cost(|cost| cost.as_ref().map_or(0, Cost::kib)))
    }
}

/// What a connection costs now.
#[derive(Debug)]
pub(super) struct Cost {
    memory: OwnedSemaphorePermit,
    overhead: Overhead,
}

impl Cost {
    fn new(memory: OwnedSemaphorePermit, overhead: Overhead) -> Self {
        let mut cost = Self { memory, overhead };
        cost.charge();
        cost
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        self.memory.merge(more);
        self.charge();
    }

    fn kib(&self) -> usize {
        self.memory.num_permits()
    }

    fn charge(&mut self) {
        self.overhead.set(self.kib() * 1024);
    }

    /// Pays for some more requests in flight; for how many. `None` where connections cost what they may.
    pub(super) fn more_requests(&mut self) -> Option<usize> {
        let all = Arc::clone(self.memory.semaphore());
        self.add(all.try_acquire_many_owned(STEP_COSTS).ok()?);
        Some(STEP as usize)
    }
}

/// The place of one connection, free again when it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    index: usize,
    pub(super) pulse: Arc<Pulse>,
    _seat: OwnedSemaphorePermit,
}

impl Place {
    /// Waits until the connection may cost what one does that speaks, its first requests included:
    /// whoever got so far must not be closed for want of them.
    pub(super) async fn speak(&self) {
        self.pay(SPEAKING - SILENT + STEP_COSTS).await;
        self.pulse.paid_for(STEP as usize);
    }

    /// Waits until the connection may cost what TLS does.
    pub(super) async fn speak_tls(&self) {
        self.pay(SECURE).await;
    }

    async fn pay(&self, more: u32) {
        self.pulse.wait(true);
        let more = self.places.wait_for(&self.places.memory, more).await;
        self.pulse.wait(false);
        self.pulse.with_cost(|cost| {
            if let (Some(cost), Some(more)) = (cost, more) {
                cost.add(more);
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Requests that are still being thrown away keep the pulse.
        self.pulse.with_cost(|cost| *cost = None);
        let mut taken = self.places.taken();
        if let Some(slot) = taken.pulses.get_mut(self.index) {
            *slot = None;
            taken.free.push(self.index);
        }
    }
}
