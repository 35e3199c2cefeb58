//! The disk state of a lane: which requests are on disk, also on disk, or only in memory because the disk
//! fails.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use segment_log::{Log, LogError, Position, ReadJob};
use tokio::time::Instant;

use super::request::{QueuedRequest, WaitingRequest};
use crate::senders::reserve;

/// The bytes moved to disk at once after it works again.
const MOVE_AT_ONCE: usize = 4 * 1024 * 1024;

/// The place of an accepted request.
pub(super) enum Placement {
    /// In memory; also on disk if it has a position.
    Memory(WaitingRequest),
    /// Only on disk; whether it is the first there.
    Disk(Position, bool),
    /// In memory, after requests that are only on disk.
    Behind,
}

/// A part of the log to read, and the number of the log.
pub(super) struct Refill {
    pub(super) job: ReadJob,
    pub(super) log: u64,
}

#[derive(Debug)]
struct InFlightBatch {
    parts: Arc<Vec<QueuedRequest>>,
    /// The number of leading parts that are on disk.
    on_disk: usize,
    /// The number of unsettled batches with parts of this one.
    open: usize,
    /// The sequence of the first part that is on disk.
    first: Option<u64>,
    /// The number of records in each segment.
    segments: Vec<(u64, u64)>,
}

impl InFlightBatch {
    fn add(&mut self, position: Position) {
        self.on_disk += 1;
        self.first.get_or_insert(position.sequence);
        match self.segments.last_mut() {
            Some((segment, records)) if *segment == position.segment => *records += 1,
            _ => self.segments.push((position.segment, 1)),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct DiskState {
    log: Option<Log>,
    /// The number of the log; reads of an earlier log are ignored.
    number: u64,
    /// Nothing is appended until a test succeeds.
    failing: bool,
    /// The first unused sequence, even after the loss of the log.
    next_sequence: u64,
    /// Payload bytes of this process that are only on disk.
    only_bytes: usize,
    /// Since when requests are only on disk.
    since: Option<Instant>,
    /// Requests in memory after those that are only on disk; they arrived while the disk failed.
    behind: VecDeque<WaitingRequest>,
    out: BTreeMap<u64, InFlightBatch>,
    next_out: u64,
}

/// The progress of the return to a disk that failed.
pub(super) enum Resumed {
    Done,
    /// More requests are left to move.
    More,
    /// Requests that were on disk when the log was reopened must be read first.
    Later,
}

impl DiskState {
    /// Places a request; with `spill` memory is short. Returns the error of a disk that begins to fail.
    pub(super) fn put(
        &mut self,
        mut waiting: WaitingRequest,
        spill: bool,
    ) -> (Placement, Option<LogError>) {
        let all_read = self.is_read();
        let log = self.log.as_mut().filter(|_| !self.failing);
        let mut failed = None;
        if let Some(log) = log {
            let in_memory = all_read && !spill;
            match append(log, &waiting.held, in_memory) {
                Ok(position) if in_memory => {
                    waiting.position = Some(position);
                    return (Placement::Memory(waiting), None);
                }
                Ok(position) => {
                    self.only_bytes += waiting.held.bytes.len();
                    self.since.get_or_insert(waiting.since);
                    return (Placement::Disk(position, all_read), None);
                }
                Err(error) => {
                    self.failing = true;
                    failed = Some(error);
                }
            }
        }
        if all_read && self.behind.is_empty() {
            return (Placement::Memory(waiting), failed);
        }
        self.behind.push_back(waiting);
        (Placement::Behind, failed)
    }

    /// Whether no request is only on disk.
    pub(super) fn is_read(&self) -> bool {
        self.log.as_ref().is_none_or(Log::is_read)
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing || self.log.is_none()
    }

    /// Whether a request fits into the files, also if their reserve stays free.
    pub(super) fn has_room(&mut self, bytes: usize, is_reserve_free: bool) -> bool {
        let failing = self.failing;
        let Some(log) = self.log.as_mut().filter(|_| !failing) else {
            return true;
        };
        let free = if is_reserve_free {
            reserve(usize::try_from(log.size_limit()).unwrap_or(usize::MAX))
        } else {
            0
        };
        log.has_room(bytes.saturating_add(free))
    }

    pub(super) fn leftover(&self) -> usize {
        let bytes = self.log.as_ref().map_or(0, Log::leftover);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn only_bytes(&self) -> usize {
        self.only_bytes
    }

    /// The requests that are in flight, or behind those on disk.
    pub(super) fn requests_in_memory(&self) -> usize {
        let in_flight = self.out.values().map(|out| out.parts.len());
        in_flight.sum::<usize>() + self.behind.len()
    }

    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    pub(super) fn take_behind(&mut self) -> VecDeque<WaitingRequest> {
        std::mem::take(&mut self.behind)
    }

    /// Items and bytes of this process that are only on disk.
    pub(super) fn only(&self) -> (u64, usize) {
        self.log.as_ref().map_or((0, 0), Log::unread)
    }

    pub(super) fn log(&mut self) -> Option<&mut Log> {
        self.log.as_mut()
    }

    pub(super) fn refill(&self, most: usize) -> Option<Refill> {
        let job = self.log.as_ref()?.read_job(most)?;
        Some(Refill {
            job,
            log: self.number,
        })
    }

    /// The log with this number, if it is still in use.
    pub(super) fn log_numbered(&mut self, number: u64) -> Option<&mut Log> {
        self.log.as_mut().filter(|_| self.number == number)
    }

    pub(super) fn no_longer_only(&mut self, bytes: usize) {
        self.only_bytes = self.only_bytes.saturating_sub(bytes);
        if self.is_read() {
            self.since = None;
        }
    }

    /// A batch leaves; `positions` are those of its first parts. Its number.
    pub(super) fn track(&mut self, parts: &Arc<Vec<QueuedRequest>>, positions: &[Position]) -> u64 {
        let mut out = InFlightBatch {
            parts: Arc::clone(parts),
            on_disk: 0,
            open: 1,
            first: None,
            segments: Vec::new(),
        };
        for position in positions {
            out.add(*position);
        }
        self.next_out += 1;
        self.out.insert(self.next_out, out);
        self.next_out
    }

    /// Notes that a batch was split once more.
    pub(super) fn batch_split(&mut self, id: u64) {
        if let Some(out) = self.out.get_mut(&id) {
            out.open += 1;
        }
    }

    /// The number of leading parts of a batch that are on disk.
    pub(super) fn on_disk(&self, id: u64) -> usize {
        self.out.get(&id).map_or(0, |out| out.on_disk)
    }

    /// Settles a batch or a half of one. `front` is the first waiting request.
    pub(super) fn settled(&mut self, id: u64, front: Option<&WaitingRequest>) {
        let Some(out) = self.out.get_mut(&id) else {
            return;
        };
        out.open -= 1;
        if out.open > 0 {
            return;
        }
        let Some((out, log)) = self.out.remove(&id).zip(self.log.as_mut()) else {
            return;
        };
        for (segment, records) in out.segments {
            log.settle(segment, records);
        }
        // While the disk fails, some requests have no position and others may be out of order.
        if !self.failing {
            let first = self.out.values().filter_map(|out| out.first).min();
            let front = front.and_then(|waiting| waiting.position);
            let unsettled = first
                .into_iter()
                .chain(front.map(|position| position.sequence))
                .chain(log.first_unread())
                .min();
            log.mark(unsettled.unwrap_or_else(|| log.next_sequence()));
        }
        log.prune();
    }

    /// Notes that the disk fails.
    pub(super) fn mark_failing(&mut self) {
        self.failing = true;
        if let Some(log) = &mut self.log {
            log.seal();
        }
    }

    /// Drops a lost log. Returns the items and bytes that were only there, and the unread bytes of earlier
    /// processes. Requests in memory lose their positions.
    pub(super) fn lose_log(
        &mut self,
        waiting: &mut VecDeque<WaitingRequest>,
    ) -> ((u64, usize), u64) {
        let lost = self.only();
        let leftover = self.log.as_ref().map_or(0, Log::leftover);
        self.next_sequence = self.log.as_ref().map_or(0, Log::next_sequence);
        self.log = None;
        self.failing = true;
        self.only_bytes = 0;
        self.since = None;
        for out in self.out.values_mut() {
            out.on_disk = 0;
            out.first = None;
            out.segments.clear();
        }
        for waiting in waiting.iter_mut() {
            waiting.position = None;
        }
        (lost, leftover)
    }

    /// Uses this log from now on.
    pub(super) fn attach(&mut self, mut log: Log) {
        log.begin_at(self.next_sequence);
        if !log.is_read() {
            self.since = Some(Instant::now());
        }
        self.log = Some(log);
        self.number += 1;
    }

    /// Moves requests that are only in memory to disk, oldest first, and then uses the disk again. If no
    /// request is only on disk, none may be behind it.
    pub(super) fn resume(
        &mut self,
        waiting: &mut VecDeque<WaitingRequest>,
    ) -> Result<Resumed, LogError> {
        let Some(log) = &mut self.log else {
            return Ok(Resumed::Done);
        };
        if self.failing {
            log.probe()?;
        }
        let in_memory_only = self.out.values().any(|out| out.on_disk < out.parts.len())
            || waiting.iter().any(|waiting| waiting.position.is_none());
        if in_memory_only && !log.is_read() {
            return Ok(Resumed::Later);
        }
        let mut moved = 0;
        if log.is_read() {
            for out in self.out.values_mut() {
                let parts = Arc::clone(&out.parts);
                for held in parts.get(out.on_disk..).unwrap_or_default() {
                    out.add(append(log, held, true)?);
                    moved += held.bytes.len();
                    if moved > MOVE_AT_ONCE {
                        return Ok(Resumed::More);
                    }
                }
            }
            for waiting in waiting.iter_mut().filter(|w| w.position.is_none()) {
                waiting.position = Some(append(log, &waiting.held, true)?);
                moved += waiting.held.bytes.len();
                if moved > MOVE_AT_ONCE {
                    return Ok(Resumed::More);
                }
            }
        }
        while let Some(waiting) = self.behind.front() {
            append(log, &waiting.held, false)?;
            let bytes = waiting.held.bytes.len();
            self.only_bytes += bytes;
            self.since.get_or_insert(waiting.since);
            self.behind.pop_front();
            moved += bytes;
            if moved > MOVE_AT_ONCE {
                return Ok(Resumed::More);
            }
        }
        self.failing = false;
        Ok(Resumed::Done)
    }
}

fn append(log: &mut Log, held: &QueuedRequest, in_memory: bool) -> Result<Position, LogError> {
    let items = u32::try_from(held.items).unwrap_or(u32::MAX);
    log.append(items, &held.bytes, in_memory)
}
