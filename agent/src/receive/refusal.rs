//! The reasons to refuse a request, and their form in each protocol (OTLP specification, "Failures" and
//! "Throttling").

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use otlp_wire::{
    Signal,
    status::{self, Code, Status},
};

use super::answer::Answer;
use crate::encoding;
use crate::metrics::Refused;

/// The delay that a refused client is asked for.
const RETRY: Duration = Duration::from_secs(1);

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the queue is full")]
    QueueFull,
    /// The same, already counted with its items.
    #[error("the queue is full")]
    QueueFullCounted,
    #[error("the memory limit is reached")]
    MemoryLimit,
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    #[error("malformed request: {0}")]
    Malformed(String),
    #[error("no pipeline takes {}", .0.name())]
    NoPipeline(Signal),
    #[error("unknown path or method")]
    UnknownPath,
    #[error("only POST is allowed")]
    Method,
    #[error("unsupported content type")]
    MediaType,
    #[error("unsupported encoding; use {}", encoding::ACCEPTED)]
    Encoding,
    #[error("a unary call carries one message")]
    Framing,
    #[error("the request did not arrive in time")]
    TooSlow,
    #[error("the request ended early")]
    Disconnected,
    #[error("gRPC needs HTTP/2")]
    NeedsHttp2,
    #[error("the agent is shutting down")]
    ShuttingDown,
}

impl Refusal {
    /// The reason to count it under, unless it is counted already.
    pub(super) fn counted_as(&self) -> Option<Refused> {
        Some(match self {
            Self::QueueFullCounted => return None,
            Self::QueueFull => Refused::QueueFull,
            Self::MemoryLimit => Refused::Memory,
            Self::TooLarge(_) => Refused::TooLarge,
            Self::Malformed(_) | Self::Framing => Refused::Malformed,
            Self::NoPipeline(_)
            | Self::UnknownPath
            | Self::Method
            | Self::MediaType
            | Self::Encoding
            | Self::NeedsHttp2 => Refused::Unsupported,
            Self::TooSlow | Self::Disconnected => Refused::Aborted,
            Self::ShuttingDown => Refused::ShuttingDown,
        })
    }

    fn status(&self) -> Status {
        let code = match self {
            Self::QueueFull
            | Self::QueueFullCounted
            | Self::MemoryLimit
            | Self::ShuttingDown
            | Self::TooSlow
            | Self::Disconnected => Code::UNAVAILABLE,
            Self::TooLarge(_) => Code::RESOURCE_EXHAUSTED,
            Self::Malformed(_) | Self::MediaType => Code::INVALID_ARGUMENT,
            Self::NoPipeline(_) | Self::UnknownPath | Self::Method | Self::Encoding => {
                Code::UNIMPLEMENTED
            }
            Self::Framing | Self::NeedsHttp2 => Code::INTERNAL,
        };
        Status {
            code,
            message: self.to_string(),
            retry_after: self.is_transient().then_some(RETRY),
        }
    }

    /// Whether the same request may succeed later.
    fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::QueueFull | Self::QueueFullCounted | Self::MemoryLimit | Self::ShuttingDown
        )
    }

    fn http_status(&self) -> StatusCode {
        match self {
            Self::QueueFull | Self::QueueFullCounted | Self::MemoryLimit | Self::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Malformed(_) | Self::Framing | Self::Disconnected => StatusCode::BAD_REQUEST,
            Self::NoPipeline(_) | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::MediaType | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NeedsHttp2 => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// A gRPC response of headers alone ("Trailers-Only").
    pub(super) fn grpc(&self) -> Response<Answer> {
        let status = self.status();
        let mut response = Response::new(Answer::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let code = HeaderValue::from(status.code.0);
        headers.insert(HeaderName::from_static("grpc-status"), code);
        if let Ok(message) = HeaderValue::from_str(&status::percent_encode(&status.message)) {
            headers.insert(HeaderName::from_static("grpc-message"), message);
        }
        if status.retry_after.is_some() || status.code == Code::INVALID_ARGUMENT {
            let details = status::base64_encode(&status.encode());
            if let Ok(details) = HeaderValue::from_str(&details) {
                headers.insert(HeaderName::from_static("grpc-status-details-bin"), details);
            }
        }
        if *self == Self::Encoding {
            let accepted = HeaderValue::from_static(encoding::ACCEPTED_GRPC);
            headers.insert(HeaderName::from_static("grpc-accept-encoding"), accepted);
        }
        response
    }

    /// An HTTP response with a `google.rpc.Status` in the format of the request.
    pub(super) fn http(&self, json: bool) -> Response<Answer> {
        let status = self.status();
        let (body, kind) = if json {
            (Bytes::from(status.json()), "application/json")
        } else {
            (Bytes::from(status.encode()), "application/x-protobuf")
        };
        let mut response = Response::new(Answer::full(body));
        *response.status_mut() = self.http_status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(delay) = status.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs()));
        }
        match self {
            Self::Method => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            Self::Encoding => {
                headers.insert(
                    ACCEPT_ENCODING,
                    HeaderValue::from_static(encoding::ACCEPTED),
                );
            }
            _ => {}
        }
        response
    }
}
