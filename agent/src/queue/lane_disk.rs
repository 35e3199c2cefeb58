//! The part of a lane that deals with the disk: it spills and reads back, continues in memory while the disk
//! fails, and returns to the disk afterwards.

use std::sync::Arc;
use std::time::Duration;

use otlp_wire::is_mergeable;
use segment_log::{Chunk, Log, LogError, LogLimits, Position, Unsynced};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::disk::{DiskState, Refill, Resumed};
use super::lane::{Lane, LaneState, NextStep};
use super::request::{BOOKKEEPING, QueuedRequest, WaitingRequest};
use crate::metrics::Lost;

/// A read of this size does not need another thread: the data has just been written.
const READ_INLINE: u64 = 64 * 1024;

/// The wait for memory that another lane holds.
const PAUSE: Duration = Duration::from_millis(50);

impl Lane {
    /// Whether the queue belongs on disk, so that memory does not bound it.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// The id of the exporter of a queue on disk.
    pub(super) fn exporter(&self) -> &str {
        self.durable
            .as_ref()
            .map_or("", |durable| &durable.exporter)
    }

    pub(super) fn log_limits(&self) -> Option<LogLimits> {
        self.durable.as_ref().map(|durable| durable.limits)
    }

    /// Whether `more` bytes are too many in addition to the `memory` of this lane. Queues may use half of the
    /// memory for telemetry, and each lane always has its share of that half.
    pub(super) fn is_memory_short(&self, memory: usize, more: usize) -> bool {
        self.durable.as_ref().is_some_and(|durable| {
            durable.budget.held() > durable.budget.soft_limit() / 2
                && memory.saturating_add(more) > durable.share()
        })
    }

    /// A request that was read back from disk.
    pub(super) fn held(&self, payload: bytes::Bytes, items: u32) -> Option<QueuedRequest> {
        let mut permit = self.durable.as_ref()?.budget.permit(None);
        permit.set(payload.len() + BOOKKEEPING);
        Some(QueuedRequest {
            is_alone: !is_mergeable(self.signal, &payload),
            bytes: payload,
            items: items as usize,
            permit,
        })
    }

    /// The next step for requests that are only on disk, if there is one.
    pub(super) fn next_step_on_disk(
        &self,
        state: &mut LaneState,
        now: Instant,
    ) -> Option<NextStep> {
        let durable = self.durable.as_ref()?;
        loop {
            if state.disk.as_ref()?.is_read() {
                state.join_behind();
                return None;
            }
            if state.is_ready() {
                return None;
            }
            let memory = state.memory_bytes();
            // With nothing in memory the lane must read, or it would never send.
            if memory > 0 && self.is_memory_short(memory, durable.read_size()) {
                let idle = state.waiting.is_empty();
                return idle.then(|| NextStep::WaitUntil(now + PAUSE));
            }
            let refill = state.disk.as_ref()?.refill(durable.read_size())?;
            if refill.job.bytes() > READ_INLINE {
                return Some(NextStep::Refill(refill));
            }
            let chunk = refill.job.run();
            self.accept_chunk(state, chunk, refill.log);
        }
    }

    pub(super) async fn refill(&self, refill: Refill) {
        let Refill { job, log } = refill;
        if let Ok(chunk) = spawn_blocking(move || job.run()).await {
            self.accept_chunk(&mut self.state(), chunk, log);
        }
    }

    /// Moves the records that were read into memory.
    fn accept_chunk(&self, state: &mut LaneState, chunk: Chunk, log: u64) {
        let Some(disk) = state.disk.as_mut() else {
            return;
        };
        let since = disk.since().unwrap_or_else(Instant::now);
        let Some(log) = disk.log_numbered(log) else {
            return;
        };
        let taken = log.record_read(&chunk);
        self.metrics.leftover(self.signal, log.leftover());
        let (items, bytes) = chunk.sum();
        if taken.leftover {
            self.metrics.recovered(self.signal, items, bytes as u64);
            state.held_bytes += bytes;
        } else {
            disk.no_longer_only(bytes + taken.lost.1);
            self.lost_on_disk(state, taken.lost);
        }
        self.report_damage(&chunk);
        let segment = chunk.segment;
        for record in chunk.records {
            let Some(held) = self.held(record.payload, record.items) else {
                return;
            };
            let position = Some(Position {
                segment,
                sequence: record.sequence,
            });
            let waiting = WaitingRequest {
                held,
                since,
                position,
            };
            state.wait(waiting);
        }
    }

    fn lost_on_disk(&self, state: &mut LaneState, (items, bytes): (u64, usize)) {
        self.metrics.lost(self.signal, Lost::Storage, items);
        self.metrics.released(self.signal, items, bytes as u64);
        state.let_go(bytes);
    }

    pub(super) fn report_damage(&self, chunk: &Chunk) {
        let (damage, durable) = (chunk.damage, self.durable.as_ref());
        if damage.bytes == 0 && chunk.failed.is_none() {
            return;
        }
        self.metrics
            .damaged(self.signal, damage.records, damage.bytes);
        if let Some(left_out) = durable.and_then(|durable| durable.damaged.due()) {
            let why = match &chunk.failed {
                Some((path, error)) => format!("{}: {error}", path.display()),
                None => "checksum".to_owned(),
            };
            warn!(
                exporter = self.exporter(),
                signal = self.signal.name(),
                records = damage.records,
                bytes = damage.bytes,
                why,
                left_out,
                "skipping damaged records on disk"
            );
        }
    }

