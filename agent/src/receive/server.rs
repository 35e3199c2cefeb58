//! What all connections share, and what both protocols do with a request: check it, edit it and queue it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use otlp_wire::{EditError, Edits, Malformed, Signal, inspect, is_mergeable, json, repair};
use tokio::time::sleep;

use super::connection_table::ConnectionTable;
use super::read_quota::ReadQuota;
use super::refusal::Refusal;
use super::request_body::{ADVANCE, RequestBody, collect};
use super::token::{Authenticator, TokenError};
use crate::budget::{Budget, Permit};
use crate::config::ReceiverConfig;
use crate::encoding::{self, DecodeError, Encoding};
use crate::lock::lock;
use crate::metrics::{Metrics, Refused, Transport};
use crate::queue::{BOOKKEEPING, Lane, Origin, QueuedRequest};
use crate::senders::Sender;
use crate::worker::Worker;

/// The route of one signal.
pub(crate) struct Route {
    /// The queue of its requests.
    pub(crate) lane: Arc<Lane>,
    /// The edits of their resource attributes.
    pub(crate) edits: Arc<Edits>,
    /// The largest batch that can be compressed whatever else is held. A larger request pays for the rest of its
    /// copy from the beginning.
    pub(crate) reserve: usize,
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

/// How much later a refusal for lack of room comes if others need the room too.
const SLOWED: Duration = Duration::from_millis(100);

/// The memory of an open request beside its body: a task and a timer.
const OPEN: usize = 2 * 1024;

/// The largest decompressed body that is worked on between two others: at most half a millisecond, for JSON. A
/// larger one is worth the change of threads, which takes some 20 µs.
const SMALL: usize = 128 * 1024;

/// The same for a compressed body. Decompression may take long also where nothing comes out of it.
const SMALL_COMPRESSED: usize = SMALL / 4;

/// The state that a new configuration does not replace.
#[derive(Clone)]
pub(crate) struct SharedState {
    pub(crate) budget: Arc<Budget>,
    pub(crate) connections: Arc<ConnectionTable>,
    pub(crate) metrics: Arc<Metrics>,
    /// Works on large requests.
    pub(crate) worker: Arc<Worker<()>>,
    /// A random path, by which the agent finds out whether a port of its node leads to it.
    pub(crate) own_path: Arc<str>,
}

/// What all connections share; a changed configuration replaces the receiver in it.
pub(crate) struct ServerState {
    pub(crate) shared: SharedState,
    receiver: Mutex<Arc<OtlpReceiver>>,
    pub(super) read_quota: ReadQuota,
}

impl ServerState {
    /// Takes routes in any order, at most one per signal.
    pub(crate) fn new(shared: SharedState, routes: Vec<Route>, rules: ReceiverRules) -> Arc<Self> {
        let receiver = OtlpReceiver::new(&shared, routes, rules);
        Arc::new(Self {
            shared,
            receiver: Mutex::new(receiver),
            read_quota: ReadQuota::default(),
        })
    }

    /// The receiver for a request that begins now.
    pub(super) fn receiver(&self) -> Arc<OtlpReceiver> {
        Arc::clone(&lock(&self.receiver))
    }

    /// Uses these routes and rules for requests that begin from now on.
    pub(crate) fn change(&self, routes: Vec<Route>, rules: ReceiverRules) {
        *lock(&self.receiver) = OtlpReceiver::new(&self.shared, routes, rules);
    }
}

/// What a configuration says about clients.
pub(crate) struct ReceiverRules {
    config: ReceiverConfig,
    authenticator: Option<Authenticator>,
}

impl ReceiverRules {
    /// Reads the tokens of clients, if they need one.
    ///
    /// # Errors
    /// If there are none.
    pub(crate) fn new(config: &ReceiverConfig) -> Result<Self, TokenError> {
        let auth = config.auth.as_ref();
        Ok(Self {
            config: config.clone(),
            authenticator: auth.map(Authenticator::new).transpose()?,
        })
    }

