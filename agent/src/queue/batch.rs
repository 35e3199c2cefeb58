//! Batches: requests that are sent together and settled as a whole or in halves.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use otlp_wire::Signal;

use super::lane::{Cut, Lane};
use super::request::QueuedRequest;
use crate::metrics::Lost;

/// Requests that are sent together. If a batch is dropped unsettled, because the process ends, its requests
/// stay on disk or count as lost in shutdown.
#[derive(Debug)]
pub(crate) struct Batch {
    lane: Arc<Lane>,
    /// The number of the batch; halves share it.
    id: u64,
    all: Arc<Vec<QueuedRequest>>,
    part: Range<usize>,
    /// The unsettled bytes.
    bytes: usize,
    /// The settled bytes and items of a batch of one request.
    front: (usize, u64),
}

impl Batch {
    /// Waits for the next batch; `None` once the lane is closed and empty. For a single dispatcher.
    pub(crate) async fn next(lane: &Arc<Lane>) -> Option<Self> {
        let Cut { id, parts, bytes } = lane.next().await?;
        Some(Self {
            lane: Arc::clone(lane),
            id,
            part: 0..parts.len(),
            all: parts,
            bytes,
            front: (0, 0),
        })
    }

    fn held(&self) -> &[QueuedRequest] {
        self.all.get(self.part.clone()).unwrap_or_default()
    }

    /// The signal of its requests.
    pub(crate) fn signal(&self) -> Signal {
        self.lane.signal
    }

    /// The unsettled bytes, uncompressed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of requests.
    pub(crate) fn requests(&self) -> usize {
        self.part.len()
    }

    /// The number of unsettled items.
    pub(crate) fn items(&self) -> u64 {
        let all: u64 = self.held().iter().map(|held| held.items as u64).sum();
        all - self.front.1
    }

    /// The bytes of the merged request, in order.
    pub(crate) fn parts(&self) -> Vec<Bytes> {
        self.held().iter().map(|held| held.bytes.clone()).collect()
    }

    /// Splits off the second half of a batch of two or more requests.
    pub(crate) fn split(&mut self) -> Self {
        self.lane.batch_split(self.id);
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

    /// Settles the next `length` bytes of a batch of one request: `items`, of which `lost` were lost.
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

    /// Settles the batch as delivered, except for `rejected` items.
    pub(crate) fn delivered(mut self, rejected: u64) {
        let items = self.items();
        let rejected = rejected.min(items);
        let signal = self.signal();
        self.lane.metrics.delivered(signal, items - rejected);
        self.lane.metrics.lost(signal, Lost::Rejected, rejected);
        self.settle(items);
    }

    /// Settles the batch as lost.
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
        let on_disk = self.lane.on_disk(self.id);
        let lost = self.all.get(self.part.start.max(on_disk)..self.part.end);
        let lost = lost.unwrap_or_default();
        let items: u64 = lost.iter().map(|held| held.items as u64).sum();
        let bytes: usize = lost.iter().map(|held| held.bytes.len()).sum();
        // Only a batch of one request has a settled front, and it is lost whole or not at all.
        let front = if lost.is_empty() { (0, 0) } else { self.front };
        self.lane.lost_in_shutdown(items - front.1, bytes - front.0);
    }
}
