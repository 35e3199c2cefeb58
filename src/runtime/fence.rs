//! Until when this process may write.
//!
//! A leader that was paused may not know that its lease has expired. So the client checks the fence before
//! every write, and the fence uses a monotonic clock that keeps running during a pause. The lease sets the
//! moment; the fence does not know how.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longer than any process runs, for processes without a lease.
const FOR_GOOD: Duration = Duration::from_hours(30 * 365 * 24);

/// Until when this process may write; clones share the moment.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// `None` if no write may start.
    until: Mutex<Option<Instant>>,
    /// Whether etcd was restored, so that the caches may be wrong.
    broken: CancellationToken,
}

impl Fence {
    /// Lets every write pass, for processes without an election.
    pub fn open() -> Self {
        let fence = Self::closed();
        fence.open_for_good();
        fence
    }

    /// Blocks writes until this process has the lease.
    pub fn closed() -> Self {
        Self::default()
    }

    /// How long writes may still take; `None` if none may start.
    pub fn remaining(&self) -> Option<Duration> {
        if self.0.broken.is_cancelled() {
            return None;
        }
        let left = (*self.until())?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Whether a write may start now.
    pub fn is_open(&self) -> bool {
        self.remaining().is_some()
    }

    /// Lets writes pass until `moment`.
    pub(super) fn open_until(&self, moment: Instant) {
        *self.until() = Some(moment);
    }

    /// Lets all writes pass from now on.
    pub(super) fn open_for_good(&self) {
        self.open_until(Instant::now() + FOR_GOOD);
    }

    /// Blocks writes from now on.
    pub(super) fn close(&self) {
        *self.until() = None;
    }

    /// Blocks writes permanently: the process must restart.
    pub(super) fn break_off(&self) {
        self.0.broken.cancel();
    }

    /// Returns once writes are blocked permanently.
    pub async fn broken(&self) {
        self.0.broken.cancelled().await;
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fence_closes_by_itself() {
        let fence = Fence::closed();
        assert!(!fence.is_open());
        fence.open_until(Instant::now() + Duration::from_secs(10));
        assert_eq!(fence.remaining(), Some(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!fence.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn fence_that_is_broken_off_never_opens_again() {
        let fence = Fence::open();
        fence.clone().break_off();
        fence.open_until(Instant::now() + Duration::from_secs(10));
        fence.open_for_good();
        assert!(!fence.is_open());
        fence.broken().await;
    }

    #[tokio::test(start_paused = true)]
    async fn open_fence_stays_open_until_it_is_closed() {
        let fence = Fence::open();
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert!(fence.is_open());
        fence.clone().close();
        assert!(!fence.is_open());
    }
}
