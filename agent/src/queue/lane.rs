//! One lane per signal: acknowledged requests in order of arrival, in memory and, if configured, on disk, cut
//! into batches by size and by age.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use otlp_wire::Signal;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::disk::{DiskState, Placement, Refill};
use super::durable::{AckHandle, DurableQueue, PAUSE};
use super::request::{BOOKKEEPING, Origin, QueueFull, QueuedRequest, WaitingRequest};
use crate::config::Queue;
use crate::lock::lock;
use crate::metrics::{Lost, Metrics};
use crate::senders::{QueueShares, Sender, reserve};

/// The largest number of requests in a batch.
const MOST_REQUESTS: usize = 8192;

/// The queue of one signal.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The signal of its requests.
    pub(crate) signal: Signal,
    pub(super) metrics: Arc<Metrics>,
    state: Mutex<LaneState>,
    /// Signals that a batch may be ready.
    pub(super) ready: Notify,
    /// Signals that the disk has work.
    pub(super) work: Condvar,
    /// Set if the queue belongs on disk.
    pub(super) durable: Option<Arc<DurableQueue>>,
}

#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) limits: Queue,
    /// The largest batch that the upstream takes, as far as is known.
    most: usize,
    pub(super) waiting: VecDeque<WaitingRequest>,
    pub(super) waiting_bytes: usize,
    /// What requests count for, waiting and in flight, in memory and on disk; see [`Lane::charge`].
    pub(super) held_bytes: usize,
    /// What compression saves of that.
    pub(super) saved_bytes: usize,
    /// Whether the upstream fails, so that nothing is kept in memory that is on disk.
    pub(super) upstream_fails: bool,
    /// The bytes in flight that wait for another attempt.
    pub(super) repeated_bytes: usize,
    /// Whose they are.
    shares: QueueShares,
    flushing: bool,
    closed: bool,
    /// Set if the queue belongs on disk.
    pub(super) disk: Option<DiskState>,
}

/// The requests of a new batch.
pub(super) struct Cut {
    /// The number of the batch in [`DiskState`].
    pub(super) id: u64,
    pub(super) parts: Arc<Vec<QueuedRequest>>,
    pub(super) bytes: usize,
}

pub(super) enum NextStep {
    Send(Cut),
    Refill(Refill),
    WaitUntil(Instant),
    Wait,
    Finished,
}

