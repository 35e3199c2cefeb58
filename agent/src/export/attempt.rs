//! One attempt to send a batch.

use std::io;

use bytes::Bytes;
use otelagent_flow::Piece;

use super::answer::Answer;
use super::destination::Destination;
use super::upstream::Shared;
use crate::budget::ExportPermit;
use crate::compress;
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

    fn requests(&self) -> usize {
        Self::requests(self)
    }

    fn split(&mut self) -> Option<Self> {
        Self::split(self)
    }
}

/// Makes one attempt.
pub(super) async fn send(batch: &Batch, destination: &Destination, shared: &Shared) -> Answer {
    let encoded = match encode(batch, destination.exporter.compression, shared).await {
        Ok(encoded) => encoded,
        Err(error) => return Answer::not_sent(format!("compressing: {error}")),
    };
    let signal = batch.signal();
    shared.metrics.in_flight(signal, true);
    let answer = destination.send(signal, &encoded.body).await;
    shared.metrics.in_flight(signal, false);
    let wire: usize = encoded.body.iter().map(Bytes::len).sum();
    let plain = batch.bytes() as u64;
    shared.metrics.attempted(signal, plain, wire as u64);
    answer
}

async fn encode(batch: &Batch, compression: Compression, shared: &Shared) -> io::Result<Encoded> {
    if compression == Compression::None {
        let permit = shared.budget.export(batch.bytes().min(UNWRITTEN)).await;
        let body = batch.parts();
        return Ok(Encoded { body, permit });
    }
    // As if nothing could be compressed.
    let needed = batch.bytes() + compress::context(compression);
    let mut permit = shared.budget.export(needed).await;
    let mut compressor = shared.compressor.lock().await;
    let body = compressor.encode(compression, &batch.parts()).await?;
    drop(compressor);
    permit.set(body.iter().map(Bytes::len).sum());
    Ok(Encoded { body, permit })
}
