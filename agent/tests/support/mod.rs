//! Fixtures: a real agent process, a scripted upstream, clients, telemetry.

pub mod agent;
pub mod client;
pub mod pki;
pub mod proxy;
pub mod raw;
pub mod sink;
pub mod slow;
pub mod telemetry;

use std::io::Write;
use std::time::{Duration, Instant};

/// How long a test waits for what must happen: a machine may be slow, and only a test that fails waits as long.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// Waits until `check` holds; fails after [`PATIENCE`].
pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The same with a check that waits for answers itself.
pub async fn eventually_answers(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a test that mounts file systems can run. Otherwise prints a line that `make test` collects; in CI such
/// a test runs and fails.
pub fn skip_unless_root(what: &str) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let uid = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap();
    let root = uid.split_whitespace().nth(2) == Some("0");
    if root || std::env::var("CI").is_ok_and(|ci| ci == "true") {
        return true;
    }
    let line = format!("otelagent-skip: {what}: mounting needs root");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("OTELAGENT_SKIP_LOG") {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        let _ = log.and_then(|mut log| writeln!(log, "{line}"));
    }
    false
}
