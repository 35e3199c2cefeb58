//! Responses and their bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

/// A response with a body of this content type.
pub(crate) fn response(
    code: StatusCode,
    kind: &'static str,
    body: impl Into<Answer>,
) -> Response<Answer> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The body of a response: at most one chunk, and after it the trailers of a successful gRPC call.
#[derive(Default)]
pub(crate) struct Answer {
    chunk: Option<Bytes>,
    has_trailers: bool,
}

impl Answer {
    pub(super) fn grpc_ok() -> Self {
        Self {
            // Uncompressed and empty: an Export<Signal>ServiceResponse without fields.
            chunk: Some(Bytes::from_static(&[0; 5])),
            has_trailers: true,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Answer {
    fn from(body: T) -> Self {
        Self {
            chunk: Some(body.into()),
            has_trailers: false,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = if let Some(chunk) = self.chunk.take() {
            Some(Frame::data(chunk))
        } else {
            std::mem::take(&mut self.has_trailers).then(|| {
                let mut trailers = HeaderMap::with_capacity(1);
                let ok = HeaderValue::from_static("0");
                trailers.insert(HeaderName::from_static("grpc-status"), ok);
                Frame::trailers(trailers)
            })
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.chunk.is_none() && !self.has_trailers
    }

    fn size_hint(&self) -> SizeHint {
        if self.has_trailers {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.chunk.as_ref().map_or(0, |chunk| chunk.len() as u64))
    }
}
