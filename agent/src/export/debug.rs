//! Exporters that send nothing: `debug` logs counts, `nop` does nothing.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use otlp_wire::{Signal, inspect};
use tokio::time::Instant;
use tracing::info;

use super::answer::UpstreamAnswer;
use crate::lock::lock;

/// The minimum interval of log lines of a signal.
const QUIET: Duration = Duration::from_secs(1);

/// The `debug` exporter.
pub(super) struct DebugClient {
    id: String,
    counts: Mutex<Vec<(Signal, Counts)>>,
}

/// Counts that are not logged yet.
#[derive(Clone, Copy, Default)]
struct Counts {
    logged: Option<Instant>,
    batches: u64,
    items: u64,
    bytes: u64,
}

impl DebugClient {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            counts: Mutex::default(),
        }
    }

    /// Counts a batch, and logs the counts at most once a second.
    pub(super) fn count(&self, signal: Signal, parts: &[Bytes]) -> UpstreamAnswer {
        // The receiver has checked them.
        let items = |part: &Bytes| inspect(signal, part).unwrap_or_default() as u64;
        let mut all = lock(&self.counts);
        if !all.iter().any(|(of, _)| *of == signal) {
            all.push((signal, Counts::default()));
        }
        for (_, counts) in all.iter_mut().filter(|(of, _)| *of == signal) {
            counts.batches += 1;
            counts.items += parts.iter().map(items).sum::<u64>();
            counts.bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
            if counts.logged.is_none_or(|logged| logged.elapsed() >= QUIET) {
                self.log(signal, counts);
            }
        }
        UpstreamAnswer::delivered(0, "")
    }

    fn log(&self, signal: Signal, counts: &mut Counts) {
        info!(
            exporter = self.id,
            signal = signal.name(),
            batches = counts.batches,
            items = counts.items,
            bytes = counts.bytes,
            "received"
        );
        *counts = Counts {
            logged: Some(Instant::now()),
            ..Counts::default()
        };
    }
}

/// Logs the rest of the counts.
impl Drop for DebugClient {
    fn drop(&mut self) {
        let all = std::mem::take(&mut *lock(&self.counts));
        for (signal, mut counts) in all {
            if counts.batches > 0 {
                self.log(signal, &mut counts);
            }
        }
    }
}
