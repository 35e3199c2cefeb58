//! How many attempts may be in flight: additive increase, multiplicative decrease. Below one in flight there are
//! pauses between them: of a thousand agents, one each may be too many.

use std::time::Duration;

use crate::backoff::scaled;

/// A latency above this multiple of the lowest one means that requests wait for one another.
const CROWDED: f64 = 1.5;

/// How fast the lowest latency is forgotten: by this factor with each success.
const FORGET: f64 = 1.02;

/// The longest pause between attempts, in parts of their latency.
const MOST_PAUSES: u32 = 7;

/// The same for an upstream that was never seen to answer faster, so that others may not be the reason.
const FEW_PAUSES: u32 = 1;

#[derive(Clone, Debug)]
pub(crate) struct Window {
    size: usize,
    /// The pause after an attempt, in parts of its latency.
    pauses: u32,
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
            pauses: 0,
            lowest: None,
            halved: None,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The pause before the next attempt, after one that took `latency`.
    pub(crate) fn pause(&self, latency: Duration) -> Duration {
        latency.saturating_mul(self.pauses)
    }

    /// Notes a success. The window grows only if it was full, and not where more in flight would only wait
    /// longer: near the time limit, an answer that comes too late is work done for nothing. `is_least` if a shorter
    /// batch would not have been faster.
    pub(crate) fn succeeded(
        &mut self,
        latency: Duration,
        was_full: bool,
        is_least: bool,
        timeout: Duration,
        most: usize,
    ) {
        let lowest = self
            .lowest
            .map_or(latency, |lowest| scaled(lowest, FORGET).min(latency));
        self.lowest = Some(lowest);
        let usual = scaled(lowest, CROWDED);
        if latency > timeout / 2 {
            if self.size > 1 {
                self.size -= 1;
            } else if is_least && latency > usual {
                self.pause_longer(MOST_PAUSES);
            } else if is_least {
                self.pause_longer(FEW_PAUSES);
            }
        } else if latency <= usual.max(timeout / 4) {
            if self.pauses > 0 {
                self.pauses /= 2;
            } else if was_full {
                self.size = (self.size + 1).min(most.max(1));
            }
        }
    }

    fn pause_longer(&mut self, most: u32) {
        let longer = (self.pauses * 2 + 1).min(most);
        self.pauses = self.pauses.max(longer);
    }

    /// The upstream refused or was away.
    pub(crate) fn collapse(&mut self) {
        self.size = 1;
    }

    /// An attempt that began at `started` got no answer in time. Of the window, `places` stay.
    pub(crate) fn timed_out(
        &mut self,
        started: Duration,
        is_least: bool,
        places: usize,
        now: Duration,
    ) {
        if self.halved.is_none_or(|halved| started >= halved) {
            if is_least && self.size == 1 {
                self.pause_longer(MOST_PAUSES);
            }
            self.size = (self.size / 2).max(places.min(self.size));
            self.halved = Some(now);
        }
    }
}
