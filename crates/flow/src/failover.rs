//! Which of several endpoints is in use: the first that works, and an earlier one again once it does.

use std::time::Duration;

use crate::outcome::Outcome;

/// So many failures in a row of an endpoint that is there make it a failed one.
const STRIKES: u32 = 3;

/// The choice between endpoints, which are numbers in order of preference.
#[derive(Debug)]
pub struct Failover {
    count: usize,
    interval: Duration,
    current: usize,
    strikes: u32,
    /// When the endpoints before the current one are tried again.
    retry_at: Duration,
    /// Whether an attempt tries them now.
    is_probing: bool,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Its outcome counts.
    Done,
    /// Another endpoint may do better: the same piece goes there at once.
    Try(usize),
}

impl Failover {
    /// Of `count` endpoints; those before the one in use are tried again every `interval`.
    pub fn new(count: usize, interval: Duration) -> Self {
        Self {
            count,
            interval,
            current: 0,
            strikes: 0,
            retry_at: Duration::ZERO,
            is_probing: false,
        }
    }

    /// The endpoint in use.
    pub fn current(&self) -> usize {
        self.current
    }

    /// The endpoint for an attempt that begins now. One attempt at a time tries the earlier ones.
    pub fn pick(&mut self, now: Duration) -> usize {
        if self.current > 0 && !self.is_probing && now >= self.retry_at {
            self.is_probing = true;
            return 0;
        }
        self.current
    }

    /// Takes the outcome of an attempt at an endpoint.
    pub fn finished(&mut self, endpoint: usize, outcome: Outcome, now: Duration) -> Next {
        let is_gone = match outcome {
            Outcome::Delivered | Outcome::TooLarge | Outcome::BadData => {
                self.works(endpoint, now);
                return Next::Done;
            }
            Outcome::Unreachable | Outcome::Broken | Outcome::Denied => true,
            // By then it would be tried again anyway.
            Outcome::Busy(Some(wait)) if wait >= self.interval => true,
            Outcome::Busy(_) | Outcome::Exhausted | Outcome::TimedOut => false,
        };
        if endpoint < self.current {
            let next = endpoint + 1;
            if next == self.current {
                self.is_probing = false;
                self.retry_at = now.saturating_add(self.interval);
            }
            return Next::Try(next);
        }
        if endpoint > self.current {
            return Next::Done;
        }
        self.strikes += 1;
        if !is_gone && self.strikes < STRIKES {
            return Next::Done;
        }
        self.strikes = 0;
        self.retry_at = now.saturating_add(self.interval);
        self.is_probing = false;
        self.current += 1;
        if self.current < self.count {
            return Next::Try(self.current);
        }
        // None works: the next attempt begins with the first.
        self.current = 0;
        Next::Done
    }

    fn works(&mut self, endpoint: usize, now: Duration) {
        if endpoint < self.current {
            self.current = endpoint;
            self.retry_at = now.saturating_add(self.interval);
            self.is_probing = false;
        }
        if endpoint == self.current {
            self.strikes = 0;
        }
    }
}
