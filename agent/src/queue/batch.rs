//! Batches: requests that are sent together and settled as a whole or in parts.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use otlp_wire::{RequestPart, Signal};

use super::lane::{Cut, Lane};
use super::request::QueuedRequest;
use crate::budget::Permit;
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
    /// The bytes of its requests, which a cut divides.
    bytes: usize,
    /// What it counts for in the queue.
    charge: usize,
    /// Set if this is a part of the only request in `part`.
    fragment: Option<Fragment>,
}

/// A part of a request that was too large as a whole.
#[derive(Debug)]
struct Fragment {
    request: RequestPart,
    items: u64,
    /// The memory of what had to be copied; other parts may refer to it, too.
    copies: Vec<Arc<Permit>>,
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
        let fragment = self.fragment.as_ref();
        fragment.map_or(self.bytes, |fragment| fragment.request.bytes())
    }

    /// The bytes of the queue that it takes up, which a cut divides.
    pub(crate) fn queued_bytes(&self) -> usize {
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
            Some(fragment) => fragment.request.chunks(),
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

    /// Cuts the only request between its items. Requests on disk stay there until all their parts are settled.
    fn split_request(&mut self) -> Option<Self> {
        let held = self.held().first()?;
        let (mut request, mut copies) = if let Some(fragment) = &self.fragment {
            (fragment.request.clone(), fragment.copies.clone())
        } else {
            let whole = RequestPart::whole(self.signal(), held.bytes.clone());
            (whole, Vec::new())
        };
        let second = request.split(&mut |bytes| {
            let mut permit = held.permit.another();
            let granted = permit.grow(bytes).is_ok();
            copies.push(Arc::new(permit));
            granted
        })?;
        let all = self.items();
        let items = (request.items() as u64).min(all);
        let bytes = second.own_bytes().min(self.bytes);
        let charge = bytes.min(self.charge);
        let rest = Fragment {
            request: second,
            items: all - items,
            copies: copies.clone(),
        };
        let half = self.other(self.part.clone(), bytes, charge, Some(rest));
        self.bytes -= bytes;
        self.charge -= charge;
        self.fragment = Some(Fragment {
            request,
            items,
            copies,
        });
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

    /// Whether the batch is whole, and its queue has all of it on disk and nothing later in memory.
    pub(crate) fn can_go_back(&self) -> bool {
        let is_whole = self.fragment.is_none() && self.part == (0..self.all.len());
        is_whole && self.lane.can_go_back(self.id)
    }

    /// Returns a batch that can go back to its queue.
    pub(crate) fn go_back(mut self) {
        self.part = 0..0;
        self.lane.go_back(self.id);
    }

    fn settle(&mut self, items: u64) {
        self.part = 0..0;
        self.lane.release(items, self.charge);
        self.lane.settled(self.id, self.bytes);
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
