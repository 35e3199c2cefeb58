//! What all connections share, and what both protocols do with a request: check it, edit it and queue it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use otlp_wire::{Edits, Malformed, Signal, inspect, json};

use super::connection_table::ConnectionTable;
use super::read_quota::ReadQuota;
use super::refusal::Refusal;
use super::request_body::ADVANCE;
use crate::budget::{Budget, Permit};
use crate::config::Receiver;
use crate::encoding::{self, DecodeError, Encoding};
use crate::lock::lock;
use crate::metrics::{Metrics, Refused, Transport};
use crate::queue::{AckHandle, Lane, Origin, QueuedRequest};

/// The route of one signal.
pub(crate) struct Route {
    /// The queue of its requests.
    pub(crate) lane: Arc<Lane>,
    /// The edits of their resource attributes.
    pub(crate) edits: Edits,
}

/// A complete request as it arrived.
pub(super) struct OtlpRequest {
    pub(super) transport: Transport,
    pub(super) encoding: Encoding,
    pub(super) format: Format,
    /// The maximum size of the message, as received and as protobuf.
    pub(super) limit: usize,
    pub(super) body: Vec<u8>,
    /// The memory of the body.
    pub(super) permit: Permit,
}

/// The format of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Protobuf,
    Json,
}

/// The memory of an open request beside its body: a task and a timer.
const OPEN: usize = 2 * 1024;

/// What all connections share; a changed configuration replaces the receiver in it.
pub(crate) struct ServerState {
    metrics: Arc<Metrics>,
    receiver: Mutex<Arc<OtlpReceiver>>,
    pub(super) read_quota: ReadQuota,
}

impl ServerState {
    /// Starts with this receiver.
    pub(crate) fn new(receiver: Arc<OtlpReceiver>) -> Arc<Self> {
        Arc::new(Self {
            metrics: Arc::clone(&receiver.metrics),
            receiver: Mutex::new(receiver),
            read_quota: ReadQuota::default(),
        })
    }

    /// The receiver for a request that begins now.
    pub(crate) fn receiver(&self) -> Arc<OtlpReceiver> {
        Arc::clone(&lock(&self.receiver))
    }

    /// Replaces the receiver for requests that begin from now on.
    pub(crate) fn set_receiver(&self, receiver: Arc<OtlpReceiver>) {
        *lock(&self.receiver) = receiver;
    }

