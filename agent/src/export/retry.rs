//! What an answer of the upstream means for a batch, and how long to wait before the next attempt.
//! Pure: the caller brings the clock and the dice. Must not know how requests are sent.

use std::time::Duration;

use otlp_wire::status::Code;

use crate::config::Retry;

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Taken; some items may have been rejected, with the upstream's words.
    Delivered {
        /// Items the upstream will never take.
        rejected: u64,
        /// Why, or a warning.
        message: String,
    },
    /// Try again, not before `after` where the upstream says so.
    Retry {
        /// The upstream's wish.
        after: Option<Duration>,
        /// Whether it said anything at all: an upstream that cannot be reached may be back at any
        /// moment, one that has answered asks for patience.
        answered: bool,
        /// For the log.
        why: String,
    },
    /// Smaller requests may be taken.
    TooLarge(String),
    /// The same bytes will never be taken.
    Permanent(String),
}

/// Reads a gRPC status (OTLP specification, "OTLP/gRPC Response").
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

/// Reads an HTTP status that is not a success (OTLP specification, "OTLP/HTTP Response").
pub(crate) fn of_http(status: u16, message: &str, retry_after: Option<Duration>) -> Outcome {
    let why = format!("HTTP status {status}: {}", beginning(message));
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

/// An answer to a gRPC call that is not gRPC's, by its HTTP status (gRPC "HTTP to gRPC Status Code
/// Mapping"): a proxy in between is speaking.
pub(crate) fn of_foreign_http(status: u16) -> Outcome {
    let why = format!("HTTP status {status} without gRPC status");
    match status {
        429 | 502 | 503 | 504 => Outcome::Retry {
            after: None,
            answered: true,
            why,
        },
        _ => Outcome::Permanent(why),
    }
}

/// As much of the upstream's words as a log line can bear.
fn beginning(message: &str) -> &str {
    const MOST: usize = 256;
    message
        .get(..message.floor_char_boundary(MOST))
        .unwrap_or(message)
}

/// Exponential backoff of one batch.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    interval: Duration,
}

impl Backoff {
    /// Before the first attempt.
    pub(crate) fn new(retry: Retry) -> Self {
        Self {
            retry,
            interval: retry.initial_interval,
        }
    }

    /// The next wait, or `None` where the batch is to be given up: `elapsed` is how long it has been
    /// tried, `asked` what the upstream wishes, `dice` a number from 0 to 1.
    pub(crate) fn next(
        &mut self,
        elapsed: Duration,
        asked: Option<Duration>,
        dice: f64,
    ) -> Option<Duration> {
        if !self.retry.enabled {
            return None;
        }
        let spread = 1.0 + self.retry.randomization_factor * (2.0 * dice - 1.0);
        let mut wait = self.interval.mul_f64(spread.max(0.0));
        self.interval = self
            .interval
            .mul_f64(self.retry.multiplier)
            .min(self.retry.max_interval);
        if let Some(asked) = asked {
            wait = wait.max(asked);
        }
        let limit = self.retry.max_elapsed_time;
        (limit.is_zero() || elapsed + wait <= limit).then_some(wait)
    }
}
