//! A batch on its way, and its encoded form.

use std::sync::Arc;

use bytes::Bytes;
use otelagent_flow::Piece;

use super::answer::Answer;
use super::destination::Destination;
use super::upstream::Shared;
use crate::budget::ExportPermit;
use crate::compress;
use crate::config::Compression;
use crate::queue::Batch;

/// A batch between queue and upstream.
pub(super) struct Parcel {
    pub(super) batch: Batch,
    encoded: Option<Encoded>,
}

/// A request ready to be sent, and the memory it holds.
struct Encoded {
    /// Whose encoding it has.
    destination: Arc<Destination>,
    body: Vec<Bytes>,
    #[expect(dead_code, reason = "held for its drop")]
    permit: Option<ExportPermit>,
}

impl Piece for Parcel {
    fn bytes(&self) -> usize {
        self.batch.bytes()
    }

    fn requests(&self) -> usize {
        self.batch.requests()
    }

    fn split(&mut self) -> Option<Self> {
        let half = self.batch.split()?;
        self.encoded = None;
        Some(Self::new(half))
    }
}

impl Parcel {
    pub(super) fn new(batch: Batch) -> Self {
        Self {
            batch,
            encoded: None,
        }
    }

    /// Makes one attempt. The encoded form stays for the next one, unless memory is short: then compressing again
    /// is cheaper.
    pub(super) async fn send(&mut self, destination: &Arc<Destination>, shared: &Shared) -> Answer {
        let kept = self.encoded.take();
        let kept = kept.filter(|kept| Arc::ptr_eq(&kept.destination, destination));
        let encoded = match kept {
            Some(encoded) => encoded,
            None => match self.encode(destination, shared).await {
                Ok(encoded) => encoded,
                Err(error) => return Answer::not_sent(format!("compressing: {error}")),
            },
        };
        let signal = self.batch.signal();
        shared.metrics.in_flight(signal, true);
        let answer = destination.send(signal, &encoded.body).await;
        shared.metrics.in_flight(signal, false);
        let wire: usize = encoded.body.iter().map(Bytes::len).sum();
        let plain = self.batch.bytes() as u64;
        shared.metrics.attempted(signal, plain, wire as u64);
        if answer.outcome.is_retryable() && !shared.budget.is_short() {
            self.encoded = Some(encoded);
        }
        answer
    }

    async fn encode(
        &self,
        destination: &Arc<Destination>,
        shared: &Shared,
    ) -> std::io::Result<Encoded> {
        let compression = destination.exporter.compression;
        let parts = self.batch.parts();
        let destination = Arc::clone(destination);
        if compression == Compression::None {
            return Ok(Encoded {
                destination,
                body: parts,
                permit: None,
            });
        }
        let compressor = shared.compressor.acquire().await;
        let needed = self.batch.bytes() + compress::context(compression);
        let mut permit = shared.budget.export(needed);
        let body = compressor.encode(compression, &parts).await?;
        permit.set(body.iter().map(Bytes::len).sum());
        Ok(Encoded {
            destination,
            body,
            permit: Some(permit),
        })
    }
}
