//! From the network into the lanes: connections, the two protocols, and what both do with a request.
//! Must not know how telemetry is forwarded.

mod body;
mod connection;
mod grpc;
mod http;
pub(crate) mod listener;
mod places;
mod pulse;
mod status;
mod turn;

use std::sync::Arc;

use bytes::Bytes;

use self::status::Refusal;
use self::turn::Turn;
use crate::budget::{Budget, Permit};
use crate::encoding::{self, DecodeError, Encoding};
use crate::merge::Edits;
use crate::metrics::{Metrics, Refused, Transport};
use crate::queue::{Held, Lane};
use crate::scan::{self, Signal};

pub(crate) use self::body::Answer;
pub(crate) use self::connection::{Limits, serve};
pub(crate) use self::places::Places;

/// The way of one signal.
pub(crate) struct Route {
    /// Where its requests wait.
    pub(crate) lane: Arc<Lane>,
    /// What is done to their resources.
    pub(crate) edits: Edits,
}

/// What a request costs while it is open, beside its body: a task and a timer.
const OPEN: usize = 2 * 1024;

/// What every connection shares.
pub(crate) struct Intake {
    routes: [Option<Route>; 3],
    budget: Arc<Budget>,
    places: Arc<Places>,
    turn: Turn,
    metrics: Arc<Metrics>,
    limits: Limits,
}

impl Intake {
    /// Routes are given in any order, at most one per signal.
    pub(crate) fn new(
        routes: Vec<Route>,
        budget: Arc<Budget>,
        places: Arc<Places>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Arc<Self> {
        let mut by_signal = [None, None, None];
        for route in routes {
            if let Some(slot) = by_signal.get_mut(route.lane.signal.index()) {
                *slot = Some(route);
            }
        }
        Arc::new(Self {
            routes: by_signal,
            budget,
            places,
            turn: Turn::default(),
            metrics,
            limits,
        })
    }

    fn route(&self, signal: Signal) -> Result<&Route, Refusal> {
        self.routes
            .get(signal.index())
            .and_then(Option::as_ref)
            .ok_or(Refusal::NoPipeline(signal))
    }

    /// Asks, before a body is read, whether `bytes` of it could be taken, and pays for its beginning.
    fn admit(&self, route: &Route, bytes: usize) -> Result<Permit, Refusal> {
        if !route.lane.has_room(bytes) {
            return Err(Refusal::QueueFull);
        }
        if self.budget.in_use().saturating_add(bytes) > self.budget.soft_limit() {
            return Err(Refusal::MemoryLimit);
        }
        let mut permit = self.budget.permit();
        let advance = OPEN + bytes.min(body::ADVANCE);
        permit.grow(advance).map_err(|_| Refusal::MemoryLimit)?;
        Ok(permit)
    }

    /// Takes a whole body: decompressed, inspected, edited, queued. What `Ok` follows is acknowledged.
    fn take(
        &self,
        route: &Route,
        transport: Transport,
        encoding: Encoding,
        limit: usize,
        body: Vec<u8>,
        mut permit: Permit,
    ) -> Result<(), Refusal> {
        let signal = route.lane.signal;
        let message =
            encoding::decode(encoding, body, limit, &mut permit).map_err(|error| match error {
                DecodeError::TooLarge(limit) => Refusal::TooLarge(limit),
                DecodeError::Exhausted => Refusal::MemoryLimit,
                DecodeError::Corrupt(_) => Refusal::Malformed(error.to_string()),
            })?;
        let malformed = |error: scan::Malformed| Refusal::Malformed(error.to_string());
        let items = scan::inspect(signal, &message).map_err(malformed)?;
        // A request without items has nothing to lose; forwarding its envelope would help nobody.
        if items == 0 {
            return Ok(());
        }
        let bytes = if route.edits.is_empty() {
            exact(message)
        } else {
            exact(route.edits.apply(&message).map_err(malformed)?)
        };
        permit.set(bytes.len());
        let held = Held {
            bytes,
            items,
            permit,
        };
        route.lane.push(held, transport).map_err(|_| {
            self.metrics
                .refused(Some(signal), transport, Refused::QueueFull, items);
            Refusal::QueueFullCounted
        })
    }

    fn count_refusal(&self, signal: Option<Signal>, transport: Transport, refusal: &Refusal) {
        if *refusal == Refusal::MemoryLimit {
            self.places.end_a_slow_one();
        }
        if let Some(reason) = refusal.counted_as() {
            self.metrics.refused(signal, transport, reason, 0);
        }
    }
}

/// Bytes whose allocation is no larger than they are, so that the budget's count is the truth.
fn exact(bytes: Vec<u8>) -> Bytes {
    Bytes::from(bytes.into_boxed_slice())
}
