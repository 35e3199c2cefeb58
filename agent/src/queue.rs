//! One lane per signal: acknowledged requests in order of arrival, cut into batches by size and by
//! age. Must not know where requests come from or how batches are sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::budget::Permit;
use crate::config::Queue;
use crate::metrics::{Lost, Metrics, Transport};
use crate::scan::Signal;

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

/// The queue of its signal has no room.
#[derive(Debug)]
pub(crate) struct Full;

/// What waits for the upstream, of one signal.
#[derive(Debug)]
pub(crate) struct Lane {
    /// What it carries.
    pub(crate) signal: Signal,
    limits: Queue,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// A batch may be ready.
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Held, Instant)>,
    waiting_bytes: usize,
    /// Waiting and in flight.
    held_bytes: usize,
    flushing: bool,
    closed: bool,
}

/// What the dispatcher should do.
enum Next {
    Send(Vec<Held>, usize),
    WaitUntil(Instant),
    Wait,
    Finished,
}

impl Lane {
    /// An empty lane.
    pub(crate) fn new(signal: Signal, limits: Queue, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            signal,
            limits,
            metrics,
            state: Mutex::default(),
            ready: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; a poisoned state would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `bytes` more would fit now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.state().held_bytes.saturating_add(bytes) <= self.limits.capacity
    }

