//! Bodies: collecting a request's within its limits, and the few shapes an answer has. Must not know
//! protocols beyond their frames.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::status::Refusal;
use crate::budget::Permit;

/// A whole body must arrive within this.
const BODY: Duration = Duration::from_secs(30);

/// Reads a body of at most `limit` bytes, each paid for before it is kept. `permit` already covers
/// `announced` bytes.
pub(super) async fn collect(
    body: Incoming,
    announced: usize,
    limit: usize,
    permit: &mut Permit,
) -> Result<Vec<u8>, Refusal> {
    timeout(BODY, read(body, announced, limit, permit))
        .await
        .unwrap_or(Err(Refusal::TooSlow))
}

async fn read(
    mut body: Incoming,
    announced: usize,
    limit: usize,
    permit: &mut Permit,
) -> Result<Vec<u8>, Refusal> {
    let mut collected = Vec::with_capacity(announced);
    let mut paid = announced;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Disconnected)?;
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        let length = collected.len() + data.remaining();
        if length > limit {
            return Err(Refusal::TooLarge(limit));
        }
        if length > paid {
            // Growing by half keeps copies few where no length was announced.
            let room = (paid + paid / 2).max(length).min(limit);
            permit.grow(room - paid).map_err(|_| Refusal::MemoryLimit)?;
            collected.reserve_exact(room - collected.len());
            paid = room;
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            collected.extend_from_slice(chunk);
            let taken = chunk.len();
            data.advance(taken);
        }
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
