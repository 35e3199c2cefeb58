//! What a lane does about its queue on disk: spilling and refilling, waiting for the disk to be safe,
//! going on without it and coming back. Must not know files.

use std::sync::Arc;
use std::time::Duration;

use segment_log::{Chunk, Log, LogError, LogLimits, Position, Unsynced};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::disk::{Disk, Refill, Returned};
use super::{Held, Lane, Next, State, Waiting};
use crate::budget::Budget;
use crate::config::{Queue, Storage};
use crate::fold::Fold;
use crate::metrics::Lost;

/// Most that is read from disk in one go.
const PIECE: usize = 512 * 1024;

/// What is read without asking another thread: it has just been written.
const LITTLE: u64 = 64 * 1024;

/// How long a lane waits for memory that another holds.
const PAUSE: Duration = Duration::from_millis(50);

/// Largest segment.
const SEGMENT: u64 = 8 * 1024 * 1024;

/// What a lane needs to keep its queue on disk.
#[derive(Debug)]
pub(crate) struct Keep {
    exporter: String,
    limits: LogLimits,
    budget: Arc<Budget>,
    /// Bytes of memory this lane may use however much the others do.
    share: usize,
    /// Every record below this sequence is safe from a loss of power.
    durable: watch::Sender<u64>,
    /// There is something to sync.
    appended: Notify,
    failing: Fold,
    damaged: Fold,
}

impl Keep {
    /// For one of `lanes` lanes.
    pub(crate) fn new(
        exporter: &str,
        storage: &Storage,
        queue: &Queue,
        budget: Arc<Budget>,
        lanes: usize,
    ) -> Self {
        let total = match storage.max_size {
            0 => u64::MAX,
            most => most,
        };
        let most = total.min(queue.capacity as u64);
        Self {
            exporter: exporter.to_owned(),
            limits: LogLimits {
                segment: (most / 8).clamp(64 * 1024, SEGMENT),
                total,
                fsync: storage.fsync,
                directory_mode: storage.directory_permissions,
            },
            share: budget.soft_limit() / 2 / lanes.max(1),
            budget,
            durable: watch::Sender::new(0),
            appended: Notify::new(),
            failing: Fold::default(),
            damaged: Fold::default(),
        }
    }

    fn piece(&self) -> usize {
        PIECE.min(self.share)
    }
}

/// The right to acknowledge a request.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket(Option<(watch::Receiver<u64>, u64)>);

impl Ticket {
    /// Returns when the request may be acknowledged: at once, unless a loss of power must not cost it.
    pub(crate) async fn ready(self) {
        if let Some((mut durable, sequence)) = self.0 {
            let _ = durable.wait_for(|below| *below > sequence).await;
        }
    }
}

impl Lane {
    /// Whether the queue is to be on disk, so that memory is not what bounds it.
    pub(crate) fn is_kept(&self) -> bool {
        self.keep.is_some()
    }

    /// Id of the exporter, where the queue is to be on disk.
    pub(super) fn exporter(&self) -> &str {
        self.keep.as_ref().map_or("", |keep| &keep.exporter)
    }

    pub(super) fn log_limits(&self) -> Option<LogLimits> {
        self.keep.as_ref().map(|keep| keep.limits)
    }

    /// Whether `more` bytes in memory would be too many beside the `memory` this lane holds: half of what
    /// all telemetry may take is for queues, and of that each lane has its share.
    pub(super) fn is_memory_short(&self, memory: usize, more: usize) -> bool {
        self.keep.as_ref().is_some_and(|keep| {
            keep.budget.held() > keep.budget.soft_limit() / 2
                && memory.saturating_add(more) > keep.share
        })
    }

    pub(super) fn ticket(&self, sequence: Option<u64>) -> Ticket {
        let keep = self.keep.as_ref().filter(|keep| keep.limits.fsync);
        Ticket(keep.zip(sequence).map(|(keep, sequence)| {
            keep.appended.notify_one();
            (keep.durable.subscribe(), sequence)
        }))
    }

    /// A request that was on disk, in memory.
    pub(super) fn held(&self, payload: bytes::Bytes, items: u32) -> Option<Held> {
        let mut permit = self.keep.as_ref()?.budget.permit();
        permit.set(payload.len());
        Some(Held {
            bytes: payload,
            items: items as usize,
            permit,
        })
    }

