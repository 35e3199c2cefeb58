//! The table of client connections: it bounds the memory they use together and evicts the idlest where
//! slots or memory are scarce. Otherwise clients could use up the memory, or keep others out, with
//! connections that they leave open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::connection_cost::{HTTP1, HTTP2, SECURE, SILENT, STEP_COSTS};
use super::connection_state::{ConnectionState, EvictionRank};
use crate::budget::Budget;
use crate::lock::lock;
use crate::logging::LogThrottle;
use crate::senders::Sender;

/// The interval of evictions while a connection waits.
const EVICTION_INTERVAL: Duration = Duration::from_millis(20);

/// The number of connections that one eviction compares.
const CANDIDATES: usize = 64;

/// All client connections of the process.
pub(crate) struct ConnectionTable {
    /// The number of connections.
    slots: Arc<Semaphore>,
    /// KiB of memory for connections, counted by the budget.
    memory: Arc<Semaphore>,
    entries: Mutex<TableEntries>,
    scarce: LogThrottle,
}

#[derive(Default)]
struct TableEntries {
    /// In the order of their beginning.
    states: BTreeMap<u64, Arc<ConnectionState>>,
    /// The number of the next connection.
    next: u64,
    /// The number of the connection at which the next eviction starts to compare.
    cursor: u64,
    /// When the last eviction for requests was.
    made_room: Option<Instant>,
}

impl ConnectionTable {
    /// A table for `most` connections.
    pub(crate) fn new(most: usize, budget: &Budget) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(most)),
            memory: Arc::clone(&budget.connections),
            entries: Mutex::default(),
            scarce: LogThrottle::default(),
        })
    }

    fn entries(&self) -> MutexGuard<'_, TableEntries> {
        lock(&self.entries)
    }

    /// Adds an accepted connection; evicts others if the table is full.
    pub(crate) async fn enter(self: &Arc<Self>, sender: Arc<Sender>) -> Option<ConnectionSlot> {
        let permit = self.wait_for(&self.slots, 1).await?;
        let memory = self.wait_for(&self.memory, SILENT).await?;
        sender.connected();
        let state = ConnectionState::new(memory, sender);
        let mut entries = self.entries();
        let number = entries.next;
        entries.next += 1;
        entries.states.insert(number, Arc::clone(&state));
        drop(entries);
        Some(ConnectionSlot {
            table: Arc::clone(self),
            number,
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

    /// Makes room for more requests on one connection, so that they find it when they come again.
    pub(super) fn make_room_for_requests(&self) {
        let mut entries = self.entries();
        let is_due = |last: Instant| last.elapsed() >= EVICTION_INTERVAL;
        if entries.made_room.is_none_or(is_due) {
            entries.made_room = Some(Instant::now());
            drop(entries);
            self.make_room(STEP_COSTS);
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
        let TableEntries { states, cursor, .. } = &mut *entries;
        let from = *cursor;
        let candidates = states.range(from..).chain(states.range(..from));
        let mut first: Option<(EvictionRank, Arc<ConnectionState>)> = None;
        for (number, state) in candidates.take(CANDIDATES) {
            *cursor = number + 1;
            if let Some(rank) = state.eviction_rank()
                && may_close(&rank)
                && first.as_ref().is_none_or(|(best, _)| rank > *best)
            {
                first = Some((rank, Arc::clone(state)));
            }
        }
        drop(entries);
        let (_, state) = first?;
        state.ask_to_close();
        let progress = state.progress();
        let memory = progress.memory.as_ref();
        Some(memory.map_or(0, OwnedSemaphorePermit::num_permits))
    }
}

/// The entry of one connection, gone when dropped.
pub(crate) struct ConnectionSlot {
    table: Arc<ConnectionTable>,
    number: u64,
    pub(super) state: Arc<ConnectionState>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlot {
    /// Waits for the memory of a speaking connection and of its first requests, which it must never lack.
    pub(super) async fn speak(&self, is_http2: bool) {
        let costs = if is_http2 { HTTP2 } else { HTTP1 };
        self.pay(costs - SILENT).await;
    }

    /// Waits for the memory of TLS.
    pub(super) async fn speak_tls(&self) {
        self.pay(SECURE).await;
    }

    async fn pay(&self, more: u32) {
        self.state.progress().wait(true);
        let more = self.table.wait_for(&self.table.memory, more).await;
        let mut progress = self.state.progress();
        progress.wait(false);
        if let (Some(memory), Some(more)) = (&mut progress.memory, more) {
            memory.merge(more);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut progress = self.state.progress();
        // Request bodies that are still being discarded keep the state alive.
        progress.memory = None;
        drop(progress);
        self.state.sender.disconnected();
        self.table.entries().states.remove(&self.number);
    }
}
