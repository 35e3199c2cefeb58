//! Folding of repeated log lines: the first of its kind at once, then one a minute with the number of
//! those that were left out. Must not know what is logged.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Least time between two lines of one kind.
const QUIET: Duration = Duration::from_mins(1);

/// One kind of log line.
#[derive(Debug, Default)]
pub(crate) struct Fold(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
    told: bool,
}

impl Fold {
    /// Whether a line is due now; if so, how many were left out since the last one.
    pub(crate) fn due(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state
            .last
            .is_some_and(|last| now.duration_since(last) < QUIET)
        {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        state.told = true;
        Some(std::mem::take(&mut state.left_out))
    }

    /// What the lines told of is over; whether any has been written since it last was.
    pub(crate) fn ended(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.told)
    }
}