    /// Accepts every client.
    pub(crate) fn open(config: ReceiverConfig) -> Self {
        Self {
            config,
            authenticator: None,
        }
    }
}

/// What requests share under one configuration.
pub(super) struct OtlpReceiver {
    routes: Vec<Route>,
    shared: SharedState,
    pub(super) config: ReceiverConfig,
    authenticator: Option<Authenticator>,
}

impl OtlpReceiver {
    fn new(shared: &SharedState, routes: Vec<Route>, rules: ReceiverRules) -> Arc<Self> {
        Arc::new(Self {
            routes,
            shared: shared.clone(),
            config: rules.config,
            authenticator: rules.authenticator,
        })
    }

    /// Refuses clients without a token, before anything else is looked at.
    pub(super) async fn authenticate(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.authenticator {
            Some(authenticator) if !authenticator.admits(headers).await => {
                Err(Refusal::Unauthenticated)
            }
            _ => Ok(()),
        }
    }

    /// Whether this agent asks itself.
    pub(super) fn is_own_path(&self, path: &str) -> bool {
        *self.shared.own_path == *path
    }

    pub(super) fn signal_at(&self, path: &str) -> Option<Signal> {
        let mut paths = self.config.url_paths.iter();
        paths
            .find(|(configured, _)| configured == path)
            .map(|(_, signal)| *signal)
    }

    pub(super) fn route(&self, signal: Signal) -> Result<&Route, Refusal> {
        let mut routes = self.routes.iter();
        routes
            .find(|route| route.lane.signal == signal)
            .ok_or(Refusal::NoPipeline(signal))
    }

    /// Decides, before the body is read, whether as much as it announces could be accepted, and reserves memory for
    /// its beginning.
    fn admit(&self, route: &Route, body: &RequestBody) -> Result<Permit, Refusal> {
        let (bytes, sender) = (body.announced(), body.sender());
        if !route.lane.has_room(sender, bytes) {
            return Err(Refusal::QueueFull { items: 0 });
        }
        if route.lane.is_closed() {
            return Err(Refusal::ShuttingDown);
        }
        if !body.is_paid {
            // The client finds memory when it tries again.
            self.shared.connections.make_room_for_requests();
            return Err(Refusal::ConnectionMemory);
        }
        let budget = &self.shared.budget;
        if !budget.has_room(sender, bytes, self.reserved_beside(route)) {
            return Err(Refusal::MemoryLimit);
        }
        let mut permit = budget.permit(Some(Arc::clone(sender)));
        let advance = OPEN + bytes.min(ADVANCE);
        permit.grow(advance).map_err(|_| Refusal::MemoryLimit)?;
        Ok(permit)
    }

    /// Reads a body of at most `limit` bytes, unless it is clear before that it cannot be accepted. `length`
    /// reads the total length from the first chunk, for bodies that begin with it.
    pub(super) async fn read(
        &self,
        route: &Route,
        body: RequestBody,
        limit: usize,
        length: impl Fn(&[u8]) -> usize,
    ) -> Result<(Vec<u8>, Permit), Refusal> {
        if body.announced() > limit {
            return Err(Refusal::TooLarge(limit));
        }
        let mut permit = self.admit(route, &body)?;
        let body = collect(body, limit, &mut permit, length).await?;
        Ok((body, permit))
    }

    /// The memory that one signal leaves to the others: the unused part of an eighth each, so that a signal
    /// whose upstream is unreachable does not use everything.
    fn reserved_beside(&self, route: &Route) -> usize {
        // A queue on disk frees memory by itself.
        if route.lane.is_durable() {
            return 0;
        }
        let share = self.shared.budget.soft_limit() / 8;
        let others = self.routes.iter();
        others
            .filter(|other| other.lane.signal != route.lane.signal)
            .map(|other| share.saturating_sub(other.lane.held_bytes()))
            .sum()
    }