impl Lane {
    /// An empty lane; with `durable` it works in memory until a log is attached.
    pub(crate) fn new(
        signal: Signal,
        limits: Queue,
        metrics: Arc<Metrics>,
        durable: Option<DurableQueue>,
    ) -> Arc<Self> {
        let state = LaneState {
            limits,
            most: usize::MAX,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            held_bytes: 0,
            saved_bytes: 0,
            upstream_fails: false,
            repeated_bytes: 0,
            shares: QueueShares::default(),
            flushing: false,
            closed: false,
            disk: durable.is_some().then(DiskState::default),
        };
        Arc::new(Self {
            signal,
            metrics,
            state: Mutex::new(state),
            ready: Notify::new(),
            work: Condvar::new(),
            durable: durable.map(Arc::new),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, LaneState> {
        lock(&self.state)
    }

    /// Changes the limits. Requests in the queue stay, even above a smaller capacity.
    pub(crate) fn set_limits(&self, limits: Queue) {
        self.state().limits = limits;
        self.ready.notify_one();
    }

    /// Cuts batches to at most `bytes` from now on, and to the configured size.
    pub(crate) fn limit_batches(&self, bytes: usize) {
        let mut state = self.state();
        if std::mem::replace(&mut state.most, bytes) > bytes {
            self.ready.notify_one();
        }
    }

    /// The maximum number of bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.state().limits.capacity
    }

    /// Whether `bytes` more of a sender fit now.
    pub(crate) fn has_room(&self, sender: &Sender, bytes: usize) -> bool {
        self.state().has_room(Some(sender), bytes)
    }

    /// Whether the lane accepts nothing more, because the agent ends.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Accepts a request; from then on it is delivered or counted as lost. The caller acknowledges it once
    /// the handle is ready.
    ///
    /// # Errors
    /// If the queue is full, for this sender at least, or closed.
    pub(crate) fn push(&self, held: QueuedRequest, origin: Origin) -> Result<AckHandle, QueueFull> {
        let bytes = self.charge(&held);
        let sender = held.permit.sender().cloned();
        let mut state = self.state();
        if state.closed || !state.has_room(sender.as_deref(), bytes) {
            return Err(QueueFull);
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
        let memory = state.memory_bytes();
        let is_outage = state.upstream_fails && memory + bytes > self.read_ahead();
        let spill = is_outage || self.is_memory_short(memory, bytes);
        state.held_bytes += bytes;
        if let Some(sender) = &sender {
            state.shares.add(sender, bytes);
        }
        let waiting = WaitingRequest {
            held,
            since: Instant::now(),
            position: None,
        };
        let put = match &mut state.disk {
            None => Placement::Memory(waiting),
            Some(disk) => disk.put(waiting, spill),
        };
        let (position, notify) = match put {
            Placement::Disk(position) => (Some(position), false),
            // If the disk does not answer, it need not wait.
            Placement::Behind => (None, true),
            Placement::Memory(waiting) => (waiting.position, state.wait(waiting)),
        };
        if position.is_some() {
            self.wake_writer(state);
        } else {
            drop(state);
        }
        if notify {
            self.ready.notify_one();
        }
        Ok(AckHandle {
            durable: self.durable.clone(),
            sequence: position.map(|position| position.sequence),
        })
    }

    /// The bytes of the queue that a request takes up. Without a disk its bookkeeping counts too, since the queue is
    /// in memory.
    pub(super) fn charge(&self, held: &QueuedRequest) -> usize {
        let bookkeeping = if self.is_durable() { 0 } else { BOOKKEEPING };
        held.bytes.len() + bookkeeping
    }

    /// Waits for the next batch; `None` once the lane is closed and empty. For a single dispatcher.
    pub(super) async fn next(self: &Arc<Self>) -> Option<Cut> {
        loop {
            let ready = self.ready.notified();
            match self.next_step(Instant::now()) {
                NextStep::Send(cut) => return Some(cut),
                NextStep::Refill(refill) => {
                    if !self.refill(refill) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                NextStep::WaitUntil(deadline) => {
                    let _ = tokio::time::timeout_at(deadline, ready).await;
                }
                NextStep::Wait => ready.await,
                NextStep::Finished => return None,
            }
        }
    }

    fn next_step(&self, now: Instant) -> NextStep {
        let mut state = self.state();
        if let Some(next) = self.next_step_on_disk(&mut state, now) {
            return next;
        }
        let Some(oldest) = state.waiting.front() else {
            return if state.closed {
                NextStep::Finished
            } else {
                NextStep::Wait
            };
        };
        let due = oldest.since + state.limits.flush_timeout;
        let is_large = state.is_ready() || oldest.held.is_alone;
        if !is_large && now < due && !state.flushing {
            return NextStep::WaitUntil(due);
        }
        NextStep::Send(Self::cut(&mut state))
    }

    /// Takes the next batch off the queue.
    fn cut(state: &mut LaneState) -> Cut {
        let mut parts = Vec::new();
        let mut positions = Vec::new();
        let mut bytes = 0;
        let mut is_alone = false;
        while let Some(waiting) = state.waiting.front() {
            let more = waiting.held.bytes.len();
            is_alone |= waiting.held.is_alone;
            let fits = !is_alone && bytes + more <= state.max_size() && parts.len() < MOST_REQUESTS;
            if !parts.is_empty() && !fits {
                break;
            }
            let Some(waiting) = state.waiting.pop_front() else {
                break;
            };
            bytes += more;
            positions.extend(waiting.position);
            parts.push(waiting.held);
        }
        state.waiting_bytes -= bytes;
        // Otherwise what a burst needed would stay.
        let (len, capacity) = (state.waiting.len(), state.waiting.capacity());
        if capacity > MOST_REQUESTS && capacity / 4 > len {
            state.waiting.shrink_to(len * 2);
        }
        let parts = Arc::new(parts);
        let id = match &mut state.disk {
            None => 0,
            Some(disk) => disk.track(&parts, &positions),
        };
        Cut { id, parts, bytes }
    }

    /// Sends requests without waiting for larger batches from now on.
    pub(crate) fn flush(&self) {
        self.state().flushing = true;
        self.ready.notify_one();
    }

    /// Accepts nothing more from now on.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_one();
    }

    /// Counts waiting requests that are not on disk as lost in shutdown.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        let mut lost: Vec<_> = state.waiting.drain(..).collect();
        state.waiting_bytes = 0;
        if let Some(disk) = &mut state.disk {
            lost.extend(disk.take_unwritten());
            lost.extend(disk.take_behind());
            lost.retain(|waiting| !disk.has_written(waiting));
        }
        drop(state);
        let (items, bytes) = lost.into_iter().fold((0, 0), |(items, bytes), waiting| {
            let charge = self.charge(&waiting.held);
            (items + waiting.held.items as u64, bytes + charge)
        });
        self.lost_in_shutdown(items, bytes);
    }

    /// What counts against the capacity: requests, waiting and in flight, in memory and on disk, there as compressed as
    /// they are.
    pub(crate) fn held_bytes(&self) -> usize {
        self.state().counted_bytes()
    }

    /// The age of the oldest waiting request.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let state = self.state();
        let on_disk = state.disk.as_ref().and_then(DiskState::since);
        let oldest = state.waiting.front().map(|waiting| waiting.since);
        let since = oldest.into_iter().chain(on_disk).min();
        since.map(|since| since.elapsed())
    }

    pub(super) fn lost_in_shutdown(&self, items: u64, bytes: usize) {
        if bytes > 0 {
            self.metrics.lost(self.signal, Lost::Shutdown, items);
            self.release(items, bytes);
        }
    }

    /// Releases items whose delivery or loss has been counted.
    pub(super) fn release(&self, items: u64, bytes: usize) {
        self.metrics.released(self.signal, items, bytes as u64);
        self.state().let_go(bytes);
    }
}

impl LaneState {
    /// Whether a batch does not wait for more.
    pub(super) fn is_ready(&self) -> bool {
        let min_size = self.limits.min_size.min(self.most);
        self.waiting_bytes >= min_size || self.waiting.len() >= MOST_REQUESTS
    }

