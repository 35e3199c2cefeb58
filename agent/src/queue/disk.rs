//! The disk state of a lane: which requests are on disk, also on disk, or only in memory because the disk
//! fails. Nothing here waits for the disk.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use segment_log::{
    CompressJob, Compressed, Log, LogError, Outcome, Position, ReadJob, SegmentName, Work,
};
use tokio::time::Instant;

use super::durable::PATIENCE;
use super::request::{QueuedRequest, WaitingRequest};
use crate::senders::reserve;

/// The bytes moved to disk at once after it works again.
const MOVE_AT_ONCE: usize = 4 * 1024 * 1024;

/// The place of an accepted request.
pub(super) enum Placement {
    /// In memory; also on disk if it has a position.
    Memory(WaitingRequest),
    /// Only on disk, once it is written.
    Disk(Position),
    /// In memory, after requests that are only on disk.
    Behind,
}

/// A part of the log to read, and the number of the log.
pub(super) struct Refill {
    pub(super) job: ReadJob,
    pub(super) log: u64,
    /// Whether nothing is sent before this is read.
    pub(super) is_urgent: bool,
}

/// The state of a read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// It waits for memory.
    ForMemory,
    /// It has waited for the disk since then.
    Since(Instant),
}

#[derive(Debug)]
struct InFlightBatch {
    parts: Arc<Vec<QueuedRequest>>,
    bytes: usize,
    /// The sequences of its first parts, in order; the others are only in memory.
    sequences: Vec<Range<u64>>,
    /// The number of unsettled batches with parts of this one.
    open: usize,
}

impl InFlightBatch {
    fn add(&mut self, Position { sequence }: Position) {
        match self.sequences.last_mut() {
            Some(range) if range.end == sequence => range.end += 1,
            _ => self.sequences.push(sequence..sequence + 1),
        }
    }

    /// The number of first parts with sequences below this.
    fn parts_below(&self, sequence: u64) -> usize {
        let below = |range: &Range<u64>| range.end.min(sequence).saturating_sub(range.start);
        let parts: u64 = self.sequences.iter().map(below).sum();
        usize::try_from(parts).unwrap_or(usize::MAX)
    }

    /// The number of first parts that the log has.
    fn logged(&self) -> usize {
        self.parts_below(u64::MAX)
    }
}

#[derive(Debug, Default)]
pub(super) struct DiskState {
    log: Option<Log>,
    /// The number of the log; reads of an earlier log are ignored.
    number: u64,
    /// Nothing new is appended until the disk has caught up.
    failing: bool,
    /// Since when the disk has been at work.
    working: Option<Instant>,
    /// Whether the thread that writes waits for work.
    pub(super) writer_waits: bool,
    /// What another thread does that reads.
    pub(super) reading: Option<Reading>,
    /// The first unused sequence, even after the loss of the log.
    next_sequence: u64,
    /// Payload bytes of this process that are only on disk.
    only_bytes: usize,
    /// Since when requests are only on disk.
    since: Option<Instant>,
    /// Requests that are to be only on disk and are not written yet.
    unwritten: VecDeque<WaitingRequest>,
    /// Requests in memory after those that are only on disk; they arrived while the disk failed.
    behind: VecDeque<WaitingRequest>,
    out: BTreeMap<u64, InFlightBatch>,
    next_out: u64,
}

