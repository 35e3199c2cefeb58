//! Exporters that send nothing: `debug` counts in the log, `nop` does not even that. Must not know
//! queues.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use otlp_wire::Signal;
use tokio::time::Instant;
use tracing::info;

use super::retry::Outcome;

/// Least time between two lines of one signal.
const QUIET: Duration = Duration::from_secs(1);

/// `debug`.
pub(super) struct Client {
    id: String,
    counts: Mutex<Vec<(Signal, Counts)>>,
}

/// What has not been told yet.
#[derive(Clone, Copy, Default)]
struct Counts {
    told: Option<Instant>,
    batches: u64,
    items: u64,
    bytes: u64,
}

/// The outcome of everything: there is nobody who could refuse.
pub(super) fn nothing() -> Outcome {
    Outcome::Delivered {
        rejected: 0,
        message: String::new(),
    }
}

impl Client {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            counts: Mutex::default(),
        }
    }

    /// Counts a batch, and tells the counts unless it has just done so.
    pub(super) fn take(&self, signal: Signal, parts: &[Bytes]) -> Outcome {
        // They were inspected when they came.
        let items = |part: &Bytes| otlp_wire::inspect(signal, part).unwrap_or_default() as u64;
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.iter().any(|(of, _)| *of == signal) {
            all.push((signal, Counts::default()));
        }
        for (_, counts) in all.iter_mut().filter(|(of, _)| *of == signal) {
            counts.batches += 1;
            counts.items += parts.iter().map(items).sum::<u64>();
            counts.bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
            if counts.told.is_none_or(|told| told.elapsed() >= QUIET) {
                self.tell(signal, counts);
            }
        }
        nothing()
    }

    fn tell(&self, signal: Signal, counts: &mut Counts) {
        info!(
            exporter = self.id,
            signal = signal.name(),
            batches = counts.batches,
            items = counts.items,
            bytes = counts.bytes,
            "received"
        );
        *counts = Counts {
            told: Some(Instant::now()),
            ..Counts::default()
        };
    }
}

/// What the last second left over.
impl Drop for Client {
    fn drop(&mut self) {
        let all = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        for (signal, mut counts) in all {
            if counts.batches > 0 {
                self.tell(signal, &mut counts);
            }
        }
    }
}
