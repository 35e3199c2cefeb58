//! Until when this process may write.
//!
//! A leader that was paused cannot know that its lease ran out until it is too late; so the client asks
//! the fence at every write, and the fence goes by a monotonic clock that ran on during the pause.
//! Must not know how the moment is come by: that is the lease's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longer than any process runs: for one that needs no lease.
const FOR_GOOD: Duration = Duration::from_hours(30 * 365 * 24);

/// Until when this process may write; clones share the moment.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// `None` where no write may start.
    until: Mutex<Option<Instant>>,
    /// Whether what this process knows is no longer of this world.
    broken: CancellationToken,
}

impl Fence {
    /// Lets every write pass: for processes that need no election.
    pub fn open() -> Self {
        let fence = Self::closed();
        fence.open_for_good();
        fence
    }

    /// Lets no write pass until a lease is won.
    pub fn closed() -> Self {
        Self::default()
    }

    /// How long writes may still take; `None` where none may start.
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

    /// Lets writes pass for good.
    pub(super) fn open_for_good(&self) {
        self.open_until(Instant::now() + FOR_GOOD);
    }

    /// Lets no write pass from now on.
    pub(super) fn close(&self) {
        *self.until() = None;
    }

    /// Lets no write pass ever again: the process has to begin anew.
    pub(super) fn break_off(&self) {
        self.0.broken.cancel();
    }

    /// Returns once no write can ever pass again.
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
    async fn a_fence_closes_by_itself() {
        let fence = Fence::closed();
        assert!(!fence.is_open());
        fence.open_until(Instant::now() + Duration::from_secs(10));
        assert_eq!(fence.remaining(), Some(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!fence.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fence_that_is_broken_off_never_opens_again() {
        let fence = Fence::open();
        fence.clone().break_off();
        fence.open_until(Instant::now() + Duration::from_secs(10));
        fence.open_for_good();
        assert!(!fence.is_open());
        fence.broken().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_fence_stays_open_until_it_is_closed() {
        let fence = Fence::open();
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert!(fence.is_open());
        fence.clone().close();
        assert!(!fence.is_open());
    }
}
