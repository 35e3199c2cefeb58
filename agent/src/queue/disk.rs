//! What a lane knows of its queue on disk: what is there only, what is there too, and what is not there
//! because the disk fails. Must not know files.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use segment_log::{Log, LogError, Position, ReadJob};
use tokio::time::Instant;

use super::{Held, Waiting};

/// Bytes moved to disk in one go after it has come back.
const TURN: usize = 4 * 1024 * 1024;

/// Where a request has been put.
pub(super) enum Put {
    /// It shall wait in memory; it is on disk, too, if it has a place.
    Memory(Waiting),
    /// On disk only; whether it is the first there.
    Disk(Position, bool),
    /// In memory, behind what is on disk only.
    Behind,
}

/// A piece of the log to be read, and of which log.
pub(super) struct Refill {
    pub(super) job: ReadJob,
    pub(super) log: u64,
}

/// A batch in flight.
#[derive(Debug)]
struct Out {
    parts: Arc<Vec<Held>>,
    /// So many of the parts are on disk, from the first on.
    kept: usize,
    /// Batches that are parts of this one and not settled.
    open: usize,
    /// Sequence of the first part that is on disk.
    first: Option<u64>,
    /// Records in each segment.
    segments: Vec<(u64, u64)>,
}

impl Out {
    fn keep(&mut self, place: Position) {
        self.kept += 1;
        self.first.get_or_insert(place.sequence);
        match self.segments.last_mut() {
            Some((segment, records)) if *segment == place.segment => *records += 1,
            _ => self.segments.push((place.segment, 1)),
        }
    }
}

/// The disk's part of a lane's state.
#[derive(Debug, Default)]
pub(super) struct Disk {
    log: Option<Log>,
    /// Which log this is; what was read of another is of no use.
    number: u64,
    /// Nothing is appended until it has been tried again.
    failing: bool,
    /// Sequences are not used twice, whatever becomes of the log.
    next_sequence: u64,
    /// Payload bytes this process has on disk only.
    only_bytes: usize,
    /// Since when anything is on disk only.
    since: Option<Instant>,
    /// In memory and behind what is on disk only: what arrives while the disk fails.
    behind: VecDeque<Waiting>,
    out: BTreeMap<u64, Out>,
    next_out: u64,
}

/// How far the return to a disk that failed has come.
pub(super) enum Returned {
    Done,
    /// There is more to move than may be moved in one go.
    More,
    /// What is on disk only goes first: it was there when the log was opened anew.
    Later,
}

impl Disk {
    /// Puts a request on disk; `spill`: memory is short. The error, if there is one, is the first since
    /// the disk last worked.
    pub(super) fn put(&mut self, mut waiting: Waiting, spill: bool) -> (Put, Option<LogError>) {
        let all_read = self.is_read();
        let log = self.log.as_mut().filter(|_| !self.failing);
        let mut failed = None;
        if let Some(log) = log {
            let keep = all_read && !spill;
            match append(log, &waiting.held, keep) {
                Ok(place) if keep => {
                    waiting.place = Some(place);
                    return (Put::Memory(waiting), None);
                }
                Ok(place) => {
                    self.only_bytes += waiting.held.bytes.len();
                    self.since.get_or_insert(waiting.since);
                    return (Put::Disk(place, all_read), None);
                }
                Err(error) => {
                    self.failing = true;
                    failed = Some(error);
                }
            }
        }
        if all_read && self.behind.is_empty() {
            return (Put::Memory(waiting), failed);
        }
        self.behind.push_back(waiting);
        (Put::Behind, failed)
    }

    /// Whether nothing is on disk only.
    pub(super) fn is_read(&self) -> bool {
        self.log.as_ref().is_none_or(Log::is_read)
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing || self.log.is_none()
    }

    pub(super) fn has_room(&mut self, bytes: usize) -> bool {
        let failing = self.failing;
        let log = self.log.as_mut().filter(|_| !failing);
        log.is_none_or(|log| log.has_room(bytes))
    }

