//! One lane per signal: acknowledged requests in order of arrival, in memory and, where a storage is
//! configured, on disk; cut into batches by size and by age. Must not know where requests come from or
//! how batches are sent.

mod batch;
mod disk;
mod keep;
mod tend;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use otlp_wire::Signal;
use segment_log::Position;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::disk::{Disk, Put, Refill};
use crate::budget::Permit;
use crate::config::Queue;
use crate::metrics::{Metrics, Transport};

pub(crate) use self::batch::Batch;
pub(crate) use self::keep::{Keep, Ticket};
pub(crate) use self::tend::Tender;

/// An acknowledged request: its bytes, edited and inspected.
#[derive(Debug)]
pub(crate) struct Held {
    /// The whole `Export<Signal>ServiceRequest`.
    pub(crate) bytes: Bytes,
    /// Spans, data points or log records in it.
    pub(crate) items: usize,
    /// What it costs of the memory budget, given back when it is dropped.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) permit: Permit,
}

/// Who handed a request in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A client, which is answered.
    Client(Transport),
    /// An earlier process, by way of the disk.
    Recovered,
}

/// The queue of its signal has no room.
#[derive(Debug)]
pub(crate) struct Full;

/// What waits for the upstream, of one signal.
#[derive(Debug)]
pub(crate) struct Lane {
    /// What it carries.
    pub(crate) signal: Signal,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// A batch may be ready.
    ready: Notify,
    /// Only where the queue is to be on disk.
    keep: Option<Keep>,
}

#[derive(Debug)]
struct State {
    limits: Queue,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Waiting and in flight, in memory or on disk.
    held_bytes: usize,
    flushing: bool,
    closed: bool,
    /// Only where the queue is to be on disk.
    disk: Option<Disk>,
}

/// A request in memory.
#[derive(Debug)]
struct Waiting {
    held: Held,
    since: Instant,
    /// Where it is on disk.
    place: Option<Position>,
}

/// What the dispatcher should do.
enum Next {
    Send(Batch),
    Refill(Refill),
    WaitUntil(Instant),
    Wait,
    Finished,
}

