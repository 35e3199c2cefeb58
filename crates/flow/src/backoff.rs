//! Growing waits with a random spread.

use std::time::Duration;

use crate::settings::Retry;

/// The waits after failures in a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff(Option<Duration>);

impl Backoff {
    /// The wait after one more failure.
    pub(crate) fn next(&mut self, retry: &Retry, dice: f64) -> Duration {
        let interval = self.0.unwrap_or(retry.initial_interval);
        let grown = scaled(interval, retry.multiplier);
        self.0 = Some(grown.min(retry.max_interval));
        spread(interval, retry, dice)
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.0 = None;
    }
}

/// The longest of the configured waits, spread.
pub(crate) fn slow(retry: &Retry, dice: f64) -> Duration {
    spread(retry.max_interval.max(retry.initial_interval), retry, dice)
}

/// A wait varied at random, so that agents that failed together do not return together.
pub(crate) fn spread(wait: Duration, retry: &Retry, dice: f64) -> Duration {
    scaled(wait, 1.0 + retry.randomization_factor * (2.0 * dice - 1.0))
}

/// A duration times a factor; what cannot be represented is as long as possible.
pub(crate) fn scaled(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor.max(0.0)).unwrap_or(Duration::MAX)
}
