//! What the tests need of the outside world: a real agent process, an upstream that answers as it is
//! told, clients, telemetry.

pub mod agent;
pub mod client;
pub mod raw;
pub mod sink;
pub mod telemetry;

use std::time::{Duration, Instant};

/// Waits until `check` holds; fails after ten seconds.
pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
