//! One attempt to send a batch.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use otelagent_flow::{Outcome, Piece};
use tokio::time::Instant;

use super::answer::UpstreamAnswer;
use super::destination::{Destination, Endpoint};
use super::upstream::Shared;
use crate::budget::ExportPermit;
use crate::config::Compression;
use crate::queue::Batch;

/// The memory of an attempt without compression: what HTTP/2 has taken over and not written yet.
const UNWRITTEN: usize = 256 * 1024;

/// A request ready to be sent, and the memory it holds. It does not outlive the attempt: of an upstream that fails
/// there is one attempt now and then, and what waits should take little memory.
struct Encoded {
    body: Vec<Bytes>,
    #[expect(dead_code, reason = "held for its drop")]
    permit: ExportPermit,
}

impl Piece for Batch {
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn queued_bytes(&self) -> usize {
        Self::queued_bytes(self)
    }

    fn requests(&self) -> usize {
        Self::requests(self)
    }

    fn split(&mut self) -> Option<Self> {
        Self::split(self)
    }
}

/// Makes one attempt: at the endpoint in use, and where that fails at the others, each in an encoding that it takes.
/// Adds to `waited` how long it waited for memory, which says nothing about the upstream.
pub(super) async fn send(
    batch: &Batch,
    destination: &Destination,
    shared: &Shared,
    limit: Duration,
    waited: &mut Duration,
) -> UpstreamAnswer {
    let mut index = destination.pick();
    loop {
        let Some(endpoint) = destination.endpoint(index) else {
            return UpstreamAnswer::unreachable("there is no endpoint");
        };
        let answer = send_to(batch, endpoint, shared, limit, waited).await;
        let Some(next) = destination.after(index, &answer) else {
            return answer;
        };
        shared.metrics.attempt_failed(answer.failure());
        index = next;
    }
}

/// The encodings in which an endpoint is sent one request: the configured one, and plainer ones if that may help.
pub(super) struct Encodings<'a> {
    endpoint: &'a Endpoint,
    pub(super) current: Compression,
    /// What the endpoint said of the one before.
    refusal: Option<UpstreamAnswer>,
}

impl<'a> Encodings<'a> {
    pub(super) fn of(endpoint: &'a Endpoint) -> Self {
        Self {
            endpoint,
            current: endpoint.fallback.current(),
            refusal: None,
        }
    }

    /// Returns the answer if it is the last one; otherwise the current encoding is another now.
    pub(super) fn after(&mut self, answer: UpstreamAnswer) -> Option<UpstreamAnswer> {
        let fallback = &self.endpoint.fallback;
        let is_taken = answer.outcome == Outcome::Delivered;
        if is_taken {
            fallback.taken(self.current);
        }
        if let Some(refusal) = &self.refusal
            && (is_taken || refusal.refuses_encoding && !answer.refuses_encoding)
        {
            self.endpoint.falls_back(self.current, &refusal.message);
        }
        let Some(plainer) = fallback.plainer(self.current, &answer) else {
            return Some(answer);
        };
        self.refusal = Some(answer);
        self.current = plainer;
        None
    }
}

/// Sends to one endpoint, and again in a plainer encoding if that may help.
async fn send_to(
    batch: &Batch,
    endpoint: &Endpoint,
    shared: &Shared,
    limit: Duration,
    waited: &mut Duration,
) -> UpstreamAnswer {
    let mut encodings = Encodings::of(endpoint);
    loop {
        let answer = send_as(batch, endpoint, encodings.current, shared, limit, waited).await;
        if let Some(answer) = encodings.after(answer) {
            return answer;
        }
    }
}

async fn send_as(
    batch: &Batch,
    endpoint: &Endpoint,
    compression: Compression,
    shared: &Shared,
    limit: Duration,
    waited: &mut Duration,
) -> UpstreamAnswer {
    let encoded = match encode(batch, compression, shared, waited).await {
        Ok(encoded) => encoded,
        Err(error) => return UpstreamAnswer::unreachable(format!("compressing: {error}")),
    };
    let signal = batch.signal();
    shared.metrics.in_flight(signal, true);
    let sent = endpoint.send(signal, &encoded.body, compression, limit);
    let answer = sent.await;
    shared.metrics.in_flight(signal, false);
    let wire: usize = encoded.body.iter().map(Bytes::len).sum();
    let plain = batch.bytes() as u64;
    shared.metrics.attempted(signal, plain, wire as u64);
    answer
}

async fn encode(
    batch: &Batch,
    compression: Compression,
    shared: &Shared,
    waited: &mut Duration,
) -> io::Result<Encoded> {
    let needed = match compression {
        Compression::None => batch.bytes().min(UNWRITTEN),
        // As if nothing could be compressed.
        _ => batch.bytes(),
    };
    let asked = Instant::now();
    let mut permit = shared.budget.export(needed).await;
    *waited += asked.elapsed();
    if compression == Compression::None {
        let body = batch.parts();
        return Ok(Encoded { body, permit });
    }
    // The permit lives as long as the job, whose caller may have left.
    compress(batch.parts(), compression, shared, move |body| {
        permit.set(body.iter().map(Bytes::len).sum());
        Encoded { body, permit }
    })
    .await
}

/// Compresses a body on the thread for that, where `finish` makes the result of it.
pub(super) async fn compress<T: Send + 'static>(
    parts: Vec<Bytes>,
    compression: Compression,
    shared: &Shared,
    finish: impl FnOnce(Vec<Bytes>) -> T + Send + 'static,
) -> io::Result<T> {
    let turn = shared.compressor.turn().await;
    let compressed = shared.compressor.run(turn, move |compressor| {
        compressor.encode(compression, &parts).map(finish)
    });
    compressed.await.map_err(io::Error::other)?
}
