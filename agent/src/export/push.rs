//! Sends the agent's own metrics: at once or not at all, since the next ones say everything that these say. They take no
//! part in what queues, batches and exporters share: they wait for no memory, and only the endpoint itself is tried.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use otelagent_flow::Outcome;
use otlp_wire::Signal;

use super::answer::UpstreamAnswer;
use super::attempt::{Encodings, compress};
use super::destination::Destination;
use super::upstream::Shared;
use crate::compress::context;
use crate::config::Compression;
use crate::metrics::Push;

/// The end of a push.
pub(crate) struct Pushed {
    pub(crate) result: Push,
    /// The endpoint's words, or the reason why there are none.
    pub(crate) message: String,
}

impl Destination {
    /// Makes one attempt to send metrics, which the caller gives up after `limit`.
    pub(crate) async fn push(&self, metrics: Bytes, limit: Duration, shared: &Shared) -> Pushed {
        // A call ends earlier by itself, so that a connection on which nothing comes is not used again.
        let limit = self.exporter.timeout.min(limit * 9 / 10);
        let index = self.pick();
        let Some(endpoint) = self.endpoint(index) else {
            return UpstreamAnswer::unreachable("there is no endpoint").into();
        };
        // Counted and never refused: metrics matter most when memory is short, and have a bound of their own.
        let mut permit = shared.budget.permit(None);
        let mut encodings = Encodings::of(endpoint);
        loop {
            let compression = encodings.current;
            permit.set(metrics.len() * 2 + context(compression));
            let answer = match encode(&metrics, compression, shared).await {
                Ok(body) => {
                    let encoded: usize = body.iter().map(Bytes::len).sum();
                    permit.set(metrics.len() + encoded);
                    let sent = endpoint.send(Signal::Metrics, &body, compression, limit);
                    sent.await
                }
                Err(error) => UpstreamAnswer::unreachable(format!("compressing: {error}")),
            };
            if let Some(answer) = encodings.after(answer) {
                return answer.into();
            }
        }
    }
}

async fn encode(
    metrics: &Bytes,
    compression: Compression,
    shared: &Shared,
) -> io::Result<Vec<Bytes>> {
    let parts = vec![metrics.clone()];
    if compression == Compression::None {
        return Ok(parts);
    }
    compress(parts, compression, shared, |body| body).await
}

impl From<UpstreamAnswer> for Pushed {
    fn from(answer: UpstreamAnswer) -> Self {
        let result = match answer.outcome {
            Outcome::Delivered if answer.rejected > 0 => Push::Rejected,
            Outcome::Delivered => Push::Delivered,
            _ => Push::Failed,
        };
        Self {
            result,
            message: answer.message,
        }
    }
}