    pub(super) fn leftover(&self) -> usize {
        let bytes = self.log.as_ref().map_or(0, Log::leftover);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn only_bytes(&self) -> usize {
        self.only_bytes
    }

    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    pub(super) fn take_behind(&mut self) -> VecDeque<Waiting> {
        std::mem::take(&mut self.behind)
    }

    /// Items and bytes on disk only, as far as this process knows them.
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

    /// The log a refill was read from, if it is still in use.
    pub(super) fn log_number(&mut self, number: u64) -> Option<&mut Log> {
        self.log.as_mut().filter(|_| self.number == number)
    }

    /// Takes note that bytes are no longer on disk only.
    pub(super) fn no_longer_only(&mut self, bytes: usize) {
        self.only_bytes = self.only_bytes.saturating_sub(bytes);
        if self.is_read() {
            self.since = None;
        }
    }

    /// A batch leaves; `places` are those of its first parts. Its number.
    pub(super) fn goes_out(&mut self, parts: &Arc<Vec<Held>>, places: &[Position]) -> u64 {
        let mut out = Out {
            parts: Arc::clone(parts),
            kept: 0,
            open: 1,
            first: None,
            segments: Vec::new(),
        };
        for place in places {
            out.keep(*place);
        }
        self.next_out += 1;
        self.out.insert(self.next_out, out);
        self.next_out
    }

    /// Of a batch there is one half more.
    pub(super) fn halved(&mut self, id: u64) {
        if let Some(out) = self.out.get_mut(&id) {
            out.open += 1;
        }
    }

    /// How many parts of a batch are on disk, from the first on.
    pub(super) fn kept(&self, id: u64) -> usize {
        self.out.get(&id).map_or(0, |out| out.kept)
    }

    /// A batch, or the half of one, is settled. `front`: the place of what waits first.
    pub(super) fn settled(&mut self, id: u64, front: Option<&Waiting>) {
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
        // What is not on disk has no place, and what is may then be in any order.
        if !self.failing {
            let first = self.out.values().filter_map(|out| out.first).min();
            let front = front.and_then(|waiting| waiting.place);
            let unsettled = first
                .into_iter()
                .chain(front.map(|place| place.sequence))
                .chain(log.first_unread())
                .min();
            log.mark(unsettled.unwrap_or_else(|| log.next_sequence()));
        }
        log.prune();
    }

    /// The disk fails; whether that is news.
    pub(super) fn fails(&mut self) -> bool {
        let news = !self.failing;
        self.failing = true;
        if let Some(log) = &mut self.log {
            log.seal();
        }
        news
    }

    /// The log is gone, with everything on disk only: its items and bytes, and what earlier processes
    /// had left. What is in memory has no place any more.
    pub(super) fn gone(&mut self, waiting: &mut VecDeque<Waiting>) -> ((u64, usize), u64) {
        let lost = self.only();
        let leftover = self.log.as_ref().map_or(0, Log::leftover);
        self.next_sequence = self.log.as_ref().map_or(0, Log::next_sequence);
        self.log = None;
        self.failing = true;
        self.only_bytes = 0;
        self.since = None;
        for out in self.out.values_mut() {
            out.kept = 0;
            out.first = None;
            out.segments.clear();
        }
        for waiting in waiting.iter_mut() {
            waiting.place = None;
        }
        (lost, leftover)
    }

    /// From now on this is the log.
    pub(super) fn attach(&mut self, mut log: Log) {
        log.begin_at(self.next_sequence);
        if !log.is_read() {
            self.since = Some(Instant::now());
        }
        self.log = Some(log);
        self.number += 1;
    }

    /// Moves what is in memory only to disk, oldest first, and then uses the disk again. Where nothing is
    /// on disk only, nothing may be behind it.
    pub(super) fn come_back(
        &mut self,
        waiting: &mut VecDeque<Waiting>,
    ) -> Result<Returned, LogError> {
        let Some(log) = &mut self.log else {
            return Ok(Returned::Done);
        };
        if self.failing {
            log.probe()?;
        }
        let in_memory_only = self.out.values().any(|out| out.kept < out.parts.len())
            || waiting.iter().any(|waiting| waiting.place.is_none());
        if in_memory_only && !log.is_read() {
            return Ok(Returned::Later);
        }
        let mut moved = 0;
        if log.is_read() {
            for out in self.out.values_mut() {
                let parts = Arc::clone(&out.parts);
                for held in parts.get(out.kept..).unwrap_or_default() {
                    out.keep(append(log, held, true)?);
                    moved += held.bytes.len();
                    if moved > TURN {
                        return Ok(Returned::More);
                    }
                }
            }
            for waiting in waiting.iter_mut().filter(|w| w.place.is_none()) {
                waiting.place = Some(append(log, &waiting.held, true)?);
                moved += waiting.held.bytes.len();
                if moved > TURN {
                    return Ok(Returned::More);
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
            if moved > TURN {
                return Ok(Returned::More);
            }
        }
        self.failing = false;
        Ok(Returned::Done)
    }
}

fn append(log: &mut Log, held: &Held, keep: bool) -> Result<Position, LogError> {
    let items = u32::try_from(held.items).unwrap_or(u32::MAX);
    log.append(items, &held.bytes, keep)
}
