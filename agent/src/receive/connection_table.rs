//! The table of client connections: it bounds the memory they use together and evicts the idlest where
//! slots or memory are scarce. Otherwise clients could use up the memory, or keep others out, with
//! connections that they leave open.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::warn;

use super::connection_cost::{ConnectionCost, SECURE, SILENT, SPEAKING, STEP, STEP_COSTS};
use super::connection_state::{ConnectionState, EvictionRank, MakeRoom};
use crate::budget::Budget;
use crate::lock::lock;
use crate::logging::LogThrottle;

/// Connections together may use this fraction of the memory limit.
const FRACTION: usize = 4;

/// The minimum number of clients, however small the memory limit.
const FEWEST: usize = 16;

/// The interval of evictions while a connection waits.
const EVICTION_INTERVAL: Duration = Duration::from_millis(20);

/// The number of connections that one eviction compares.
const CANDIDATES: usize = 64;

/// All client connections of the process.
pub(crate) struct ConnectionTable {
    /// The number of connections.
    slots: Arc<Semaphore>,
    /// KiB of memory for connections.
    memory: Arc<Semaphore>,
    budget: Arc<Budget>,
    entries: Mutex<TableEntries>,
    scarce: LogThrottle,
}

#[derive(Default)]
struct TableEntries {
    states: Vec<Option<Arc<ConnectionState>>>,
    free: Vec<usize>,
    /// Where the next eviction starts to compare.
    cursor: usize,
}

impl ConnectionTable {
    /// A table for `most` connections, which together use at most a quarter of `limit` bytes.
    pub(crate) fn new(most: usize, limit: usize, budget: Arc<Budget>) -> Arc<Self> {
        let memory = (limit / FRACTION / 1024).max(FEWEST * (SPEAKING + STEP_COSTS) as usize);
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(most)),
            memory: Arc::new(Semaphore::new(memory.min(Semaphore::MAX_PERMITS))),
            budget,
            entries: Mutex::default(),
            scarce: LogThrottle::default(),
        })
    }

    fn entries(&self) -> MutexGuard<'_, TableEntries> {
        lock(&self.entries)
    }

    /// Adds an accepted connection; evicts others if the table is full.
    pub(crate) async fn enter(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let permit = self.wait_for(&self.slots, 1).await?;
        let memory = self.wait_for(&self.memory, SILENT).await?;
        let table: Weak<Self> = Arc::downgrade(self);
        let state =
            ConnectionState::new(ConnectionCost::new(memory, self.budget.overhead()), table);
        let mut entries = self.entries();
        let index = entries.free.pop().unwrap_or(entries.states.len());
        let entry = Some(Arc::clone(&state));
        match entries.states.get_mut(index) {
            Some(slot) => *slot = entry,
            None => entries.states.push(entry),
        }
        drop(entries);
        Some(ConnectionSlot {
            table: Arc::clone(self),
            index,
            state,
            _permit: permit,
        })
    }

    async fn wait_for(&self, of: &Arc<Semaphore>, many: u32) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(of).try_acquire_many_owned(many) {
            return Some(permit);
        }
        if let Some(left_out) = self.scarce.due() {
            warn!(left_out, "too many connections; closing the idlest");
        }
        let mut free = std::pin::pin!(Arc::clone(of).acquire_many_owned(many));
        loop {
            self.make_room(many);
            if let Ok(permit) = timeout(EVICTION_INTERVAL, free.as_mut()).await {
                return permit.ok();
            }
        }
    }

    /// Evicts connections that together use this many KiB, each time the idlest or slowest of a few. For a
    /// slot one KiB is enough, since every connection uses more.
    fn make_room(&self, costs: u32) {
        let mut missing = costs as usize;
        while missing > 0 {
            let Some(freed) = self.evict(|_| true) else {
                return;
            };
            missing = missing.saturating_sub(freed);
        }
    }

    /// Evicts one connection with a slow sender. Used when memory is short: unfinished requests must not
    /// keep others out.
    pub(super) fn evict_slow_sender(&self) {
        self.evict(|rank| !rank.quiet);
    }

    /// Asks one connection to close and returns the KiB it uses.
    fn evict(&self, may_close: impl Fn(&EvictionRank) -> bool) -> Option<usize> {
        let mut entries = self.entries();
        let mut first: Option<(EvictionRank, Arc<ConnectionState>)> = None;
        let all = entries.states.len();
        for _ in 0..CANDIDATES.min(all) {
            entries.cursor = (entries.cursor + 1) % all;
            let Some(Some(state)) = entries.states.get(entries.cursor) else {
                continue;
            };
            let rank = state.eviction_rank().filter(&may_close);
            if let Some(rank) =
                rank.filter(|rank| first.as_ref().is_none_or(|(best, _)| rank > best))
            {
                first = Some((rank, Arc::clone(state)));
            }
        }
        drop(entries);
        let (_, state) = first?;
        state.ask_to_close();
        Some(state.with_cost(|cost| cost.as_ref().map_or(0, ConnectionCost::kib)))
    }
}

impl MakeRoom for ConnectionTable {
    fn make_room_for_requests(&self) {
        self.make_room(STEP_COSTS);
    }
}

/// The entry of one connection, free again when dropped.
pub(crate) struct ConnectionSlot {
    table: Arc<ConnectionTable>,
    index: usize,
    pub(super) state: Arc<ConnectionState>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlot {
    /// Waits for the memory of a speaking connection and of its first requests, which it must never lack.
    pub(super) async fn speak(&self) {
        self.pay(SPEAKING - SILENT + STEP_COSTS).await;
        self.state.paid_for(STEP as usize);
    }

    /// Waits for the memory of TLS.
    pub(super) async fn speak_tls(&self) {
        self.pay(SECURE).await;
    }

    async fn pay(&self, more: u32) {
        self.state.wait(true);
        let more = self.table.wait_for(&self.table.memory, more).await;
        self.state.wait(false);
        self.state.with_cost(|cost| {
            if let (Some(cost), Some(more)) = (cost, more) {
                cost.add(more);
            }
        });
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        // Request bodies that are still being discarded keep the state alive.
        self.state.with_cost(|cost| *cost = None);
        let mut entries = self.table.entries();
        if let Some(slot) = entries.states.get_mut(self.index) {
            *slot = None;
            entries.free.push(self.index);
        }
    }
}
