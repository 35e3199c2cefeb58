//! The part of a lane that deals with the disk: it spills and reads back, continues in memory while the disk
//! fails, and returns to the disk afterwards.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::sleep;

use otlp_wire::is_mergeable;
use segment_log::{Chunk, Log, LogError, LogLimits, Position};
use tokio::time::Instant;
use tracing::{info, warn};

use super::disk::{DiskState, Reading, Refill};
use super::durable::{PATIENCE, PAUSE, READ_AHEAD};
use super::lane::{Lane, LaneState, NextStep};
use super::request::{BOOKKEEPING, QueuedRequest, WaitingRequest};
use crate::metrics::Lost;
use crate::thread;

/// The size from which on a batch of requests from disk does not wait for more.
const BATCH_FROM_DISK: usize = 2 * 1024 * 1024;

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

    /// What stays in memory while the upstream fails.
    pub(super) fn read_ahead(&self) -> usize {
        let share = self.durable.as_ref().map(|durable| durable.share());
        READ_AHEAD.min(share.unwrap_or(usize::MAX))
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
        let is_full = state.is_ready() || state.waiting_bytes >= BATCH_FROM_DISK;
        let is_idle = state.waiting.is_empty();
        let disk = state.disk.as_ref()?;
        if disk.is_read() {
            state.join_behind();
            return None;
        }
        if is_full {
            return None;
        }
        match disk.reading {
            Some(Reading::Since(since)) if now < since + PATIENCE => {
                return Some(NextStep::WaitUntil(since + PATIENCE));
            }
            Some(_) => return state.pass_disk(),
            None => {}
        }
        if state.upstream_fails && !is_idle {
            // That is enough to try with.
            return None;
        }
        let mut more = durable.read_size();
        let (in_flight, memory) = (disk.in_flight_bytes(), state.memory_bytes());
        // With nothing to send, or only what is refused again and again, the lane must read, or it would never send.
        let is_stuck = is_idle && in_flight <= state.repeated_bytes;
        let must_read = is_stuck && disk.batches_in_flight() <= 1;
        if is_stuck && !must_read {
            // While the upstream fails, that is every batch, and clients need memory, too.
            more = more.min(durable.share().saturating_sub(memory));
        }
        if !must_read && (more == 0 || self.is_memory_short(memory, more)) {
            return is_idle.then(|| NextStep::WaitUntil(now + PAUSE));
        }
        if state.has_read_enough(in_flight, more) {
            return Some(NextStep::WaitUntil(now + PAUSE));
        }
        match disk.refill(more, must_read) {
            Some(refill) => Some(NextStep::Refill(refill)),
            // It is not written yet.
            None => state.pass_disk(),
        }
    }

    /// Notes whether the upstream fails, and the bytes in flight that wait for another attempt. While it fails, what
    /// is on disk leaves the memory, if it is much.
    pub(crate) fn note_upstream(&self, fails: bool, repeated: usize) {
        let mut state = self.state();
        state.upstream_fails = fails;
        state.repeated_bytes = repeated;
        let LaneState {
            disk: Some(disk),
            waiting,
            waiting_bytes,
            ..
        } = &mut *state
        else {
            return;
        };
        if fails && *waiting_bytes > self.read_ahead() && disk.forget(waiting) {
            *waiting = VecDeque::new();
            *waiting_bytes = 0;
            self.count_as_on_disk(&mut state);
        }
    }

    pub(super) fn can_go_back(&self, id: u64) -> bool {
        let state = self.state();
        state.disk.as_ref().is_some_and(|disk| disk.can_go_back(id))
    }

    pub(super) fn go_back(&self, id: u64) {
        let mut state = self.state();
        if let Some(disk) = &mut state.disk {
            disk.go_back(id);
        }
        self.count_as_on_disk(&mut state);
        drop(state);
        self.ready.notify_one();
    }

    /// Starts to read a part of the log into memory; returns whether it could.
    pub(super) fn refill(self: &Arc<Self>, refill: Refill) -> bool {
        self.state()
            .note_reading(Some(Reading::Since(Instant::now())));
        let lane = Arc::clone(self);
        let started = thread::start("queue-read", move || lane.read(refill));
        let Err(error) = started else { return true };
        self.state().note_reading(None);
        if let Some(left_out) = self.durable.as_ref().and_then(|of| of.damaged.due()) {
            warn!(%error, left_out, "cannot start a thread to read the queue on disk");
        }
        false
    }

    /// Reads a part of the log; blocks. It is in memory only once the budget has the bytes.
    fn read(&self, refill: Refill) {
        let Some(durable) = &self.durable else { return };
        let mut permit = durable.budget.permit(None);
        let chunk = refill.job.run(&mut |bytes| {
            // The disk is not to blame for a wait for memory.
            self.state().note_reading(Some(Reading::ForMemory));
            let is_granted = if refill.is_urgent {
                permit.grow_in_turn(bytes);
                true
            } else {
                permit.grow(bytes).is_ok()
            };
            let reading = Reading::Since(Instant::now());
            self.state().note_reading(Some(reading));
            is_granted
        });
        if chunk.is_refused && chunk.records.is_empty() {
            sleep(PAUSE);
        }
        let mut state = self.state();
        state.note_reading(None);
        // From here on the records have permits of their own.
        drop(permit);
        self.accept_chunk(&mut state, chunk, refill.log);
        self.count_as_on_disk(&mut state);
        drop(state);
        self.ready.notify_one();
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
        let (items, bytes) = chunk.sum();
        if taken.leftover {
            self.metrics.recovered(self.signal, items, bytes as u64);
            state.held_bytes += bytes;
        } else {
            disk.no_longer_only(bytes + taken.lost.1);
            self.lost_on_disk(state, taken.lost);
        }
        self.report_damage(&chunk);
        // Later ones are in memory already if the disk did not answer for a time.
        let later = state.take_later(&chunk);
        for record in chunk.records {
            let Some(held) = self.held(record.payload, record.items) else {
                continue;
            };
            let position = Some(Position {
                sequence: record.sequence,
            });
            let waiting = WaitingRequest {
                held,
                since,
                position,
            };
            state.wait(waiting);
        }
        for waiting in later {
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
        self.metrics.storage(self.signal, Some(error.reason()));
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

    pub(super) fn settled(&self, id: u64, bytes: usize) {
        let mut state = self.state();
        let LaneState { disk, waiting, .. } = &mut *state;
        let Some(disk) = disk else { return };
        disk.settled(id, bytes, waiting.front());
        let more = !disk.is_read();
        self.wake_writer(state);
        if more {
            // There may be memory to read more.
            self.ready.notify_one();
        }
    }

    pub(super) fn has_log(&self) -> bool {
        self.state().disk.as_ref().is_some_and(DiskState::has_log)
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
        self.count_as_on_disk(&mut state);
        self.lost_on_disk(&mut state, lost);
        drop(state);
        self.metrics.damaged(self.signal, 0, leftover);
        if let Some(durable) = &self.durable {
            durable.safe_below(next);
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
        let mut state = self.state();
        if let Some(disk) = &mut state.disk {
            disk.attach(log);
        }
        self.count_as_on_disk(&mut state);
        self.resume(state);
        self.ready.notify_one();
    }
}

impl LaneState {
    fn note_reading(&mut self, reading: Option<Reading>) {
        if let Some(disk) = &mut self.disk {
            disk.reading = reading;
        }
    }

    /// If the disk fails, lets what is in memory leave before what is only on disk. The next step if nothing waits.
    fn pass_disk(&mut self) -> Option<NextStep> {
        let failing = self.disk.as_mut().filter(|disk| disk.is_failing());
        let requests: Vec<_> = failing
            .map(DiskState::take_all_in_memory)
            .into_iter()
            .flatten()
            .collect();
        for waiting in requests {
            self.wait(waiting);
        }
        self.waiting.is_empty().then_some(NextStep::Wait)
    }

    /// What waits and comes after the records of a chunk.
    fn take_later(&mut self, chunk: &Chunk) -> VecDeque<WaitingRequest> {
        let first = chunk
            .records
            .first()
            .map_or(u64::MAX, |record| record.sequence);
        let is_earlier = |waiting: &WaitingRequest| {
            let position = waiting.position;
            position.is_some_and(|position| position.sequence < first)
        };
        let at = self.waiting.partition_point(is_earlier);
        self.take_waiting_from(at)
    }

    /// Takes the last waiting requests.
    fn take_waiting_from(&mut self, at: usize) -> VecDeque<WaitingRequest> {
        let taken = self.waiting.split_off(at);
        let bytes: usize = taken.iter().map(|waiting| waiting.held.bytes.len()).sum();
        self.waiting_bytes -= bytes;
        taken
    }

    /// Puts what has waited only in memory behind what is only on disk again.
    pub(super) fn return_behind(&mut self) {
        let at = self
            .waiting
            .partition_point(|waiting| waiting.position.is_some());
        let requests = self.take_waiting_from(at);
        if let Some(disk) = &mut self.disk {
            disk.put_behind(requests);
        }
    }

    /// Whether another `bytes` from disk have to wait for what is in flight: the return of an upstream needs
    /// little memory. A queue that is filling up needs all there is, to become empty faster.
    fn has_read_enough(&self, in_flight: usize, bytes: usize) -> bool {
        let batch = self.max_size().min(BATCH_FROM_DISK);
        let enough = batch.saturating_add(READ_AHEAD);
        let is_filling = self.counted_bytes() > self.limits.capacity / 2;
        // What the upstream refuses again and again must not stop the rest.
        let leaving = in_flight.saturating_sub(self.repeated_bytes);
        let all = leaving.saturating_add(self.waiting_bytes);
        leaving > 0 && !is_filling && all.saturating_add(bytes) > enough
    }
}