    /// Decompresses, converts to protobuf, checks, edits and queues a request. Returns when it may be
    /// acknowledged.
    pub(super) async fn take(
        &self,
        route: &Route,
        mut request: OtlpRequest,
    ) -> Result<(), Refusal> {
        let (signal, transport) = (route.lane.signal, request.transport);
        let prepared = if request.is_large()? {
            Box::pin(self.prepare_aside(route, request)).await?
        } else {
            request.prepare(signal, &route.edits, route.reserve)?
        };
        self.shared
            .metrics
            .repaired_strings
            .add(prepared.repaired as u64);
        let Some(held) = prepared.request else {
            self.shared.metrics.empty(transport);
            return Ok(());
        };
        let items = held.items;
        match route.lane.push(held, Origin::Client(transport)) {
            Ok(ack) => ack.ready().await,
            Err(_) if route.lane.is_closed() => return Err(Refusal::ShuttingDown),
            Err(_) => return Err(Refusal::QueueFull { items }),
        }
        Ok(())
    }

    /// Prepares a large request on the thread for those, one after the other; senders take turns.
    async fn prepare_aside(
        &self,
        route: &Route,
        request: OtlpRequest,
    ) -> Result<Prepared, Refusal> {
        let (signal, edits) = (route.lane.signal, Arc::clone(&route.edits));
        let reserve = route.reserve;
        let worker = &self.shared.worker;
        let sender = request.permit.sender().cloned();
        let turn = match &sender {
            Some(sender) => {
                let _first = sender.large_turn().await;
                worker.turn().await
            }
            None => worker.turn().await,
        };
        let prepared = worker.run(turn, move |()| request.prepare(signal, &edits, reserve));
        prepared.await.unwrap_or(Err(Refusal::ShuttingDown))
    }

    /// Counts a refusal. One for lack of room comes late if others need the room too: a client that tries again and
    /// again would take up their time.
    pub(super) async fn refuse(
        &self,
        sender: &Sender,
        signal: Option<Signal>,
        transport: Transport,
        refusal: &Refusal,
    ) {
        let items = match refusal {
            Refusal::QueueFull { items } => *items,
            _ => 0,
        };
        let reason = refusal.counted_as();
        if *refusal == Refusal::MemoryLimit {
            self.shared.connections.evict_slow_sender();
        }
        let lacks_room = matches!(reason, Refused::Memory | Refused::QueueFull);
        if lacks_room {
            sender.count_refusal();
        }
        self.shared
            .metrics
            .refused(signal, transport, reason, items);
        let is_crowded = self.shared.budget.senders.has_others(sender);
        if lacks_room && is_crowded && *refusal != Refusal::ConnectionMemory {
            sleep(SLOWED).await;
        }
    }
}

pub(super) fn encoding(header: Option<&HeaderValue>) -> Result<Encoding, Refusal> {
    encoding::parse(header.map(HeaderValue::as_bytes)).ok_or(Refusal::Encoding)
}

/// What is left of a request to do on the runtime's thread.
struct Prepared {
    /// `None` if there is nothing to forward.
    request: Option<QueuedRequest>,
    /// The number of strings that had to be mended.
    repaired: usize,
}

impl OtlpRequest {
    /// Whether work on it would delay others. Decompresses a small one.
    fn is_large(&mut self) -> Result<bool, Refusal> {
        if self.encoding == Encoding::Identity {
            return Ok(self.body.len() > SMALL);
        }
        // Nothing is decompressed beyond the limit.
        let announced = encoding::announced(self.encoding, &self.body).min(self.limit);
        if self.body.len() > SMALL_COMPRESSED || announced > SMALL {
            return Ok(true);
        }
        match self.decompress(SMALL.min(self.limit)) {
            // There is more than it says.
            Err(DecodeError::TooLarge(_)) if self.limit > SMALL => Ok(true),
            done => done.map(|()| false).map_err(Refusal::from),
        }
    }