impl Lane {
    /// An empty lane; with `keep`, in memory until a log is attached.
    pub(crate) fn new(
        signal: Signal,
        limits: Queue,
        metrics: Arc<Metrics>,
        keep: Option<Keep>,
    ) -> Arc<Self> {
        let state = State {
            limits,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            held_bytes: 0,
            flushing: false,
            closed: false,
            disk: keep.is_some().then(Disk::default),
        };
        Arc::new(Self {
            signal,
            metrics,
            state: Mutex::new(state),
            ready: Notify::new(),
            keep,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; a poisoned state would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other limits from now on. What is held already stays, even above a smaller capacity.
    pub(crate) fn set_limits(&self, limits: Queue) {
        self.state().limits = limits;
        self.ready.notify_one();
    }

    /// Bytes it may hold.
    pub(crate) fn capacity(&self) -> usize {
        self.state().limits.capacity
    }

    /// Whether `bytes` more would fit now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.state().has_room(bytes)
    }

    /// Whether nothing more is taken, because the agent ends.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Takes a request over; from here on it is delivered or counted as lost. It may be acknowledged
    /// when the ticket says so.
    ///
    /// # Errors
    /// Nothing has happened where there is no room, nor once the lane is closed.
    pub(crate) fn push(&self, held: Held, origin: Origin) -> Result<Ticket, Full> {
        let bytes = held.bytes.len();
        let mut state = self.state();
        if state.closed || !state.has_room(bytes) {
            return Err(Full);
        }
        match origin {
            Origin::Client(transport) => {
                self.metrics
                    .accepted(self.signal, transport, held.items, bytes);
            }
            Origin::Recovered => {
                let items = held.items as u64;
                self.metrics.recovered(self.signal, items, bytes as u64);
            }
        }
        let spill = self.is_memory_short(state.memory_bytes(), bytes);
        state.held_bytes += bytes;
        let waiting = Waiting {
            held,
            since: Instant::now(),
            place: None,
        };
        let (put, failed) = match &mut state.disk {
            None => (Put::Memory(waiting), None),
            Some(disk) => disk.put(waiting, spill),
        };
        let (sequence, notify) = match put {
            Put::Disk(place, first) => (Some(place.sequence), first),
            Put::Behind => (None, false),
            Put::Memory(waiting) => {
                let sequence = waiting.place.map(|place| place.sequence);
                (sequence, state.wait(waiting))
            }
        };
        drop(state);
        if notify {
            self.ready.notify_one();
        }
        if let Some(error) = failed {
            self.tell_failing(&error);
        }
        Ok(self.ticket(sequence))
    }

    /// Waits for the next batch; `None` once the lane is closed and empty. For one dispatcher.
    pub(crate) async fn next(self: &Arc<Self>) -> Option<Batch> {
        loop {
            let ready = self.ready.notified();
            match self.look(Instant::now()) {
                Next::Send(batch) => return Some(batch),
                Next::Refill(refill) => self.refill(refill).await,
                Next::WaitUntil(deadline) => {
                    let _ = tokio::time::timeout_at(deadline, ready).await;
                }
                Next::Wait => ready.await,
                Next::Finished => return None,
            }
        }
    }

    fn look(self: &Arc<Self>, now: Instant) -> Next {
        let mut state = self.state();
        if let Some(next) = self.look_on_disk(&mut state, now) {
            return next;
        }
        let Some(oldest) = state.waiting.front() else {
            return if state.closed {
                Next::Finished
            } else {
                Next::Wait
            };
        };
        let due = oldest.since + state.limits.flush_timeout;
        let is_large = state.waiting_bytes >= state.limits.min_size || !self.signal.is_mergeable();
        if !is_large && now < due && !state.flushing {
            return Next::WaitUntil(due);
        }
        Next::Send(self.cut(&mut state))
    }

    /// Cuts the next batch off what waits.
    fn cut(self: &Arc<Self>, state: &mut State) -> Batch {
        let mut parts = Vec::new();
        let mut places = Vec::new();
        let mut bytes = 0;
        while let Some(waiting) = state.waiting.front() {
            let more = waiting.held.bytes.len();
            let fits = self.signal.is_mergeable() && bytes + more <= state.limits.max_size;
            if !parts.is_empty() && !fits {
                break;
            }
            let Some(waiting) = state.waiting.pop_front() else {
                break;
            };
            bytes += more;
            places.extend(waiting.place);
            parts.push(waiting.held);
        }
        state.waiting_bytes -= bytes;
        let parts = Arc::new(parts);
        let id = match &mut state.disk {
            None => 0,
            Some(disk) => disk.goes_out(&parts, &places),
        };
        Batch::new(Arc::clone(self), id, parts, bytes)
    }

    /// From now on what arrives is sent without waiting for company.
    pub(crate) fn flush(&self) {
        self.state().flushing = true;
        self.ready.notify_one();
    }

    /// Nothing more will arrive.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_one();
    }

    /// Counts what still waits as lost in shutdown, unless it is on disk.
    pub(crate) fn abandon(self: &Arc<Self>) {
        let mut state = self.state();
        let behind = state.disk.as_mut().map(Disk::take_behind);
        let drained: Vec<_> = state.waiting.drain(..).collect();
        state.waiting_bytes = 0;
        drop(state);
        let (items, bytes) = drained
            .into_iter()
            .chain(behind.into_iter().flatten())
            .filter(|waiting| waiting.place.is_none())
            .fold((0, 0), |(items, bytes), waiting| {
                (
                    items + waiting.held.items as u64,
                    bytes + waiting.held.bytes.len(),
                )
            });
        self.lost_in_shutdown(items, bytes);
    }

    /// Bytes waiting and in flight, in memory or on disk.
    pub(crate) fn held_bytes(&self) -> usize {
        let state = self.state();
        state.held_bytes.saturating_add(state.leftover())
    }

    /// How long the oldest waiting request has waited.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let state = self.state();
        let on_disk = state.disk.as_ref().and_then(Disk::since);
        let oldest = state.waiting.front().map(|waiting| waiting.since);
        let since = oldest.into_iter().chain(on_disk).min();
        since.map(|since| since.elapsed())
    }

    fn lost_in_shutdown(&self, items: u64, bytes: usize) {
        if bytes > 0 {
            self.metrics
                .lost(self.signal, crate::metrics::Lost::Shutdown, items);
            self.release(items, bytes);
        }
    }

    /// Items leave the books; their delivery or loss has been counted.
    fn release(&self, items: u64, bytes: usize) {
        self.metrics.released(self.signal, items, bytes as u64);
        let mut state = self.state();
        state.held_bytes = state.held_bytes.saturating_sub(bytes);
    }
}

impl State {
    fn has_room(&mut self, bytes: usize) -> bool {
        let held = self.held_bytes.saturating_add(self.leftover());
        held.saturating_add(bytes) <= self.limits.capacity
            && self.disk.as_mut().is_none_or(|disk| disk.has_room(bytes))
    }

    /// Bytes earlier processes have left on disk, not looked into yet.
    fn leftover(&self) -> usize {
        self.disk.as_ref().map_or(0, Disk::leftover)
    }

    /// Bytes of requests in memory, waiting and in flight.
    fn memory_bytes(&self) -> usize {
        let only_on_disk = self.disk.as_ref().map_or(0, Disk::only_bytes);
        self.held_bytes.saturating_sub(only_on_disk)
    }

    /// Lets what arrived while the disk failed wait like the rest; meant for when nothing before it is on
    /// disk only.
    fn join_behind(&mut self) {
        let behind = self.disk.as_mut().map(Disk::take_behind);
        for waiting in behind.into_iter().flatten() {
            self.wait(waiting);
        }
    }

    /// Appends to what waits; whether the dispatcher should look.
    fn wait(&mut self, waiting: Waiting) -> bool {
        let min_size = self.limits.min_size;
        let was_empty = self.waiting.is_empty();
        let was_ready = self.waiting_bytes >= min_size;
        self.waiting_bytes += waiting.held.bytes.len();
        self.waiting.push_back(waiting);
        was_empty || (self.waiting_bytes >= min_size && !was_ready)
    }
}
