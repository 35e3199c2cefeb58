//! Batches: requests that are sent together and settled as a whole or in parts.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use otlp_wire::{Signal, inspect, split_point};

use super::lane::{Cut, Lane};
use super::request::QueuedRequest;
use crate::metrics::Lost;

/// Requests that are sent together. If a batch is dropped unsettled, because the process ends, its requests
/// stay on disk or count as lost in shutdown.
#[derive(Debug)]
pub(crate) struct Batch {
    lane: Arc<Lane>,
    /// The number of the batch; its parts share it.
    id: u64,
    all: Arc<Vec<QueuedRequest>>,
    part: Range<usize>,
    /// The bytes to send, uncompressed, and those of the queue that it takes up.
    bytes: usize,
    charge: usize,
    /// Set if this is a part of the only request in `part`.
    fragment: Option<Fragment>,
}

/// A part of a request that was too large as a whole; itself a request.
#[derive(Debug)]
struct Fragment {
    message: Bytes,
    items: u64,
}

impl Batch {
    /// Waits for the next batch; `None` once the lane is closed and empty. For a single dispatcher.
    pub(crate) async fn next(lane: &Arc<Lane>) -> Option<Self> {
        let Cut { id, parts, bytes } = lane.next().await?;
        Some(Self {
            charge: parts.iter().map(|held| lane.charge(held)).sum(),
            lane: Arc::clone(lane),
            id,
            part: 0..parts.len(),
            all: parts,
            bytes,
            fragment: None,
        })
    }

    fn held(&self) -> &[QueuedRequest] {
        self.all.get(self.part.clone()).unwrap_or_default()
    }

    /// The signal of its requests.
    pub(crate) fn signal(&self) -> Signal {
        self.lane.signal
    }

    /// The bytes to send, uncompressed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of requests; 1 for a part of one.
    pub(crate) fn requests(&self) -> usize {
        self.part.len()
    }

    /// The number of items.
    pub(crate) fn items(&self) -> u64 {
        match &self.fragment {
            Some(fragment) => fragment.items,
            None => self.held().iter().map(|held| held.items as u64).sum(),
        }
    }

    /// The bytes of the merged request, in order.
    pub(crate) fn parts(&self) -> Vec<Bytes> {
        match &self.fragment {
            Some(fragment) => vec![fragment.message.clone()],
            None => self.held().iter().map(|held| held.bytes.clone()).collect(),
        }
    }

    /// Splits off the second half of the requests, or of a single one that can be cut.
    pub(crate) fn split(&mut self) -> Option<Self> {
        if self.part.len() > 1 {
            Some(self.split_requests())
        } else {
            self.split_request()
        }
    }

    fn split_requests(&mut self) -> Self {
        let middle = self.part.start + self.part.len().div_ceil(2);
        let mut half = self.other(middle..self.part.end, 0, 0, None);
        half.bytes = half.held().iter().map(|held| held.bytes.len()).sum();
        half.charge = half.held().iter().map(|held| self.lane.charge(held)).sum();
        self.part.end = middle;
        self.bytes -= half.bytes;
        self.charge -= half.charge;
        half
    }

    fn split_request(&mut self) -> Option<Self> {
        let mut message = self.parts().pop()?;
        let second = message.split_off(split_point(&message)?);
        let all = self.items();
        // The receiver has checked it.
        let items = inspect(self.signal(), &message).unwrap_or_default() as u64;
        let items = items.min(all);
        let charge = self.charge.saturating_sub(message.len());
        let bytes = second.len();
        let rest = Fragment {
            message: second,
            items: all - items,
        };
        let half = self.other(self.part.clone(), bytes, charge, Some(rest));
        self.bytes = message.len();
        self.charge -= charge;
        self.fragment = Some(Fragment { message, items });
        Some(half)
    }

    /// Another part of the same batch.
    fn other(
        &self,
        part: Range<usize>,
        bytes: usize,
        charge: usize,
        fragment: Option<Fragment>,
    ) -> Self {
        self.lane.batch_split(self.id);
        Self {
            lane: Arc::clone(&self.lane),
            id: self.id,
            all: Arc::clone(&self.all),
            part,
            bytes,
            charge,
            fragment,
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
        self.part = 0..0;
        self.lane.release(items, self.charge);
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
        let (items, charge) = match &self.fragment {
            _ if lost.is_empty() => (0, 0),
            Some(fragment) => (fragment.items, self.charge),
            None => lost.iter().fold((0, 0), |(items, charge), held| {
                let more = self.lane.charge(held);
                (items + held.items as u64, charge + more)
            }),
        };
        self.lane.lost_in_shutdown(items, charge);
    }
}