impl DiskState {
    /// Places a request; with `spill` memory is short.
    pub(super) fn put(&mut self, mut waiting: WaitingRequest, spill: bool) -> Placement {
        let all_read = self.is_read();
        let log = self.log.as_mut().filter(|_| !self.failing);
        let in_memory = all_read && !spill;
        if let Some(position) = log.and_then(|log| append(log, &waiting.held, in_memory)) {
            waiting.position = Some(position);
            if in_memory {
                return Placement::Memory(waiting);
            }
            self.since.get_or_insert(waiting.since);
            self.unwritten.push_back(waiting);
            return Placement::Disk(position);
        }
        if all_read && self.behind.is_empty() {
            return Placement::Memory(waiting);
        }
        self.behind.push_back(waiting);
        Placement::Behind
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

    /// The bytes that compression saves of what is only on disk.
    pub(super) fn saved(&self) -> usize {
        let bytes = self.log.as_ref().map_or(0, Log::saved);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The next segment to compress, and the number of the log.
    pub(super) fn compress_job(&mut self, soon: usize) -> Option<(CompressJob, u64)> {
        let log = self.log.as_mut().filter(|_| !self.failing)?;
        Some((log.compress_job(soon)?, self.number))
    }

    /// Notes what has become of a segment; the file to delete.
    pub(super) fn compressed(
        &mut self,
        number: u64,
        job: &CompressJob,
        outcome: &io::Result<Compressed>,
    ) -> Option<SegmentName> {
        let is_reading = self.reading.is_some();
        match self.log_numbered(number) {
            Some(log) => log.compressed(job, outcome, is_reading),
            None => outcome.as_ref().ok().and_then(Compressed::file),
        }
    }

    pub(super) fn leftover(&self) -> usize {
        let bytes = self.log.as_ref().map_or(0, Log::leftover);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn only_bytes(&self) -> usize {
        self.only_bytes
    }

    /// The requests that are in flight, not written yet, or behind those on disk.
    pub(super) fn requests_in_memory(&self) -> usize {
        let in_flight = self.out.values().map(|out| out.parts.len());
        in_flight.sum::<usize>() + self.unwritten.len() + self.behind.len()
    }

    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Takes the requests that are in memory and neither waiting nor in flight.
    pub(super) fn take_behind(&mut self) -> VecDeque<WaitingRequest> {
        std::mem::take(&mut self.behind)
    }

    /// Takes the requests that are to be only on disk and are not there yet.
    pub(super) fn take_unwritten(&mut self) -> VecDeque<WaitingRequest> {
        std::mem::take(&mut self.unwritten)
    }

    pub(super) fn log(&mut self) -> Option<&mut Log> {
        self.log.as_mut()
    }

    pub(super) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Every record below this is on disk.
    pub(super) fn written_below(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::written_below)
    }

    /// Whether a request is on disk now.
    pub(super) fn has_written(&self, waiting: &WaitingRequest) -> bool {
        let written = self.written_below();
        let position = waiting.position;
        position.is_some_and(|position| position.sequence < written)
    }

    pub(super) fn refill(&self, most: usize, is_urgent: bool) -> Option<Refill> {
        let job = self.log.as_ref()?.read_job(most)?;
        Some(Refill {
            job,
            log: self.number,
            is_urgent,
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
            bytes: parts.iter().map(|held| held.bytes.len()).sum(),
            sequences: Vec::new(),
            open: 1,
        };
        for position in positions {
            out.add(*position);
        }
        self.next_out += 1;
        self.out.insert(self.next_out, out);
        self.next_out
    }

    /// The bytes of all batches in flight.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.out.values().map(|out| out.bytes).sum()
    }

    pub(super) fn batches_in_flight(&self) -> usize {
        self.out.len()
    }

    /// Notes that a batch was split once more.
    pub(super) fn batch_split(&mut self, id: u64) {
        if let Some(out) = self.out.get_mut(&id) {
            out.open += 1;
        }
    }

    /// The number of leading parts of a batch that are on disk.
    pub(super) fn on_disk(&self, id: u64) -> usize {
        let written = self.written_below();
        self.out.get(&id).map_or(0, |out| out.parts_below(written))
    }

    /// Settles a batch or a half of one. `front` is the first waiting request.
    pub(super) fn settled(&mut self, id: u64, bytes: usize, front: Option<&WaitingRequest>) {
        let Some(out) = self.out.get_mut(&id) else {
            return;
        };
        out.bytes = out.bytes.saturating_sub(bytes);
        out.open -= 1;
        if out.open > 0 {
            return;
        }
        let Some((out, log)) = self.out.remove(&id).zip(self.log.as_mut()) else {
            return;
        };
        for sequences in &out.sequences {
            log.settle(sequences);
        }
        // While the disk fails, some requests have no position and others may be out of order.
        if !self.failing {
            let first = self.out.values().filter_map(|out| out.sequences.first());
            let front = front.and_then(|waiting| waiting.position);
            let unsettled = first
                .map(|sequences| sequences.start)
                .chain(front.map(|position| position.sequence))
                .chain(log.first_unread())
                .min();
            log.mark(unsettled.unwrap_or_else(|| log.next_sequence()));
        }
        log.prune();
    }

    /// Keeps on disk alone, from now on, what waits in memory and is there too. Returns whether it could.
    pub(super) fn forget(&mut self, waiting: &VecDeque<WaitingRequest>) -> bool {
        let position = |waiting: &WaitingRequest| Some(waiting.position?.sequence);
        let ends = waiting.front().zip(waiting.back());
        let ends = ends.and_then(|(first, last)| Some((position(first)?, position(last)?)));
        let (Some((first, last)), Some(oldest)) = (ends, waiting.front()) else {
            return false;
        };
        let records = waiting
            .iter()
            .filter_map(|waiting| Some((waiting.position?, &waiting.held)));
        let can = self.can_forget(&(first..last + 1));
        if can {
            self.keep_on_disk(records, oldest.since);
        }
        can
    }

    /// Whether a whole batch can go back to disk.
    pub(super) fn can_go_back(&self, id: u64) -> bool {
        let Some(out) = self.out.get(&id).filter(|out| out.open == 1) else {
            return false;
        };
        match out.sequences.as_slice() {
            [sequences] => out.logged() == out.parts.len() && self.can_forget(sequences),
            _ => false,
        }
    }

    /// Takes a whole batch back. Only valid if [`Self::can_go_back`].
    pub(super) fn go_back(&mut self, id: u64) {
        if let Some(out) = self.out.remove(&id) {
            let sequences = out.sequences.iter().cloned().flatten();
            let positions = sequences.map(|sequence| Position { sequence });
            self.keep_on_disk(positions.zip(out.parts.iter()), Instant::now());
        }
    }

    fn can_forget(&self, records: &Range<u64>) -> bool {
        let log = self.log.as_ref().filter(|_| !self.failing);
        self.reading.is_none() && log.is_some_and(|log| log.can_forget(records))
    }

    fn keep_on_disk<'a>(
        &mut self,
        records: impl Iterator<Item = (Position, &'a QueuedRequest)>,
        since: Instant,
    ) {
        let Some(log) = &mut self.log else { return };
        let mut all = 0;
        log.forget(records.map(|(position, held)| {
            all += held.bytes.len();
            (position, held.items as u64, held.bytes.len())
        }));
        self.only_bytes += all;
        self.since = self.since.min(Some(since)).or(Some(since));
    }

    /// Drops a lost log. Returns the items and bytes that were only there, and the unread bytes of earlier
    /// processes. Requests in memory lose their positions.
    pub(super) fn lose_log(
        &mut self,
        waiting: &mut VecDeque<WaitingRequest>,
    ) -> ((u64, usize), u64) {
        let Some(log) = self.log.take() else {
            return ((0, 0), 0);
        };
        let mut lost = log.unread();
        for request in &self.unwritten {
            lost.0 = lost.0.saturating_sub(request.held.items as u64);
            lost.1 = lost.1.saturating_sub(request.held.bytes.len());
        }
        self.next_sequence = log.next_sequence();
        self.failing = true;
        self.only_bytes = 0;
        self.since = None;
        let behind = self.take_behind();
        self.behind = self.take_unwritten();
        self.behind.extend(behind);
        for out in self.out.values_mut() {
            out.sequences.clear();
        }
        for request in waiting.iter_mut().chain(&mut self.behind) {
            request.position = None;
        }
        (lost, log.leftover())
    }

    /// Continues in this log.
    pub(super) fn attach(&mut self, mut log: Log) {
        log.begin_at(self.next_sequence);
        if !log.is_read() {
            self.since = Some(Instant::now());
        }
        self.log = Some(log);
        self.number += 1;
        self.failing = true;
    }

    /// What the disk is to do next, and the number of the log.
    pub(super) fn work(&mut self) -> Option<(Work, u64)> {
        let work = self.log.as_mut()?.work()?;
        self.working = Some(Instant::now());
        Some((work, self.number))
    }

    /// Notes what has become of some work.
    pub(super) fn work_done(&mut self, number: u64, work: &Work, outcome: &Outcome) {
        self.working = None;
        let Some(log) = self.log_numbered(number) else {
            return;
        };
        log.done(work, outcome);
        let written = log.written_below();
        self.failing |= outcome.error.is_some();
        let is_written = |waiting: &mut WaitingRequest| {
            let position = waiting.position;
            position.is_some_and(|position| position.sequence < written)
        };
        while let Some(waiting) = self.unwritten.pop_front_if(is_written) {
            self.only_bytes += waiting.held.bytes.len();
        }
    }

    /// Since when the disk has been at work; `None` while it rests.
    pub(super) fn working(&self) -> Option<Instant> {
        self.working
    }

    /// Whether every request is where it should be.
    pub(super) fn is_at_rest(&self) -> bool {
        self.working.is_none() && self.writer_waits
    }

    /// Notes that the disk does not answer, if that is new.
    pub(super) fn stall(&mut self) -> Option<LogError> {
        let is_reading = self.is_read_late();
        let is_late = |log: &&Log| self.working.is_some() || is_reading || log.is_behind();
        let log = self.log.as_ref().filter(is_late)?;
        if std::mem::replace(&mut self.failing, true) {
            return None;
        }
        Some(LogError::Stalled(log.directory().to_owned()))
    }

    /// Whether a read has not been answered for too long.
    pub(super) fn is_read_late(&self) -> bool {
        match self.reading {
            Some(Reading::Since(since)) => since.elapsed() >= PATIENCE,
            Some(Reading::ForMemory) | None => false,
        }
    }

    /// While the disk fails: takes all that is in memory and would wait for it, oldest first. What of it is to be on
    /// disk gets there all the same once that is possible.
    pub(super) fn take_all_in_memory(&mut self) -> impl Iterator<Item = WaitingRequest> {
        if let Some(log) = &mut self.log {
            log.recall();
        }
        self.take_unwritten().into_iter().chain(self.take_behind())
    }

    /// Puts requests that are only in memory behind those that are only on disk.
    pub(super) fn put_behind(&mut self, mut requests: VecDeque<WaitingRequest>) {
        requests.append(&mut self.behind);
        self.behind = requests;
    }

    /// Returns to a disk that has caught up: requests that are only in memory go there, oldest first, some at a
    /// time. Returns whether the disk is in use again.
    pub(super) fn resume(&mut self, waiting: &mut VecDeque<WaitingRequest>) -> bool {
        if !self.can_resume() {
            return false;
        }
        let Some(mut log) = self.log.take() else {
            return false;
        };
        let is_back = self.move_to(&mut log, waiting).is_some();
        self.log = Some(log);
        self.failing &= !is_back;
        is_back
    }

    /// Whether the disk has failed and has caught up since.
    pub(super) fn can_resume(&self) -> bool {
        let has_caught_up = self.log.as_ref().is_some_and(|log| !log.is_behind());
        self.failing && has_caught_up && self.working.is_none() && !self.is_read_late()
    }

    /// Moves what is only in memory; `None` if more is left to do, once this is written.
    fn move_to(&mut self, log: &mut Log, waiting: &mut VecDeque<WaitingRequest>) -> Option<()> {
        let mut moved = 0;
        let mut append = |held: &QueuedRequest, in_memory| {
            let fits = moved < MOVE_AT_ONCE;
            moved += held.bytes.len();
            fits.then(|| append(log, held, in_memory)).flatten()
        };
        for out in self.out.values_mut() {
            let parts = Arc::clone(&out.parts);
            for held in parts.get(out.logged()..).unwrap_or_default() {
                out.add(append(held, true)?);
            }
        }
        for waiting in waiting.iter_mut().filter(|w| w.position.is_none()) {
            waiting.position = Some(append(&waiting.held, true)?);
        }
        while let Some(mut waiting) = self.behind.pop_front() {
            waiting.position = append(&waiting.held, false);
            if waiting.position.is_none() {
                self.behind.push_front(waiting);
                return None;
            }
            self.since.get_or_insert(waiting.since);
            self.unwritten.push_back(waiting);
        }
        // What has moved is on disk only once it is written.
        (moved == 0).then_some(())
    }
}

fn append(log: &mut Log, held: &QueuedRequest, in_memory: bool) -> Option<Position> {
    let items = u32::try_from(held.items).unwrap_or(u32::MAX);
    log.append(items, &held.bytes, in_memory)
}
