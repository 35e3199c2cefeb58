//! Helpers for log lines: a throttle for repeated lines, and errors in one line.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;

/// The minimum interval of lines of one kind.
const QUIET: Duration = Duration::from_mins(1);

/// Throttles one kind of log line: the first at once, then one a minute with the number of omitted lines.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<ThrottleState>);

#[derive(Debug, Default)]
struct ThrottleState {
    last: Option<Instant>,
    left_out: u64,
    logged: bool,
}

impl LogThrottle {
    /// Whether to log a line now; if so, how many were omitted since the last one.
    pub(crate) fn due(&self) -> Option<u64> {
        let mut state = lock(&self.0);
        let now = Instant::now();
        if state
            .last
            .is_some_and(|last| now.duration_since(last) < QUIET)
        {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        state.logged = true;
        Some(std::mem::take(&mut state.left_out))
    }

    /// Notes that the logged condition is over; returns whether any line was logged since the last call.
    pub(crate) fn ended(&self) -> bool {
        let mut state = lock(&self.0);
        std::mem::take(&mut state.logged)
    }
}

pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
