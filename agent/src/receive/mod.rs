//! From the network into the lanes: connections, the two protocols, and what both do with a request.
//! Must not know how telemetry is forwarded.

mod body;
mod connection;
mod grpc;
mod handover;
mod http;
pub(crate) mod listener;
mod places;
mod pulse;
mod status;
mod turn;
mod unix;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use otlp_wire::{Edits, Signal, json};

use self::status::Refusal;
use self::turn::Turn;
use crate::budget::{Budget, Permit};
use crate::encoding::{self, DecodeError, Encoding};
use crate::metrics::{Metrics, Refused, Transport};
use crate::queue::{Held, Lane, Origin, Ticket};

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

/// A whole body as it arrived.
struct Parcel {
    transport: Transport,
    encoding: Encoding,
    form: Form,
    /// Bytes the message may have, in this form and as protobuf.
    limit: usize,
    body: Vec<u8>,
    /// What has been paid for the body.
    permit: Permit,
}

/// How a message is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

/// What a request costs while it is open, beside its body: a task and a timer.
const OPEN: usize = 2 * 1024;

/// What every connection goes through: an intake, and after a change of the configuration another.
pub(crate) struct Door {
    metrics: Arc<Metrics>,
    intake: Mutex<Arc<Intake>>,
    turn: Turn,
}

impl Door {
    /// A door to `intake`.
    pub(crate) fn new(intake: Arc<Intake>) -> Arc<Self> {
        Arc::new(Self {
            metrics: Arc::clone(&intake.metrics),
            intake: Mutex::new(intake),
            turn: Turn::default(),
        })
    }

    /// What a request that begins now goes through.
    pub(crate) fn intake(&self) -> Arc<Intake> {
        Arc::clone(&self.intake.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leads requests that begin from now on elsewhere. Those under way end as they began.
    pub(crate) fn change(&self, intake: Arc<Intake>) {
        *self.intake.lock().unwrap_or_else(PoisonError::into_inner) = intake;
    }

    /// Where connections stay, whatever the configuration.
    pub(crate) fn places(&self) -> Arc<Places> {
        Arc::clone(&self.intake().places)
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// What requests share.
pub(crate) struct Intake {
    routes: [Option<Route>; Signal::COUNT],
    budget: Arc<Budget>,
    places: Arc<Places>,
    metrics: Arc<Metrics>,
    limits: Limits,
    url_paths: Vec<(String, Signal)>,
}

impl Intake {
    /// Routes are given in any order, at most one per signal.
    pub(crate) fn new(
        routes: Vec<Route>,
        budget: Arc<Budget>,
        places: Arc<Places>,
        metrics: Arc<Metrics>,
        limits: Limits,
        url_paths: Vec<(String, Signal)>,
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
            places,
            metrics,
            limits,
            url_paths,
        })
    }

    /// The signal of a path that is configured.
    fn signal_at(&self, path: &str) -> Option<Signal> {
        let mut paths = self.url_paths.iter();
        paths
            .find(|(configured, _)| configured == path)
            .map(|(_, signal)| *signal)
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
        let advance = OPEN + bytes.min(body::ADVANCE);
        permit.grow(advance).map_err(|_| Refusal::MemoryLimit)?;
        Ok(permit)
    }

    /// Memory that one signal leaves to the others: of an eighth each what they do not use, so that a
    /// signal whose upstream is away does not take everything.
    fn reserved_beside(&self, route: &Route) -> usize {
        // What is kept on disk makes way in memory by itself.
        if route.lane.is_kept() {
            return 0;
        }
        let share = self.budget.soft_limit() / 8;
        let others = self.routes.iter().flatten();
        others
            .filter(|other| other.lane.signal != route.lane.signal)
            .map(|other| share.saturating_sub(other.lane.held_bytes()))
            .sum()
    }

    /// Takes a whole body: decompressed, brought into protobuf, inspected, edited, queued. It may be
    /// acknowledged when the ticket, if there is one, is ready.
    fn take(&self, route: &Route, parcel: Parcel) -> Result<Option<Ticket>, Refusal> {
        let signal = route.lane.signal;
        let transport = parcel.transport;
        let (message, mut permit) = unpack(signal, parcel)?;
        let malformed = |error: otlp_wire::Malformed| Refusal::Malformed(error.to_string());
        let items = otlp_wire::inspect(signal, &message).map_err(malformed)?;
        // A request without items has nothing to lose; forwarding its envelope would help nobody. A
        // profile may be a payload without samples, though.
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
        let held = Held {
            bytes,
            items,
            permit,
        };
        let ticket = route.lane.push(held, Origin::Client(transport));
        ticket.map(Some).map_err(|_| {
            if route.lane.is_closed() {
                return Refusal::ShuttingDown;
            }
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

/// The message of a parcel as protobuf, and what has been paid for it.
fn unpack(signal: Signal, parcel: Parcel) -> Result<(Vec<u8>, Permit), Refusal> {
    let Parcel {
        encoding,
        form,
        limit,
        body,
        mut permit,
        ..
    } = parcel;
    let message =
        encoding::decode(encoding, body, limit, &mut permit).map_err(|error| match error {
            DecodeError::TooLarge(limit) => Refusal::TooLarge(limit),
            DecodeError::Exhausted => Refusal::MemoryLimit,
            DecodeError::Corrupt(_) => Refusal::Malformed(error.to_string()),
        })?;
    if form == Form::Protobuf {
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

/// Bytes whose allocation is no larger than they are, so that the budget's count is the truth.
fn exact(bytes: Vec<u8>) -> Bytes {
    Bytes::from(bytes.into_boxed_slice())
}
