//! The calls that may be spent on finding refused data.

use std::time::Duration;

/// What one call costs: the budget of a minute is 600 calls.
const COST: Duration = Duration::from_millis(100);

/// The most that can be saved up.
const MOST: Duration = Duration::from_mins(1);

/// A budget of calls per minute, as the time that pays for them.
#[derive(Clone, Debug)]
pub(crate) struct Isolation {
    credit: Duration,
    since: Duration,
}

impl Isolation {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            credit: MOST,
            since: now,
        }
    }

    /// Takes the two calls of a halving; takes nothing if they are not there.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.since);
        self.credit = self.credit.saturating_add(earned).min(MOST);
        self.since = now;
        let left = self.credit.checked_sub(COST * 2);
        if let Some(left) = left {
            self.credit = left;
        }
        left.is_some()
    }
}