    pub(super) fn max_size(&self) -> usize {
        self.limits.max_size.min(self.most)
    }

    /// Whether `bytes` more fit. What an earlier process has left has no sender, and leaves room for senders within their
    /// share.
    fn has_room(&mut self, sender: Option<&Sender>, bytes: usize) -> bool {
        let capacity = self.limits.capacity;
        let held = self.counted_bytes().saturating_add(bytes);
        let shares = &self.shares;
        let is_within = || sender.is_some_and(|of| shares.is_within(of, bytes, capacity));
        held <= capacity
            && (held <= capacity - reserve(capacity) || is_within())
            && self.disk.as_mut().is_none_or(|disk| {
                disk.has_room(bytes, true) || (is_within() && disk.has_room(bytes, false))
            })
    }

    /// What was held is settled or lost.
    pub(super) fn let_go(&mut self, bytes: usize) {
        self.shares.remove(bytes, self.held_bytes);
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// What counts against the capacity.
    pub(super) fn counted_bytes(&self) -> usize {
        let leftover = self.disk.as_ref().map_or(0, DiskState::leftover);
        let held = self.held_bytes.saturating_sub(self.saved_bytes);
        held.saturating_add(leftover)
    }

    /// The memory of requests, waiting and in flight.
    pub(super) fn memory_bytes(&self) -> usize {
        let Some(disk) = &self.disk else {
            return self.held_bytes;
        };
        let requests = self.waiting.len() + disk.requests_in_memory();
        let bytes = self.held_bytes.saturating_sub(disk.only_bytes());
        bytes + requests * BOOKKEEPING
    }

    /// Moves requests that arrived while the disk failed to the waiting ones; returns whether to wake the
    /// dispatcher. Requires that no earlier request is only on disk.
    pub(super) fn join_behind(&mut self) -> bool {
        let behind = self.disk.as_mut().map(DiskState::take_behind);
        let mut wake = false;
        for waiting in behind.into_iter().flatten() {
            wake |= self.wait(waiting);
        }
        wake
    }

    /// Appends a waiting request; returns whether to wake the dispatcher.
    pub(super) fn wait(&mut self, waiting: WaitingRequest) -> bool {
        let was_empty = self.waiting.is_empty();
        let was_ready = self.is_ready();
        self.waiting_bytes += waiting.held.bytes.len();
        self.waiting.push_back(waiting);
        was_empty || (self.is_ready() && !was_ready)
    }
}