    /// Takes a request over; from here on it is delivered or counted as lost.
    ///
    /// # Errors
    /// The request comes back untouched where there is no room.
    pub(crate) fn push(&self, held: Held, transport: Transport) -> Result<(), Full> {
        let bytes = held.bytes.len();
        let mut state = self.state();
        if state.held_bytes.saturating_add(bytes) > self.limits.capacity {
            return Err(Full);
        }
        self.metrics
            .accepted(self.signal, transport, held.items, bytes);
        let was_empty = state.waiting.is_empty();
        let was_ready = state.waiting_bytes >= self.limits.min_size;
        state.waiting.push_back((held, Instant::now()));
        state.waiting_bytes += bytes;
        state.held_bytes += bytes;
        let is_ready = state.waiting_bytes >= self.limits.min_size;
        drop(state);
        if was_empty || (is_ready && !was_ready) {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Waits for the next batch; `None` once the lane is closed and empty. For one dispatcher.
    pub(crate) async fn next(self: &Arc<Self>) -> Option<Batch> {
        loop {
            let ready = self.ready.notified();
            match self.look(Instant::now()) {
                Next::Send(parts, bytes) => {
                    return Some(Batch {
                        lane: Arc::clone(self),
                        parts,
                        bytes,
                    });
                }
                Next::WaitUntil(deadline) => {
                    let _ = tokio::time::timeout_at(deadline, ready).await;
                }
                Next::Wait => ready.await,
                Next::Finished => return None,
            }
        }
    }

    fn look(&self, now: Instant) -> Next {
        let mut state = self.state();
        let Some((_, oldest)) = state.waiting.front() else {
            return if state.closed {
                Next::Finished
            } else {
                Next::Wait
            };
        };
        let due = *oldest + self.limits.flush_timeout;
        if state.waiting_bytes < self.limits.min_size && now < due && !state.flushing {
            return Next::WaitUntil(due);
        }
        let mut parts = Vec::new();
        let mut bytes = 0;
        while let Some((held, _)) = state.waiting.front() {
            let more = held.bytes.len();
            if !parts.is_empty() && bytes + more > self.limits.max_size {
                break;
            }
            bytes += more;
            parts.extend(state.waiting.pop_front().map(|(held, _)| held));
        }
        state.waiting_bytes -= bytes;
        Next::Send(parts, bytes)
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

    /// Counts what still waits as lost in shutdown.
    pub(crate) fn abandon(self: &Arc<Self>) {
        let mut state = self.state();
        let parts: Vec<_> = state.waiting.drain(..).map(|(held, _)| held).collect();
        let bytes = std::mem::take(&mut state.waiting_bytes);
        drop(state);
        drop(Batch {
            lane: Arc::clone(self),
            parts,
            bytes,
        });
    }

    /// Bytes waiting and in flight.
    pub(crate) fn held_bytes(&self) -> usize {
        self.state().held_bytes
    }

    /// How long the oldest waiting request has waited.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let state = self.state();
        state.waiting.front().map(|(_, since)| since.elapsed())
    }

    fn release(&self, items: u64, bytes: usize) {
        self.metrics.released(self.signal, items, bytes as u64);
        let mut state = self.state();
        state.held_bytes -= bytes;
    }
}

/// Requests sent together. It leaves the lane's books when it is settled; one that is dropped
/// unsettled, because the process ends, counts as lost in shutdown.
#[derive(Debug)]
pub(crate) struct Batch {
    lane: Arc<Lane>,
    parts: Vec<Held>,
    bytes: usize,
}

impl Batch {
    /// What it carries.
    pub(crate) fn signal(&self) -> Signal {
        self.lane.signal
    }

    /// Uncompressed size.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Requests in it.
    pub(crate) fn requests(&self) -> usize {
        self.parts.len()
    }

    /// Spans, data points or log records in it.
    pub(crate) fn items(&self) -> u64 {
        self.parts.iter().map(|held| held.items as u64).sum()
    }

    /// The bytes of the merged request, in order.
    pub(crate) fn parts(&self) -> Vec<Bytes> {
        self.parts.iter().map(|held| held.bytes.clone()).collect()
    }

    /// Cuts off the second half of a batch of two or more requests.
    pub(crate) fn split(&mut self) -> Self {
        let parts = self.parts.split_off(self.parts.len().div_ceil(2));
        let bytes = parts.iter().map(|held| held.bytes.len()).sum();
        self.bytes -= bytes;
        Self {
            lane: Arc::clone(&self.lane),
            parts,
            bytes,
        }
    }

    /// The first `length` bytes of a batch of one request.
    pub(crate) fn front(&self, length: usize) -> Bytes {
        let held = self.parts.first().map(|held| held.bytes.clone());
        let mut bytes = held.unwrap_or_default();
        bytes.truncate(length);
        bytes
    }

    /// The first `length` bytes of a batch of one request, with `items` in them, were taken, except
    /// for `lost` items. The rest remains; what has been settled is never counted again.
    pub(crate) fn settle_front(&mut self, length: usize, items: u64, reason: Lost, lost: u64) {
        let Some(held) = self.parts.first_mut() else {
            return;
        };
        let length = length.min(held.bytes.len());
        let is_last = length == held.bytes.len();
        let all = held.items as u64;
        let items = if is_last { all } else { items.min(all) };
        let lost = lost.min(items);
        held.items -= usize::try_from(items).unwrap_or(held.items);
        held.bytes = held.bytes.slice(length..);
        self.bytes -= length;
        let signal = self.signal();
        self.lane.metrics.delivered(signal, items - lost);
        self.lane.metrics.lost(signal, reason, lost);
        self.lane.release(items, length);
        if is_last {
            self.parts.clear();
        }
    }

    /// The upstream has taken it, except for `rejected` items.
    pub(crate) fn delivered(mut self, rejected: u64) {
        let items = self.items();
        let rejected = rejected.min(items);
        let signal = self.signal();
        self.lane.metrics.delivered(signal, items - rejected);
        self.lane.metrics.lost(signal, Lost::Rejected, rejected);
        self.leave();
    }

    /// It will never be delivered.
    pub(crate) fn lost(mut self, reason: Lost) {
        self.lane.metrics.lost(self.signal(), reason, self.items());
        self.leave();
    }

    fn leave(&mut self) {
        let items = self.items();
        self.parts.clear();
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            self.lane.release(items, bytes);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.parts.is_empty() {
            self.lane
                .metrics
                .lost(self.signal(), Lost::Shutdown, self.items());
            self.leave();
        }
    }
}