    /// What the dispatcher should do about what is on disk only; `None`: nothing now.
    pub(super) fn look_on_disk(&self, state: &mut State, now: Instant) -> Option<Next> {
        let keep = self.keep.as_ref()?;
        loop {
            if state.disk.as_ref()?.is_read() {
                state.join_behind();
                return None;
            }
            if state.waiting_bytes >= state.limits.min_size {
                return None;
            }
            let memory = state.memory_bytes();
            // With nothing in memory something must be read, or nothing would ever be sent.
            if memory > 0 && self.is_memory_short(memory, keep.piece()) {
                let idle = state.waiting.is_empty();
                return idle.then(|| Next::WaitUntil(now + PAUSE));
            }
            let refill = state.disk.as_ref()?.refill(keep.piece())?;
            if refill.job.bytes() > LITTLE {
                return Some(Next::Refill(refill));
            }
            let chunk = refill.job.run();
            self.take_in(state, chunk, refill.log);
        }
    }

    pub(super) async fn refill(&self, refill: Refill) {
        let Refill { job, log } = refill;
        if let Ok(chunk) = spawn_blocking(move || job.run()).await {
            self.take_in(&mut self.state(), chunk, log);
        }
    }

    /// What was read waits in memory.
    fn take_in(&self, state: &mut State, chunk: Chunk, log: u64) {
        let Some(disk) = state.disk.as_mut() else {
            return;
        };
        let since = disk.since().unwrap_or_else(Instant::now);
        let Some(log) = disk.log_number(log) else {
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
        self.tell_damage(&chunk);
        let segment = chunk.segment();
        for record in chunk.records {
            let Some(held) = self.held(record.payload, record.items) else {
                return;
            };
            let place = Some(Position {
                segment,
                sequence: record.sequence,
            });
            let waiting = Waiting { held, since, place };
            state.wait(waiting);
        }
    }

    fn lost_on_disk(&self, state: &mut State, (items, bytes): (u64, usize)) {
        self.metrics.lost(self.signal, Lost::Storage, items);
        self.metrics.released(self.signal, items, bytes as u64);
        state.held_bytes = state.held_bytes.saturating_sub(bytes);
    }

    pub(super) fn tell_damage(&self, chunk: &Chunk) {
        let (damage, keep) = (chunk.damage, self.keep.as_ref());
        if damage.bytes == 0 && chunk.failed.is_none() {
            return;
        }
        self.metrics
            .damaged(self.signal, damage.records, damage.bytes);
        if let Some(left_out) = keep.and_then(|keep| keep.damaged.due()) {
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
                "records on disk are damaged and passed over"
            );
        }
    }

    /// The queue cannot be on disk for now.
    pub(super) fn tell_failing(&self, error: &LogError) {
        self.metrics.storage(self.signal, false);
        let Some(keep) = &self.keep else { return };
        if let Some(left_out) = keep.failing.due() {
            warn!(
                exporter = self.exporter(),
                signal = self.signal.name(),
                reason = error.reason(),
                %error,
                left_out,
                "the queue cannot be kept on disk and goes on in memory"
            );
        }
    }

    pub(super) fn halved(&self, id: u64) {
        if let Some(disk) = &mut self.state().disk {
            disk.halved(id);
        }
    }

    /// How many parts of a batch are on disk, from the first on.
    pub(super) fn on_disk(&self, id: u64) -> usize {
        self.state().disk.as_ref().map_or(0, |disk| disk.kept(id))
    }

    pub(super) fn settled(&self, id: u64) {
        let mut state = self.state();
        let State { disk, waiting, .. } = &mut *state;
        let Some(disk) = disk else { return };
        disk.settled(id, waiting.front());
        let more = !disk.is_read();
        drop(state);
        if more {
            // There may be memory to refill.
            self.ready.notify_one();
        }
    }

    /// Whether there is no log, or it is where it was.
    pub(super) fn is_there(&self) -> bool {
        let mut state = self.state();
        let log = state.disk.as_mut().and_then(Disk::log);
        log.is_none_or(|log| log.exists())
    }

