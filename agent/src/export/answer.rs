//! The end of an attempt, as a client sees it.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, RETRY_AFTER};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use otelagent_flow::{self as flow, Outcome};
use otlp_wire::status::Code;

use crate::config::Address;
use crate::metrics::FailedAttempt;

/// The maximum size of an answer (OTLP specification: 4 MiB suffice).
const MAX_RESPONSE: usize = 4 * 1024 * 1024;

/// What is kept of it. No budget counts it, and there are as many answers as requests in flight.
const KEPT: usize = 64 * 1024;

/// Why an answer cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the answer is longer than {MAX_RESPONSE} bytes")]
    TooLong,
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// Reads an answer to its end: the beginning of its body, and its trailers.
pub(super) async fn read(mut body: Incoming) -> Result<(Vec<u8>, Option<HeaderMap>), ReadError> {
    let (mut kept, mut read, mut trailers) = (Vec::new(), 0_usize, None);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                read = read.saturating_add(data.len());
                if read > MAX_RESPONSE {
                    return Err(ReadError::TooLong);
                }
                let room = KEPT.saturating_sub(kept.len());
                kept.extend_from_slice(data.get(..room).unwrap_or(&data));
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((kept, trailers))
}

/// A setting that is wrong, here or at the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// HTTP/1.1 instead of HTTP/2, or the other way round.
    Protocol,
    /// TLS where there is none, or none where there is TLS.
    Scheme,
    /// A certificate, or the versions of TLS.
    Tls,
    /// The proxy, or what it allows.
    Proxy,
    /// A file that the configuration names is missing.
    File,
}

/// The end of an attempt.
#[derive(Debug)]
pub(super) struct UpstreamAnswer {
    pub(super) outcome: Outcome,
    /// Why nothing will get through before somebody changes something, if that is known.
    pub(super) fault: Option<Fault>,
    /// Whether the upstream says that it does not know the encoding.
    pub(super) refuses_encoding: bool,
    /// Items that the upstream rejected although it took the request.
    pub(super) rejected: u64,
    /// The upstream's words, or the reason why there are none.
    pub(super) message: String,
}

impl UpstreamAnswer {
    fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            fault: None,
            refuses_encoding: false,
            rejected: 0,
            message: message.into(),
        }
    }

    /// The upstream took the request.
    pub(super) fn delivered(rejected: u64, message: &str) -> Self {
        Self {
            rejected,
            ..Self::new(Outcome::Delivered, beginning(message))
        }
    }

    /// There is no connection.
    pub(super) fn unreachable(why: impl Into<String>) -> Self {
        Self::new(Outcome::Unreachable, why)
    }

    /// There is no connection that could work, until a setting changes.
    pub(super) fn misconfigured(fault: Fault, why: impl Into<String>) -> Self {
        Self {
            fault: Some(fault),
            ..Self::new(Outcome::Unreachable, why)
        }
    }

    /// There was no connection in time.
    pub(super) fn no_connection(to: &Address, limit: Duration) -> Self {
        Self::unreachable(format!("no connection to {to} within {limit:?}"))
    }

    /// The connection ended before the answer.
    pub(super) fn broken(why: impl Into<String>) -> Self {
        Self::new(Outcome::Broken, why)
    }

    /// There was no answer in time.
    pub(super) fn timed_out(limit: Duration) -> Self {
        Self::new(Outcome::TimedOut, format!("no answer within {limit:?}"))
    }

    /// A gRPC status other than OK.
    pub(super) fn of_grpc(code: Code, message: &str, delay: Option<Duration>) -> Self {
        let why = format!("gRPC status {}: {}", code.0, beginning(message));
        Self {
            refuses_encoding: flow::grpc_refuses_encoding(code.0, message),
            ..Self::new(flow::of_grpc(code.0, message, delay), why)
        }
    }

    /// An HTTP status other than a success of a request to `url`.
    pub(super) fn of_http(
        status: u16,
        url: &dyn Display,
        message: &str,
        delay: Option<Duration>,
    ) -> Self {
        let message = beginning(message);
        let why = match status {
            407 => format!("HTTP status 407 from a proxy: {message}"),
            300..=399 | 404 | 405 => format!("HTTP status {status} for {url}: {message}"),
            _ => format!("HTTP status {status}: {message}"),
        };
        Self {
            refuses_encoding: flow::http_refuses_encoding(status, message),
            ..Self::new(flow::of_http(status, message, delay), why)
        }
    }

    /// The reason under which a failure is counted.
    pub(super) fn failure(&self) -> FailedAttempt {
        match (self.fault, self.outcome) {
            (Some(Fault::Protocol), _) => FailedAttempt::Protocol,
            (Some(Fault::Scheme), _) => FailedAttempt::Scheme,
            (Some(Fault::Tls), _) => FailedAttempt::Tls,
            (Some(Fault::Proxy), _) => FailedAttempt::Proxy,
            (Some(Fault::File), _) => FailedAttempt::File,
            (None, Outcome::Denied) => FailedAttempt::Denied,
            (None, Outcome::Unreachable) => FailedAttempt::Unreachable,
            (None, Outcome::Broken) => FailedAttempt::Broken,
            (None, Outcome::TimedOut) => FailedAttempt::TimedOut,
            (None, _) => FailedAttempt::Busy,
        }
    }

    /// A gRPC call that a proxy answered without a gRPC status.
    pub(super) fn of_foreign_http(status: u16, delay: Option<Duration>) -> Self {
        let hint = match status {
            200..=299 | 404 | 405 | 415 | 426 | 501 | 505 => {
                "; is it the port of OTLP/gRPC? OTLP/HTTP needs the exporter otlp_http"
            }
            _ => "",
        };
        let why = format!("HTTP status {status} without gRPC status{hint}");
        Self::new(flow::of_proxy(status, delay), why)
    }
}

/// The wait that an upstream asks for by `Retry-After`: seconds or an HTTP date (RFC 9110, section 10.2.3). It has
/// no bound here; the flow has one.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The beginning of the upstream's message, for a log line.
fn beginning(message: &str) -> &str {
    const MOST: usize = 256;
    message
        .get(..message.floor_char_boundary(MOST))
        .unwrap_or(message)
}
