//! How many attempts may be in flight: additive increase, multiplicative decrease.

use std::time::Duration;

use crate::backoff::scaled;

/// A latency above this multiple of the lowest one means that requests wait for one another.
const CROWDED: f64 = 1.5;

/// How fast the lowest latency is forgotten: by this factor with each success.
const FORGET: f64 = 1.02;

#[derive(Clone, Debug)]
pub(crate) struct Window {
    size: usize,
    /// The lowest latency of late.
    lowest: Option<Duration>,
    /// When it was halved last; attempts that began earlier are no further reason.
    halved: Option<Duration>,
}

impl Window {
    /// One attempt at a time: how much the upstream bears is not known.
    pub(crate) fn new() -> Self {
        Self {
            size: 1,
            lowest: None,
            halved: None,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Notes a success. The window grows only if it was full, and not where more in flight would only wait
    /// longer: near the time limit, an answer that comes too late is work done for nothing.
    pub(crate) fn succeeded(
        &mut self,
        latency: Duration,
        was_full: bool,
        timeout: Duration,
        most: usize,
    ) {
        let lowest = self
            .lowest
            .map_or(latency, |lowest| scaled(lowest, FORGET).min(latency));
        self.lowest = Some(lowest);
        if latency > timeout / 2 {
            self.size = self.size.saturating_sub(1).max(1);
        } else if was_full && latency <= scaled(lowest, CROWDED).max(timeout / 4) {
            self.size = (self.size + 1).min(most.max(1));
        }
    }

    /// The upstream refused or was away.
    pub(crate) fn collapse(&mut self) {
        self.size = 1;
    }

    /// An attempt that began at `started` got no answer in time.
    pub(crate) fn halve(&mut self, started: Duration, now: Duration) {
        if self.halved.is_none_or(|halved| started >= halved) {
            self.size = (self.size / 2).max(1);
            self.halved = Some(now);
        }
    }
}