    pub(super) fn has_log(&self) -> bool {
        self.state()
            .disk
            .as_mut()
            .is_some_and(|d| d.log().is_some())
    }

    pub(super) fn is_failing(&self) -> bool {
        self.state().disk.as_ref().is_some_and(Disk::is_failing)
    }

    /// What was on disk is not there any more. What was there only is lost; the rest goes on in memory.
    pub(super) fn gone(&self, error: &LogError) {
        let mut state = self.state();
        let State { disk, waiting, .. } = &mut *state;
        let Some(disk) = disk else { return };
        let next = disk.log().map_or(0, |log| log.next_sequence());
        let (lost, leftover) = disk.gone(waiting);
        state.join_behind();
        self.lost_on_disk(&mut state, lost);
        drop(state);
        self.metrics.damaged(self.signal, 0, leftover);
        self.metrics.leftover(self.signal, 0);
        self.durable_below(next);
        self.tell_failing(error);
        if lost.0 > 0 || leftover > 0 {
            warn!(
                exporter = self.exporter(),
                signal = self.signal.name(),
                items = lost.0,
                bytes_of_earlier_processes = leftover,
                reason = Lost::Storage.reason(),
                "telemetry lost"
            );
        }
        self.ready.notify_one();
    }

    /// Keeps the queue in this log from now on; first goes what is in it.
    pub(super) fn attach(&self, log: Log) {
        if !log.foreign.is_empty() {
            warn!(
                directory = %log.directory().display(),
                files = log.foreign.join(", "),
                "files of a newer version or of others are left alone"
            );
        }
        let leftover = log.leftover();
        if leftover > 0 {
            info!(
                exporter = self.exporter(),
                signal = self.signal.name(),
                bytes = leftover,
                "found what an earlier process has left on disk"
            );
        }
        self.metrics.leftover(self.signal, leftover);
        if let Some(disk) = &mut self.state().disk {
            disk.attach(log);
        }
        self.ready.notify_one();
    }

    /// Moves a part of what is in memory only to disk; whether that was all that can be moved now.
    pub(super) fn come_back(&self) -> bool {
        let mut state = self.state();
        if state.disk.as_ref().is_some_and(Disk::is_read) {
            state.join_behind();
        }
        let State { disk, waiting, .. } = &mut *state;
        let Some(disk) = disk else { return true };
        match disk.come_back(waiting) {
            Ok(Returned::More) => false,
            Ok(Returned::Later) => true,
            Ok(Returned::Done) => {
                drop(state);
                self.metrics.storage(self.signal, true);
                if let Some(keep) = &self.keep
                    && keep.failing.ended()
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
                disk.fails();
                drop(state);
                self.tell_failing(&error);
                true
            }
        }
    }

    /// Gives files back while nothing is queued.
    pub(super) fn rest(&self) {
        if let Some(log) = self.state().disk.as_mut().and_then(Disk::log) {
            log.rest();
        }
    }

    /// Syncs what is appended, as much as there is in one go, for as long as the process lives.
    pub(super) async fn commit(self: Arc<Self>) {
        let Some(keep) = &self.keep else { return };
        loop {
            keep.appended.notified().await;
            while let Some(unsynced) = self.unsynced() {
                let below = unsynced.below;
                let path = unsynced.directory.clone();
                match spawn_blocking(move || unsynced.sync()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(source)) => self.not_synced(&LogError::io(path, source)),
                    Err(_) => return,
                }
                self.durable_below(below);
            }
        }
    }

    fn unsynced(&self) -> Option<Unsynced> {
        self.state().disk.as_mut()?.log()?.unsynced()
    }

    /// After a failed sync nobody knows what is on disk (fsync(2)): the segment is not written on, and the
    /// queue goes on in memory until a new one works.
    fn not_synced(&self, error: &LogError) {
        if let Some(disk) = &mut self.state().disk {
            disk.fails();
        }
        self.tell_failing(error);
    }

    fn durable_below(&self, sequence: u64) {
        if let Some(keep) = &self.keep {
            keep.durable.send_if_modified(|below| {
                let news = sequence > *below;
                *below = sequence.max(*below);
                news
            });
        }
    }
}
