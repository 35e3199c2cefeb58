//! Whether somebody else keeps undoing what the operator writes, and how long the operator then waits.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// An object is contested once the operator has undone the same change so many times within [`WINDOW`].
const TIMES: usize = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// The first wait; each further one is twice as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// What the operator may do about a change of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Undo it.
    Write,
    /// Leave it for this time.
    Wait(Duration),
}

/// How often the operator undid one change of one object.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    /// The change, as [`super::Intent::undoes`] names it.
    change: String,
    /// When it was undone: in the last minute, or last of all while the object is contested.
    undone: Vec<Timestamp>,
    /// The time between two writes while the object is contested.
    wait: Option<Duration>,
}

impl Contest {
    /// Asks for a turn to undo a change now, and counts it if it is given.
    pub fn turn(&mut self, change: &str, now: Timestamp) -> Turn {
        if self.change != change || self.is_over(now) {
            *self = Self {
                change: change.to_owned(),
                ..Self::default()
            };
        }
        self.undone
            .retain(|at| self.wait.is_some() || age(*at, now) < WINDOW);
        if self.wait.is_none() && self.undone.len() >= TIMES {
            self.wait = Some(FIRST_WAIT);
        }
        if let Some(left) = self.left(now) {
            return Turn::Wait(left);
        }
        if let Some(wait) = self.wait {
            self.wait = Some(wait.saturating_mul(2).min(LONGEST_WAIT));
            self.undone.clear();
        }
        self.undone.push(now);
        Turn::Write
    }

    /// Whether the object is contested, also while it happens to be as it should be.
    pub fn is_contested(&self, now: Timestamp) -> bool {
        self.wait.is_some() && !self.is_over(now)
    }

    /// How long the next turn is away; `None` if it may be given now.
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.wait?.checked_sub(self.quiet(now)?)?;
        (!left.is_zero()).then_some(left)
    }

    /// Whether nothing had to be undone for so long that a further change is a new one.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let long = WINDOW.saturating_add(self.wait.unwrap_or_default());
        self.quiet(now).is_none_or(|quiet| quiet > long)
    }

    fn quiet(&self, now: Timestamp) -> Option<Duration> {
        self.undone.last().map(|last| age(*last, now))
    }
}

/// Zero for a moment in the future: clocks are set back.
fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millisecond).unwrap()
    }

    /// The moments of the writes, in seconds, of an operator that sees the same change twice a second.
    fn writes_within(seconds: i64) -> Vec<i64> {
        let mut contest = Contest::default();
        let moments = (0..seconds * 2).map(|half| at(half * 500));
        let writes = moments.filter(|now| contest.turn("a", *now) == Turn::Write);
        writes
            .map(|at_| at_.as_second() - at(0).as_second())
            .collect()
    }

    #[test]
    fn same_change_again_and_again_is_undone_ever_more_rarely() {
        let writes = writes_within(3600);
        assert_eq!(writes[..10], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(writes[10..15], [14, 34, 74, 154, 314]);
        let last: Vec<i64> = writes
            .windows(2)
            .rev()
            .take(3)
            .map(|two| two[1] - two[0])
            .collect();
        assert_eq!(last, [300, 300, 300]);
    }

    #[test]
    fn contest_is_over_after_a_quiet_time_and_begins_anew() {
        let mut contest = Contest::default();
        for moment in 0..10 {
            assert!(!contest.is_contested(at(moment)));
            assert_eq!(contest.turn("a", at(moment)), Turn::Write);
        }
        assert_eq!(
            contest.turn("a", at(10)),
            Turn::Wait(Duration::from_millis(9_999))
        );
        assert!(contest.is_contested(at(11)));
        assert!(contest.is_contested(at(70_009)));
        assert!(!contest.is_contested(at(70_010)));
        assert_eq!(contest.turn("a", at(70_010)), Turn::Write);
        assert_eq!(contest.turn("a", at(70_011)), Turn::Write);
    }

    #[test]
    fn different_or_rare_changes_are_undone_at_once() {
        let mut contest = Contest::default();
        for moment in 0..100 {
            let change = moment.to_string();
            assert_eq!(contest.turn(&change, at(moment)), Turn::Write);
        }
        for minute in 0..100 {
            assert_eq!(contest.turn("a", at(minute * 7_000)), Turn::Write);
        }
    }
}
