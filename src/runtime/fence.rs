//! Until when this process may write.
//!
//! A leader that was paused cannot know that its lease ran out until it is too late; so the client asks
//! the fence at every write, and the fence goes by a monotonic clock that ran on during the pause.
//! Must not know how the moment is come by: that is the lease's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Closed, until this moment at least was reached.
const CLOSED: u64 = 0;
/// Never closes by itself.
const UNLIMITED: u64 = u64::MAX;

/// Until when this process may write; clones share the moment.
#[derive(Clone, Debug)]
pub struct Fence(Arc<State>);

#[derive(Debug)]
struct State {
    origin: Instant,
    /// In milliseconds since `origin`.
    until: AtomicU64,
    /// Whether what this process knows is no longer of this world.
    broken: CancellationToken,
}

impl Fence {
    /// Lets every write pass: for processes that need no election.
    pub fn open() -> Self {
        Self::new(UNLIMITED)
    }

    /// Lets no write pass until a lease is won.
    pub fn closed() -> Self {
        Self::new(CLOSED)
    }

    fn new(until: u64) -> Self {
        Self(Arc::new(State {
            origin: Instant::now(),
            until: AtomicU64::new(until),
            broken: CancellationToken::new(),
        }))
    }

    /// How long writes may still take; `None` where none may start.
    pub fn remaining(&self) -> Option<Duration> {
        if self.0.broken.is_cancelled() {
            return None;
        }
        let until = Duration::from_millis(self.0.until.load(Ordering::Acquire));
        until
            .checked_sub(self.0.origin.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// Whether a write may start now.
    pub fn is_open(&self) -> bool {
        self.remaining().is_some()
    }

    /// Lets writes pass until `moment`.
    pub(super) fn open_until(&self, moment: Instant) {
        let until = moment.saturating_duration_since(self.0.origin).as_millis();
        self.0
            .until
            .store(u64::try_from(until).unwrap_or(UNLIMITED), Ordering::Release);
    }

    /// Lets writes pass for good.
    pub(super) fn open_for_good(&self) {
        self.0.until.store(UNLIMITED, Ordering::Release);
    }

    /// Lets no write pass ever again: the process has to begin anew.
    pub(super) fn break_off(&self) {
        self.0.broken.cancel();
    }

    /// Returns once no write can ever pass again.
    pub async fn broken(&self) {
        self.0.broken.cancelled().await;
    }

    /// Lets no write pass from now on.
    pub(super) fn close(&self) {
        self.0.until.store(CLOSED, Ordering::Release);
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
