//! How long to wait before the next attempt. The caller brings the clock and the random numbers.

use std::time::Duration;

use crate::config::Retry;

/// The exponential backoff of one batch.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    interval: Duration,
}

impl Backoff {
    /// Starts before the first attempt.
    pub(crate) fn new(retry: Retry) -> Self {
        Self {
            retry,
            interval: retry.initial_interval,
        }
    }

    /// The next wait, or `None` to give the batch up. `elapsed` is the time since the first attempt, `asked`
    /// the wait that the upstream asks for, and `dice` a random number from 0 to 1.
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