    /// The table of connections, which no configuration replaces.
    pub(crate) fn connections(&self) -> Arc<ConnectionTable> {
        Arc::clone(&self.receiver().connections)
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// What requests share under one configuration.
pub(crate) struct OtlpReceiver {
    routes: [Option<Route>; Signal::COUNT],
    budget: Arc<Budget>,
    connections: Arc<ConnectionTable>,
    metrics: Arc<Metrics>,
    pub(super) config: Receiver,
}

impl OtlpReceiver {
    /// Takes routes in any order, at most one per signal.
    pub(crate) fn new(
        routes: Vec<Route>,
        budget: Arc<Budget>,
        connections: Arc<ConnectionTable>,
        metrics: Arc<Metrics>,
        config: &Receiver,
    ) -> Arc<Self> {
        let mut by_signal = [const { None }; Signal::COUNT];
        for route in routes {
            if let Some(slot) = by_signal.get_mut(route.lane.signal.index()) {
                *slot = Some(route);
            }
        }
        Arc::new(Self {
            routes: by_signal,
            budget,
            connections,
            metrics,
            config: config.clone(),
        })
    }

    pub(super) fn signal_at(&self, path: &str) -> Option<Signal> {
        let mut paths = self.config.url_paths.iter();
        paths
            .find(|(configured, _)| configured == path)
            .map(|(_, signal)| *signal)
    }

    pub(super) fn route(&self, signal: Signal) -> Result<&Route, Refusal> {
        self.routes
            .get(signal.index())
            .and_then(Option::as_ref)
            .ok_or(Refusal::NoPipeline(signal))
    }

    /// Decides, before the body is read, whether `bytes` of it could be accepted, and pays for its beginning.
    pub(super) fn admit(&self, route: &Route, bytes: usize) -> Result<Permit, Refusal> {
        if !route.lane.has_room(bytes) {
            return Err(Refusal::QueueFull);
        }
        if route.lane.is_closed() {
            return Err(Refusal::ShuttingDown);
        }
        if !self
            .budget
            .has_room(bytes.saturating_add(self.reserved_beside(route)))
        {
            return Err(Refusal::MemoryLimit);
        }
        let mut permit = self.budget.permit();
        let advance = OPEN + bytes.min(ADVANCE);
        permit.grow(advance).map_err(|_| Refusal::MemoryLimit)?;
        Ok(permit)
    }

    /// The memory that one signal leaves to the others: the unused part of an eighth each, so that a signal
    /// whose upstream is unreachable does not use everything.
    fn reserved_beside(&self, route: &Route) -> usize {
        // A queue on disk frees memory by itself.
        if route.lane.is_durable() {
            return 0;
        }
        let share = self.budget.soft_limit() / 8;
        let others = self.routes.iter().flatten();
        others
            .filter(|other| other.lane.signal != route.lane.signal)
            .map(|other| share.saturating_sub(other.lane.held_bytes()))
            .sum()
    }

    /// Decompresses, converts to protobuf, checks, edits and queues a request. The caller acknowledges it
    /// once the handle, if there is one, is ready.
    pub(super) fn take(
        &self,
        route: &Route,
        request: OtlpRequest,
    ) -> Result<Option<AckHandle>, Refusal> {
        let signal = route.lane.signal;
        let transport = request.transport;
        let (message, mut permit) = unpack(signal, request)?;
        let malformed = |error: Malformed| Refusal::Malformed(error.to_string());
        let items = inspect(signal, &message).map_err(malformed)?;
        // A request without items has no data to forward. A profile without samples may carry a payload.
        if message.is_empty() || (items == 0 && signal.is_mergeable()) {
            self.metrics.empty(transport);
            return Ok(None);
        }
        let bytes = if route.edits.is_empty() {
            exact(message)
        } else {
            exact(route.edits.apply(&message).map_err(malformed)?)
        };
        permit.set(bytes.len());
        let held = QueuedRequest {
            bytes,
            items,
            permit,
        };
        let ack = route.lane.push(held, Origin::Client(transport));
        ack.map(Some).map_err(|_| {
            if route.lane.is_closed() {
                return Refusal::ShuttingDown;
            }
            self.metrics
                .refused(Some(signal), transport, Refused::QueueFull, items);
            Refusal::QueueFullCounted
        })
    }

    pub(super) fn count_refusal(
        &self,
        signal: Option<Signal>,
        transport: Transport,
        refusal: &Refusal,
    ) {
        if *refusal == Refusal::MemoryLimit {
            self.connections.evict_slow_sender();
        }
        if let Some(reason) = refusal.counted_as() {
            self.metrics.refused(signal, transport, reason, 0);
        }
    }
}

/// The message of a request as protobuf, and the memory it holds.
fn unpack(signal: Signal, request: OtlpRequest) -> Result<(Vec<u8>, Permit), Refusal> {
    let OtlpRequest {
        encoding,
        format,
        limit,
        body,
        mut permit,
        ..
    } = request;
    let message =
        encoding::decode(encoding, body, limit, &mut permit).map_err(|error| match error {
            DecodeError::TooLarge(limit) => Refusal::TooLarge(limit),
            DecodeError::Exhausted => Refusal::MemoryLimit,
            DecodeError::Corrupt(_) => Refusal::Malformed(error.to_string()),
        })?;
    if format == Format::Protobuf {
        return Ok((message, permit));
    }
    let mut grant = |more| permit.grow(more).is_ok();
    let message =
        json::transcode(signal, &message, limit, &mut grant).map_err(|error| match error {
            json::Error::TooLarge(limit) => Refusal::TooLarge(limit),
            json::Error::Exhausted => Refusal::MemoryLimit,
            json::Error::Malformed(fault) => Refusal::Malformed(fault.to_string()),
        })?;
    Ok((message, permit))
}

/// Shrinks the allocation to its content, so that the budget counts exactly.
fn exact(bytes: Vec<u8>) -> Bytes {
    Bytes::from(bytes.into_boxed_slice())
}
