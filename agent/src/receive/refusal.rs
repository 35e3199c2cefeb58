//! The reasons to refuse a request, and their form in each protocol (OTLP specification, "Failures" and
//! "Throttling").

use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use otlp_wire::{
    Signal,
    status::{self, Code, Status},
};

use super::answer::{Answer, response};
use crate::encoding;
use crate::metrics::Refused;

/// The delay that a refused client is asked for.
const RETRY: Duration = Duration::from_secs(1);

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// With the number of items, if it is known.
    #[error("the queue is full")]
    QueueFull { items: usize },
    #[error("the memory limit is reached")]
    MemoryLimit,
    #[error("no memory is left for another request on this connection")]
    ConnectionMemory,
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
    #[error(
        "unsupported content type; use application/x-protobuf, application/json, or gRPC without the web"
    )]
    MediaType,
    #[error("unsupported codec; messages must be protobuf")]
    Codec,
    #[error("unsupported encoding; use {}", encoding::ACCEPTED)]
    Encoding,
    #[error("a unary call carries one message")]
    Framing,
    /// The client ended the call, so it is no broken connection.
    #[error("the call ended before its message was complete")]
    Cut,
    #[error("the token is missing or wrong")]
    Unauthenticated,
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
    /// The gRPC code, the HTTP status, and the reason to count it under.
    fn row(&self) -> (Code, StatusCode, Refused) {
        use Refused as By;
        let (code, status, counted) = match self {
            Self::QueueFull { .. } => (Code::UNAVAILABLE, 503, By::QueueFull),
            Self::MemoryLimit | Self::ConnectionMemory => (Code::UNAVAILABLE, 503, By::Memory),
            Self::ShuttingDown => (Code::UNAVAILABLE, 503, By::ShuttingDown),
            // Not 408, which is final in OTLP: it may be the agent that is slow.
            Self::TooSlow => (Code::UNAVAILABLE, 503, By::Aborted),
            Self::Disconnected => (Code::UNAVAILABLE, 400, By::Aborted),
            Self::TooLarge(_) => (Code::RESOURCE_EXHAUSTED, 413, By::TooLarge),
            Self::Malformed(_) => (Code::INVALID_ARGUMENT, 400, By::Malformed),
            // As grpc-go says.
            Self::Framing | Self::Cut => (Code::INTERNAL, 400, By::Malformed),
            Self::Unauthenticated => (Code::UNAUTHENTICATED, 401, By::Unauthenticated),
            Self::MediaType => (Code::INVALID_ARGUMENT, 415, By::Unsupported),
            Self::Encoding | Self::Codec => (Code::UNIMPLEMENTED, 415, By::Unsupported),
            Self::Method => (Code::UNIMPLEMENTED, 405, By::Unsupported),
            Self::NoPipeline(_) | Self::UnknownPath => (Code::UNIMPLEMENTED, 404, By::Unsupported),
            Self::NeedsHttp2 => (Code::INTERNAL, 505, By::Unsupported),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, status, counted)
    }

    pub(super) fn counted_as(&self) -> Refused {
        self.row().2
    }

    /// The same request may succeed later exactly if the HTTP status is 503.
    fn status(&self) -> Status {
        let (code, status, _) = self.row();
        Status {
            code,
            message: self.to_string(),
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY),
        }
    }

    /// A gRPC response of headers alone ("Trailers-Only").
    pub(super) fn grpc(&self) -> Response<Answer> {
        let status = self.status();
        let mut response = response(StatusCode::OK, "application/grpc", Answer::default());
        let headers = response.headers_mut();
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
        let code = self.row().1;
        let mut response = if json {
            response(code, "application/json", status.json())
        } else {
            response(code, "application/x-protobuf", status.encode())
        };
        let headers = response.headers_mut();
        if let Some(delay) = status.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs()));
        }
        if *self == Self::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if *self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if *self == Self::Encoding {
            let accepted = HeaderValue::from_static(encoding::ACCEPTED);
            headers.insert(ACCEPT_ENCODING, accepted);
        }
        response
    }
}
