//! The time limit of a call: it counts from the last progress of the body, so that a slow link is no failure.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::lock::lock;

/// When the body of a call moved last.
#[derive(Clone, Debug)]
pub(super) struct SendProgress(Arc<Mutex<Instant>>);

impl SendProgress {
    /// The call begins.
    pub(super) fn begin() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// A piece of the body has left.
    pub(super) fn made(&self) {
        *lock(&self.0) = Instant::now();
    }

    fn idle_for(&self) -> Duration {
        lock(&self.0).elapsed()
    }

    /// Waits for the end of a call; `None` once it has made no progress for `limit`, or took `longest`.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        longest: Duration,
        call: impl Future<Output = T>,
    ) -> Option<T> {
        let mut call = pin!(call);
        let began = Instant::now();
        loop {
            let left = limit.saturating_sub(self.idle_for());
            let left = left.min(longest.saturating_sub(began.elapsed()));
            if left.is_zero() {
                return None;
            }
            if let Ok(done) = timeout(left, call.as_mut()).await {
                return Some(done);
            }
        }
    }
}