    /// Reports that the queue cannot be on disk for now.
    pub(super) fn report_storage_failure(&self, error: &LogError) {
        self.metrics.storage(self.signal, false);
        let Some(durable) = &self.durable else { return };
        if let Some(left_out) = durable.failing.due() {
            warn!(
                exporter = self.exporter(),
                signal = self.signal.name(),
                reason = error.reason(),
                %error,
                left_out,
                "the queue cannot be kept on disk and continues in memory"
            );
        }
    }

    pub(super) fn batch_split(&self, id: u64) {
        if let Some(disk) = &mut self.state().disk {
            disk.batch_split(id);
        }
    }

    /// The number of leading requests of a batch that are on disk.
    pub(super) fn on_disk(&self, id: u64) -> usize {
        self.state()
            .disk
            .as_ref()
            .map_or(0, |disk| disk.on_disk(id))
    }

    pub(super) fn settled(&self, id: u64) {
        let mut state = self.state();
        let LaneState { disk, waiting, .. } = &mut *state;
        let Some(disk) = disk else { return };
        disk.settled(id, waiting.front());
        let more = !disk.is_read();
        drop(state);
        if more {
            // There may be memory to read more.
            self.ready.notify_one();
        }
    }

    /// Whether the log, if there is one, still exists.
    pub(super) fn log_exists(&self) -> bool {
        let mut state = self.state();
        let log = state.disk.as_mut().and_then(DiskState::log);
        log.is_none_or(|log| log.exists())
    }

    pub(super) fn has_log(&self) -> bool {
        self.state()
            .disk
            .as_mut()
            .is_some_and(|d| d.log().is_some())
    }

    pub(super) fn is_failing(&self) -> bool {
        self.state()
            .disk
            .as_ref()
            .is_some_and(DiskState::is_failing)
    }

    /// Handles the loss of the files: requests that were only on disk are lost, the others continue in memory.
    pub(super) fn lose_log(&self, error: &LogError) {
        let mut state = self.state();
        let LaneState { disk, waiting, .. } = &mut *state;
        let Some(disk) = disk else { return };
        let next = disk.log().map_or(0, |log| log.next_sequence());
        let (lost, leftover) = disk.lose_log(waiting);
        state.join_behind();
        self.lost_on_disk(&mut state, lost);
        drop(state);
        self.metrics.damaged(self.signal, 0, leftover);
        self.metrics.leftover(self.signal, 0);
        if let Some(durable) = &self.durable {
            durable.synced_below(next);
        }
        self.report_storage_failure(error);
        if lost.0 > 0 || leftover > 0 {
            warn!(
                exporter = self.exporter(),
                signal = self.signal.name(),
                items = lost.0,
                bytes_of_earlier_processes = leftover,
                reason = Lost::Storage.name(),
                "telemetry lost"
            );
        }
        self.ready.notify_one();
    }

    /// Keeps the queue in this log from now on; records in it are sent first.
    pub(super) fn attach(&self, log: Log) {
        if !log.foreign.is_empty() {
            warn!(
                directory = %log.directory().display(),
                files = log.foreign.join(", "),
                "leaving files of a newer version or of others alone"
            );
        }
        let leftover = log.leftover();
        if leftover > 0 {
            info!(
                exporter = self.exporter(),
                signal = self.signal.name(),
                bytes = leftover,
                "found records of an earlier process on disk"
            );
        }
        self.metrics.leftover(self.signal, leftover);
        if let Some(disk) = &mut self.state().disk {
            disk.attach(log);
        }
        self.ready.notify_one();
    }

    /// Moves requests that are only in memory to disk; returns whether nothing is left to move now.
    pub(super) fn resume(&self) -> bool {
        let mut state = self.state();
        if state.disk.as_ref().is_some_and(DiskState::is_read) {
            state.join_behind();
        }
        let LaneState { disk, waiting, .. } = &mut *state;
        let Some(disk) = disk else { return true };
        match disk.resume(waiting) {
            Ok(Resumed::More) => false,
            Ok(Resumed::Later) => true,
            Ok(Resumed::Done) => {
                drop(state);
                self.metrics.storage(self.signal, true);
                if let Some(durable) = &self.durable
                    && durable.failing.ended()
                {
                    info!(
                        exporter = self.exporter(),
                        signal = self.signal.name(),
                        "the queue is on disk again"
                    );
                }
                true
            }
            Err(error) => {
                disk.mark_failing();
                drop(state);
                self.report_storage_failure(&error);
                true
            }
        }
    }

    /// Closes and deletes files while the queue is empty.
    pub(super) fn rest(&self) {
        if let Some(log) = self.state().disk.as_mut().and_then(DiskState::log) {
            log.rest();
        }
    }

    /// Syncs appended records, all of them at a time, until the process ends.
    pub(super) async fn commit(self: Arc<Self>) {
        let Some(durable) = &self.durable else { return };
        loop {
            durable.appended.notified().await;
            while let Some(unsynced) = self.unsynced() {
                let below = unsynced.below;
                let path = unsynced.directory.clone();
                match spawn_blocking(move || unsynced.sync()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(source)) => self.not_synced(&LogError::io(path, source)),
                    Err(_) => return,
                }
                durable.synced_below(below);
            }
        }
    }

    fn unsynced(&self) -> Option<Unsynced> {
        self.state().disk.as_mut()?.log()?.unsynced()
    }

    /// After a failed sync the content of the disk is unknown (fsync(2)): the segment ends, and the queue
    /// continues in memory until a new segment works.
    fn not_synced(&self, error: &LogError) {
        if let Some(disk) = &mut self.state().disk {
            disk.mark_failing();
        }
        self.report_storage_failure(error);
    }
}
