//! What the result of an attempt means for a batch.

use std::error::Error;
use std::time::Duration;

use otlp_wire::status::Code;

use crate::logging::causes;

/// The maximum size of an answer (OTLP specification: 4 MiB suffice).
pub(super) const MAX_RESPONSE: usize = 4 * 1024 * 1024;

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Delivered, possibly except for some items.
    Delivered {
        /// Items that the upstream rejected for good.
        rejected: u64,
        /// The upstream's reason or warning.
        message: String,
    },
    /// Try again.
    Retry {
        /// The wait that the upstream asks for.
        after: Option<Duration>,
        /// Whether the upstream answered. One that did not may be back at any moment; one that did asks
        /// for the wait.
        answered: bool,
        /// The reason, for the log.
        why: String,
    },
    /// The upstream may accept smaller requests.
    TooLarge(String),
    /// The upstream never accepts the same bytes.
    Permanent(String),
}

/// The outcome of an attempt that failed without an answer.
pub(super) fn no_answer(why: impl Into<String>) -> Outcome {
    Outcome::Retry {
        after: None,
        answered: false,
        why: why.into(),
    }
}

/// The same for an error with its causes.
pub(super) fn retry_on(error: &dyn Error) -> Outcome {
    no_answer(causes(error))
}

/// The outcome of a gRPC status (OTLP specification, "OTLP/gRPC Response").
pub(crate) fn of_grpc(code: Code, message: &str, retry_delay: Option<Duration>) -> Outcome {
    let why = format!("gRPC status {}: {}", code.0, beginning(message));
    if code.is_retryable(retry_delay.is_some()) {
        Outcome::Retry {
            after: retry_delay,
            answered: true,
            why,
        }
    } else if code == Code::RESOURCE_EXHAUSTED {
        Outcome::TooLarge(why)
    } else {
        Outcome::Permanent(why)
    }
}

/// The outcome of an HTTP status other than a success (OTLP specification, "OTLP/HTTP Response").
pub(crate) fn of_http(status: u16, message: &str, retry_after: Option<Duration>) -> Outcome {
    let why = format!("HTTP status {status}: {}", beginning(message));
    by_http_status(status, why, retry_after)
}

fn by_http_status(status: u16, why: String, retry_after: Option<Duration>) -> Outcome {
    match status {
        429 | 502 | 503 | 504 => Outcome::Retry {
            after: retry_after,
            answered: true,
            why,
        },
        413 => Outcome::TooLarge(why),
        _ => Outcome::Permanent(why),
    }
}

/// The outcome of a gRPC call that a proxy answered without a gRPC status (gRPC "HTTP to gRPC Status Code
/// Mapping").
pub(crate) fn of_foreign_http(status: u16) -> Outcome {
    let why = format!("HTTP status {status} without gRPC status");
    match status {
        413 => Outcome::Permanent(why),
        _ => by_http_status(status, why, None),
    }
}

/// The beginning of the upstream's message, for a log line.
fn beginning(message: &str) -> &str {
    const MOST: usize = 256;
    message
        .get(..message.floor_char_boundary(MOST))
        .unwrap_or(message)
}
