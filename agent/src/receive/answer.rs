//! The few shapes of a response's body.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};

/// The body of a response.
pub(crate) enum Answer {
    /// No body.
    Empty,
    /// One chunk.
    Full(Option<Bytes>),
    /// An empty gRPC message, then the trailers of success.
    GrpcOk(GrpcOk),
}

/// The next part of a successful gRPC response.
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
                    // Uncompressed and empty: an Export<Signal>ServiceResponse without fields.
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
