//! Requests in the queue of a lane.

use bytes::Bytes;
use segment_log::Position;
use tokio::time::Instant;

use crate::budget::Permit;
use crate::metrics::Transport;

/// What a request costs beside its bytes: its entry in the queue, which may be half empty, then in a batch; its
/// allocations; and its part of an attempt. Measured: 170.
pub(crate) const BOOKKEEPING: usize = 192;

/// An acknowledged request.
#[derive(Debug)]
pub(crate) struct QueuedRequest {
    /// The whole `Export<Signal>ServiceRequest`, checked and edited.
    pub(crate) bytes: Bytes,
    /// The number of its items.
    pub(crate) items: usize,
    /// Whether it is sent without others.
    pub(crate) is_alone: bool,
    /// The memory it holds until it is dropped.
    pub(crate) permit: Permit,
}

#[derive(Debug)]
pub(super) struct WaitingRequest {
    pub(super) held: QueuedRequest,
    pub(super) since: Instant,
    /// Its position on disk, if it is there too.
    pub(super) position: Option<Position>,
}

/// The origin of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A client that waits for the answer.
    Client(Transport),
    /// The disk, where an earlier process left it.
    Recovered,
}

#[derive(Debug)]
pub(crate) struct QueueFull;
