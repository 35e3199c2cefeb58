//! Batches: requests sent together, settled as one or in halves. Must not know how they are sent.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use otlp_wire::Signal;

use super::{Held, Lane};
use crate::metrics::Lost;

/// Requests sent together. It leaves the lane's books when it is settled. One that is dropped
/// unsettled, because the process ends, stays on disk if it is there, and counts as lost in shutdown if
/// not.
#[derive(Debug)]
pub(crate) struct Batch {
    lane: Arc<Lane>,
    /// What it was cut as; halves share it.
    id: u64,
    all: Arc<Vec<Held>>,
    part: Range<usize>,
    /// Not settled yet.
    bytes: usize,
    /// Bytes and items settled already of a batch of one request.
    front: (usize, u64),
}

impl Batch {
    pub(super) fn new(lane: Arc<Lane>, id: u64, parts: Arc<Vec<Held>>, bytes: usize) -> Self {
        Self {
            lane,
            id,
            part: 0..parts.len(),
            all: parts,
            bytes,
            front: (0, 0),
        }
    }

    fn held(&self) -> &[Held] {
        self.all.get(self.part.clone()).unwrap_or_default()
    }

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
        self.part.len()
    }

    /// Spans, data points or log records in it that are not settled yet.
    pub(crate) fn items(&self) -> u64 {
        let all: u64 = self.held().iter().map(|held| held.items as u64).sum();
        all - self.front.1
    }

    /// The bytes of the merged request, in order.
    pub(crate) fn parts(&self) -> Vec<Bytes> {
        self.held().iter().map(|held| held.bytes.clone()).collect()
    }

    /// Cuts off the second half of a batch of two or more requests.
    pub(crate) fn split(&mut self) -> Self {
        self.lane.halved(self.id);
        let middle = self.part.start + self.part.len().div_ceil(2);
        let mut half = Self {
            lane: Arc::clone(&self.lane),
            id: self.id,
            all: Arc::clone(&self.all),
            part: middle..self.part.end,
            bytes: 0,
            front: (0, 0),
        };
        half.bytes = half.held().iter().map(|held| held.bytes.len()).sum();
        self.part.end = middle;
        self.bytes -= half.bytes;
        half
    }

    /// The next `length` bytes of a batch of one request.
    pub(crate) fn front(&self, length: usize) -> Bytes {
        let bytes = self.held().first().map(|held| held.bytes.clone());
        let mut bytes = bytes.unwrap_or_default();
        let mut front = bytes.split_off(self.front.0.min(bytes.len()));
        front.truncate(length);
        front
    }

    /// The next `length` bytes of a batch of one request, with `items` in them, were taken, except for
    /// `lost` items. The rest remains; what has been settled is never counted again.
    pub(crate) fn settle_front(&mut self, length: usize, items: u64, reason: Lost, lost: u64) {
        let length = length.min(self.bytes);
        let is_last = length == self.bytes;
        let all = self.items();
        let items = if is_last { all } else { items.min(all) };
        let lost = lost.min(items);
        let signal = self.signal();
        self.lane.metrics.delivered(signal, items - lost);
        self.lane.metrics.lost(signal, reason, lost);
        if is_last {
            self.settle(items);
        } else {
            self.front.0 += length;
            self.front.1 += items;
            self.bytes -= length;
            self.lane.release(items, length);
        }
    }

    /// The upstream has taken it, except for `rejected` items.
    pub(crate) fn delivered(mut self, rejected: u64) {
        let items = self.items();
        let rejected = rejected.min(items);
        let signal = self.signal();
        self.lane.metrics.delivered(signal, items - rejected);
        self.lane.metrics.lost(signal, Lost::Rejected, rejected);
        self.settle(items);
    }

    /// It will never be delivered.
    pub(crate) fn lost(mut self, reason: Lost) {
        let items = self.items();
        self.lane.metrics.lost(self.signal(), reason, items);
        self.settle(items);
    }

    fn settle(&mut self, items: u64) {
        let bytes = std::mem::take(&mut self.bytes);
        self.part = 0..0;
        self.front = (0, 0);
        self.lane.release(items, bytes);
        self.lane.settled(self.id);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.part.is_empty() {
            return;
        }
        let kept = self.lane.on_disk(self.id);
        let lost = self.all.get(self.part.start.max(kept)..self.part.end);
        let lost = lost.unwrap_or_default();
        let items: u64 = lost.iter().map(|held| held.items as u64).sum();
        let bytes: usize = lost.iter().map(|held| held.bytes.len()).sum();
        // Only a batch of one request has a front, and it is lost whole or not at all.
        let front = if lost.is_empty() { (0, 0) } else { self.front };
        self.lane.lost_in_shutdown(items - front.1, bytes - front.0);
    }
}