    /// Replaces the body by what is in it.
    fn decompress(&mut self, limit: usize) -> Result<(), DecodeError> {
        if self.encoding != Encoding::Identity {
            self.body = encoding::decode(self.encoding, &self.body, limit, &mut self.permit)?;
            self.encoding = Encoding::Identity;
        }
        Ok(())
    }

    /// Decompresses, converts to protobuf, checks and edits it.
    fn prepare(
        mut self,
        signal: Signal,
        edits: &Edits,
        reserve: usize,
    ) -> Result<Prepared, Refusal> {
        let mut repaired = 0;
        self.decompress(self.limit)?;
        if self.format == Format::Json {
            self.transcode(signal, &mut repaired)?;
        }
        let Self {
            limit,
            body: mut message,
            mut permit,
            ..
        } = self;
        let items = check(signal, &mut message, &mut repaired)
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        // A request without items has no data to forward, unless it is in fields of the request itself: a
        // profile without samples may carry a payload, and what is not known may be data.
        let is_alone = !is_mergeable(signal, &message);
        if message.is_empty() || (items == 0 && !is_alone) {
            let request = None;
            return Ok(Prepared { request, repaired });
        }
        let bytes = if edits.is_empty() {
            exact(message)
        } else {
            let mut grant = |more| permit.grow(more).is_ok();
            exact(edit(edits, &message, limit, &mut grant)?)
        };
        permit.set(bytes.len() + BOOKKEEPING);
        let beyond = bytes.len().saturating_sub(reserve);
        if beyond > 0 && permit.grow(beyond).is_err() {
            return Err(Refusal::MemoryLimit);
        }
        let request = Some(QueuedRequest {
            bytes,
            items,
            is_alone,
            permit,
        });
        Ok(Prepared { request, repaired })
    }

    /// Replaces JSON by protobuf. Adds the number of strings it had to mend.
    fn transcode(&mut self, signal: Signal, repaired: &mut usize) -> Result<(), Refusal> {
        let mut grant = |more| self.permit.grow(more).is_ok();
        let mut transcoded = json::transcode(signal, &self.body, self.limit, &mut grant);
        if let Err(json::Error::Utf8(_)) = transcoded {
            *repaired += json::repair(&mut self.body);
            transcoded = json::transcode(signal, &self.body, self.limit, &mut grant);
        }
        self.body = transcoded.map_err(|error| match error {
            json::Error::TooLarge(limit) => Refusal::TooLarge(limit),
            json::Error::Exhausted => Refusal::MemoryLimit,
            json::Error::Malformed(_) | json::Error::Utf8(_) => {
                Refusal::Malformed(error.to_string())
            }
        })?;
        Ok(())
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge(limit) => Self::TooLarge(limit),
            DecodeError::Exhausted => Self::MemoryLimit,
            DecodeError::Corrupt(_) => Self::Malformed(error.to_string()),
        }
    }
}

/// Counts the items of a message, and mends its strings if they are not UTF-8.
fn check(signal: Signal, message: &mut [u8], repaired: &mut usize) -> Result<usize, Malformed> {
    match inspect(signal, message) {
        Err(Malformed::Utf8) => {
            *repaired += repair(signal, message)?;
            inspect(signal, message)
        }
        inspected => inspected,
    }
}

fn edit(
    edits: &Edits,
    message: &[u8],
    limit: usize,
    grant: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<u8>, Refusal> {
    let edited = edits.apply(message, limit, grant);
    edited.map_err(|error| match error {
        EditError::Malformed(error) => Refusal::Malformed(error.to_string()),
        EditError::TooLarge(limit) => Refusal::TooLarge(limit),
        EditError::Exhausted => Refusal::MemoryLimit,
    })
}

/// Shrinks the allocation to its content, so that the budget counts exactly.
fn exact(bytes: Vec<u8>) -> Bytes {
    Bytes::from(bytes.into_boxed_slice())
}
