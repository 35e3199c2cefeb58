//! Bodies: collecting a request's within its limits, and the few shapes an answer has. Must not know
//! protocols beyond their frames.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::pulse::Pulse;
use super::status::Refusal;
use crate::budget::Permit;

/// A whole body must arrive within this.
const BODY: Duration = Duration::from_secs(30);

/// What is read of a body after its request was refused, and for how long.
const DISCARD_BYTES: usize = 32 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// How many bodies are thrown away at a time: each costs a few kilobytes that nobody has paid for.
static DISCARDS: Semaphore = Semaphore::const_new(1024);

/// A request body. Refused ones are read to their end in the background and thrown away: to reset
/// their streams instead would let an overloaded agent lose whole connections, since HTTP/2 ends one
/// after a thousand resets. Bodies that do not end are thrown away up to a number; then it does that.
pub(super) struct Arriving {
    body: Option<Incoming>,
    pulse: Arc<Pulse>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, pulse: Arc<Pulse>) -> Self {
        Self {
            body: Some(body),
            pulse,
        }
    }

    /// The announced length, 0 where there is none.
    pub(super) fn announced(&self) -> usize {
        let length = self.body.as_ref().and_then(|body| body.size_hint().exact());
        usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX)
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Refusal> {
        while let Some(body) = &mut self.body {
            match body.frame().await {
                None => self.body = None,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(_)) => {
                    self.body = None;
                    return Err(Refusal::Disconnected);
                }
            }
        }
        Ok(None)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        let Some(body) = unread else {
            return;
        };
        if let (Ok(place), Ok(runtime)) = (DISCARDS.try_acquire(), Handle::try_current()) {
            // An HTTP/2 stream that is still open counts.
            let in_flight = self.pulse.begin();
            runtime.spawn(async move {
                let _ = timeout(DISCARD_TIME, discard(body)).await;
                drop((place, in_flight));
            });
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        // Hyper tells the end of an HTTP/1.1 body of known length with the next request only, once the
        // answer has been sent; its client must not pass as slow until then.
        if read > DISCARD_BYTES || body.is_end_stream() {
            return;
        }
    }
}

/// How much of a body is paid for before its first byte has arrived: a length is easily announced.
pub(super) const ADVANCE: usize = 16 * 1024;

/// Reads a body of at most `limit` bytes, each paid for before it is kept. `permit` already covers
/// [`ADVANCE`] or what was announced, whichever is less. `length` reads the whole length from the
/// first piece, for bodies that begin with it.
pub(super) async fn collect(
    body: Arriving,
    limit: usize,
    permit: &mut Permit,
    length: impl Fn(&[u8]) -> usize,
) -> Result<Vec<u8>, Refusal> {
    timeout(BODY, read(body, limit, permit, length))
        .await
        .unwrap_or(Err(Refusal::TooSlow))
}

async fn read(
    mut body: Arriving,
    limit: usize,
    permit: &mut Permit,
    length: impl Fn(&[u8]) -> usize,
) -> Result<Vec<u8>, Refusal> {
    let mut expected = body.announced();
    let mut paid = expected.min(ADVANCE);
    let mut collected = Vec::with_capacity(paid);
    while let Some(data) = body.frame().await? {
        if collected.is_empty() {
            expected = expected.max(length(&data));
        }
        let needed = collected.len() + data.len();
        if needed.max(expected) > limit {
            return Err(Refusal::TooLarge(limit));
        }
        if needed > paid {
            // Twice what has arrived, but no more than will: few copies, and nobody can reserve
            // memory by promising much and sending little.
            let most = if expected >= needed { expected } else { limit };
            let room = (needed * 2).min(most);
            permit.grow(room - paid).map_err(|_| Refusal::MemoryLimit)?;
            collected.reserve_exact(room - collected.len());
            paid = room;
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected)
}

/// The body of an answer.
pub(crate) enum Answer {
    /// Headers only.
    Empty,
    /// One piece.
    Full(Option<Bytes>),
    /// A gRPC message without fields, then the trailers of success.
    GrpcOk(GrpcOk),
}

/// What of a successful gRPC answer is still to be sent.
pub(crate) enum GrpcOk {
    Message,
    Trailers,
    Done,
}

impl Answer {
    pub(crate) fn empty() -> Self {
        Self::Empty
    }

    pub(crate) fn full(body: Bytes) -> Self {
        Self::Full(Some(body))
    }

    pub(super) fn grpc_ok() -> Self {
        Self::GrpcOk(GrpcOk::Message)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut *self {
            Self::Empty => None,
            Self::Full(body) => body.take().map(Frame::data),
            Self::GrpcOk(state) => match state {
                GrpcOk::Message => {
                    *state = GrpcOk::Trailers;
                    // Not compressed, no bytes: an Export<Signal>ServiceResponse without fields.
                    Some(Frame::data(Bytes::from_static(&[0; 5])))
                }
                GrpcOk::Trailers => {
                    *state = GrpcOk::Done;
                    let mut trailers = HeaderMap::with_capacity(1);
                    let ok = HeaderValue::from_static("0");
                    trailers.insert(HeaderName::from_static("grpc-status"), ok);
                    Some(Frame::trailers(trailers))
                }
                GrpcOk::Done => None,
            },
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        matches!(
            self,
            Self::Empty | Self::Full(None) | Self::GrpcOk(GrpcOk::Done)
        )
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
            Self::Full(Some(body)) => SizeHint::with_exact(body.len() as u64),
            Self::GrpcOk(_) => SizeHint::default(),
        }
    }
}
