//! One log: what is where in its segments. It hands out work for the disk and takes the results, so that the
//! thread that waits for the disk holds no lock meanwhile; only [`Log::open`] does I/O.
//!
//! A process never appends to a segment of an earlier one, so it need not repair an unfinished write; the
//! reader skips it. After a failed write or sync, what is not known to be on disk goes to another segment.

use std::collections::VecDeque;
use std::fs;
use std::mem::take;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::LogError;
use crate::files::{self, identity};
use crate::name::SegmentName;
use crate::read::{Chunk, ReadJob};
use crate::record::HEADER;
use crate::segment::Segment;
use crate::writer::NewRecord;

/// The sizes and guarantees of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// The log starts another segment at this size.
    pub segment: u64,
    /// The maximum size of all segments together.
    pub total: u64,
    /// Whether records are synced before they count as written.
    pub fsync: bool,
    /// The mode of new directories.
    pub directory_mode: u32,
}

/// The position of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Its sequence.
    pub sequence: u64,
}

/// The effect of a chunk on the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadResult {
    /// Whether an earlier process wrote the chunk.
    pub leftover: bool,
    /// Items and payload bytes of this process that cannot be read back.
    pub lost: (u64, usize),
}

/// A log that this process appends to.
#[derive(Debug)]
pub struct Log {
    pub(crate) directory: PathBuf,
    /// Device and inode of the directory at the time of opening.
    pub(crate) identity: (u64, u64),
    pub(crate) limits: LogLimits,
    pub(crate) segments: VecDeque<Segment>,
    /// Whether the last segment takes more records.
    is_open: bool,
    /// The sequence of the next record.
    next: u64,
    /// Records that are not known to be on disk, oldest first.
    pub(crate) pending: VecDeque<NewRecord>,
    /// The generation and content of the mark on disk.
    pub(crate) mark: (u64, u64),
    /// Every record below this is settled.
    settled: u64,
    /// The bytes of all segments.
    length: u64,
    /// Unread bytes of earlier processes.
    leftover: u64,
    /// The bytes that compression saves of what this process has only on disk.
    saved: u64,
    /// The bytes that compression may take for now, beside what it compresses.
    pub(crate) compressing: u64,
    /// The value of `next` at the last call of [`Log::rest`].
    next_at_rest: u64,
    pub(crate) due: Due,
    /// Whether the disk must be tested before more is written.
    pub(crate) must_probe: bool,
    /// Foreign files in the directory, which the log leaves alone.
    pub foreign: Vec<String>,
}

/// What the disk is to do besides writing records.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) check: bool,
    pub(crate) prune: bool,
    pub(crate) close: bool,
    /// Mark everything below as settled.
    pub(crate) mark: Option<u64>,
    /// Files that hold nothing.
    pub(crate) broken: Vec<PathBuf>,
}

impl Log {
    /// Opens the log of a directory; creates the directory if it is missing. Does not read records of earlier
    /// processes yet, so it is fast however many there are. Blocks.
    pub fn open(directory: &Path, limits: LogLimits) -> Result<Self, LogError> {
        let failed = |source| LogError::io(directory, source);
        files::make_directory(directory, limits.directory_mode).map_err(failed)?;
        let identity = identity(&fs::metadata(directory).map_err(failed)?);
        files::tidy(directory)?;
        let (found, foreign) = files::list(directory).map_err(failed)?;
        let mark = files::read_mark(directory);
        // Every record has a header before it is compressed, so this is beyond the last record.
        let beyond = |(name, length): &(SegmentName, u64)| {
            name.first + name.plain_length.unwrap_or(*length) / HEADER as u64 + 1
        };
        let next = found.iter().map(beyond).max().unwrap_or(1);
        let next = next.max(mark.1).max(1);
        let mut segments: VecDeque<_> = found
            .iter()
            .map(|(name, length)| Segment::new(*name, *length, true))
            .collect();
        let after = found.iter().skip(1).map(|(name, _)| name.first);
        for (segment, after) in segments.iter_mut().zip(after) {
            if after <= mark.1 {
                segment.read_to = segment.length;
            }
        }
        let mut log = Self {
            directory: directory.to_owned(),
            identity,
            limits,
            segments,
            is_open: false,
            next,
            pending: VecDeque::new(),
            mark,
            settled: mark.1,
            length: 0,
            leftover: 0,
            saved: 0,
            compressing: 0,
            next_at_rest: next,
            due: Due {
                prune: true,
                ..Due::default()
            },
            must_probe: false,
            foreign,
        };
        log.recount();
        Ok(log)
    }

    /// Counts bytes again.
    pub(crate) fn recount(&mut self) {
        self.length = self.segments.iter().map(|segment| segment.length).sum();
        let unread = self.segments.iter().filter(|segment| !segment.is_read());
        (self.leftover, self.saved) = unread.fold((0, 0), |(leftover, saved), segment| {
            let left = segment.length.saturating_sub(segment.read_to);
            if segment.leftover {
                (leftover + left, saved)
            } else {
                (leftover, saved + segment.saved())
            }
        });
    }

    /// The directory of the log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether every record is also in memory, or settled.
    pub fn is_read(&self) -> bool {
        // Unread segments are at the end.
        self.segments.iter().rev().all(Segment::is_read)
    }

    /// Unread bytes of earlier processes.
    pub fn leftover(&self) -> u64 {
        self.leftover
    }

    /// The bytes that compression saves of what this process has only on disk.
    pub fn saved(&self) -> u64 {
        self.saved
    }

    /// The sequence of the next record.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Every record below this sequence is on disk, as safe as [`LogLimits::fsync`] says.
    pub fn written_below(&self) -> u64 {
        self.pending
            .front()
            .map_or(self.next, |record| record.sequence)
    }

    /// Whether records wait to be written, or the disk to be tested.
    pub fn is_behind(&self) -> bool {
        self.must_probe || !self.pending.is_empty()
    }

    /// The size limit of all files together, in bytes; `u64::MAX` means none.
    pub fn size_limit(&self) -> u64 {
        self.limits.total
    }

    /// Whether a record of `bytes` fits into the size limit.
    pub fn has_room(&mut self, bytes: usize) -> bool {
        let all = self.size().saturating_add((HEADER + bytes) as u64);
        let fits = |log: &Self| {
            let settled = log.closed().filter(|segment| segment.is_settled());
            let settled: u64 = settled.map(|segment| segment.length).sum();
            all - settled <= log.limits.total
        };
        if all <= self.limits.total || fits(self) {
            return true;
        }
        // The current segment may hold only settled records.
        if self.is_open && self.segments.back().is_some_and(Segment::is_settled) {
            self.seal();
        }
        fits(self)
    }

    /// The bytes of all files, and of the one that is compressed now.
    pub(crate) fn size(&self) -> u64 {
        self.length + self.compressing
    }

    /// The segments that take no more records.
    pub(crate) fn closed(&self) -> impl Iterator<Item = &Segment> {
        let open = usize::from(self.is_open);
        let closed = self.segments.len().saturating_sub(open);
        self.segments.iter().take(closed)
    }

    /// The segment that a record is in.
    pub(crate) fn segment_of(&self, sequence: u64) -> Option<&Segment> {
        let mut segments = self.segments.iter().rev();
        segments.find(|segment| segment.name.first <= sequence)
    }

    /// Continues at `sequence` or later.
    pub fn begin_at(&mut self, sequence: u64) {
        self.next = self.next.max(sequence);
    }

    /// Appends a record, to be written by the next [`Work`](super::Work). With `in_memory` the caller keeps the record and
    /// the log need not read it back. `None` for payloads of 4 GiB and more.
    pub fn append(&mut self, items: u32, payload: &Bytes, in_memory: bool) -> Option<Position> {
        u32::try_from(payload.len()).ok()?;
        if in_memory && self.segments.back().is_some_and(|last| !last.is_read()) {
            // What must be read must not stand before it in the same segment.
            self.seal();
        }
        self.roll();
        let record = NewRecord {
            sequence: self.next,
            items,
            payload: payload.clone(),
            in_memory,
            settled: false,
        };
        self.segments.back_mut()?.add(&record);
        self.length += record.length();
        let sequence = record.sequence;
        self.pending.push_back(record);
        self.next += 1;
        Some(Position { sequence })
    }

    /// Makes sure that there is a segment to append to.
    fn roll(&mut self) {
        let length = self.segments.back().map_or(0, |segment| segment.length);
        if self.is_open && length < self.limits.segment {
            return;
        }
        self.seal();
        self.segments
            .push_back(Segment::new(new_name(self.next), 0, false));
        self.is_open = true;
    }

    /// Ends the current segment; the next record starts another.
    fn seal(&mut self) {
        self.is_open = false;
        self.prune();
    }

    /// The next part to read, of about `most` bytes; `None` if there is nothing to read that is on disk already.
    pub fn read_job(&self, most: usize) -> Option<ReadJob> {
        let unread = |segment: &&Segment| !segment.is_read();
        let at = self.segments.iter().position(|segment| unread(&segment))?;
        let segment = self.segments.get(at)?;
        let after = self.segments.get(at + 1);
        (segment.written.min(segment.unread_to) > segment.read_to).then(|| ReadJob {
            directory: self.directory.clone(),
            name: segment.name,
            from: segment.read_to,
            until: segment.written.min(segment.unread_to),
            scan: segment.scan.clone(),
            wanted: self.mark.1.max(segment.skip_below)
                ..after.map_or(u64::MAX, |after| after.name.first),
            most,
        })
    }

    /// Notes that the records of a chunk are in memory.
    pub fn record_read(&mut self, chunk: &Chunk) -> ReadResult {
        let mut taken = ReadResult::default();
        let found = self
            .segments
            .iter_mut()
            .find(|segment| segment.name.first == chunk.segment);
        let Some(segment) = found else {
            return taken;
        };
        taken.leftover = segment.leftover;
        let end = segment.unread_to.max(segment.read_to);
        segment.read_to = chunk.read_to.clamp(segment.read_to, end);
        segment.scan = chunk.scan.clone();
        segment.live += chunk.records.len() as u64;
        if !segment.leftover {
            let (items, bytes) = chunk.sum();
            segment.forget_unread(items, bytes);
            if segment.is_read() {
                taken.lost = take(&mut segment.unread);
            }
        }
        self.recount();
        self.prune();
        taken
    }

    /// Notes that records in memory are settled.
    pub fn settle(&mut self, records: &Range<u64>) {
        let mut end = u64::MAX;
        for segment in self.segments.iter_mut().rev() {
            let first = records.start.max(segment.name.first);
            let here = records.end.min(end).saturating_sub(first);
            segment.live = segment.live.saturating_sub(here);
            end = segment.name.first;
            if end <= records.start {
                break;
            }
        }
        let begin = self
            .pending
            .partition_point(|record| record.sequence < records.start);
        let pending = self.pending.iter_mut().skip(begin);
        for record in pending.take_while(|record| record.sequence < records.end) {
            record.settled = true;
        }
    }

    /// Deletes settled segments.
    pub fn prune(&mut self) {
        self.due.prune = true;
    }

    /// The sequence of the first record that is only on disk.
    pub fn first_unread(&self) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| !segment.is_read())?;
        Some(segment.scan.expected().max(segment.skip_below))
    }

    /// Whether the records of these sequences can be kept on disk alone from now on: they are there, this process
    /// wrote them, and so are all later ones.
    pub fn can_forget(&self, records: &Range<u64>) -> bool {
        let are_last = records.end == self.first_unread().unwrap_or(self.next);
        let segment = self.segment_of(records.start);
        are_last
            && records.end <= self.written_below()
            && segment.is_some_and(|segment| !segment.leftover)
    }

    /// Notes that records are not in memory any more: all from the first of these on. Only valid if
    /// [`Self::can_forget`], and no read is under way. What precedes them in their segment is read and skipped.
    pub fn forget(&mut self, records: impl IntoIterator<Item = (Position, u64, usize)>) {
        let mut first = None;
        for (Position { sequence }, items, bytes) in records {
            let first = *first.get_or_insert(sequence);
            let mut segments = self.segments.iter_mut().rev();
            let Some(segment) = segments.find(|segment| segment.name.first <= sequence) else {
                continue;
            };
            segment.live = segment.live.saturating_sub(1);
            segment.unread.0 += items;
            segment.unread.1 += bytes;
            segment.read_again(first);
        }
        self.recount();
    }

    /// Keeps in memory, from now on, every record that is not known to be on disk. It is written all the same.
    pub fn recall(&mut self) {
        let mut is_new = false;
        for record in self.pending.iter_mut().filter(|record| !record.in_memory) {
            record.in_memory = true;
            is_new = true;
            let mut segments = self.segments.iter_mut().rev();
            let segment = segments.find(|segment| segment.name.first <= record.sequence);
            if let Some(segment) = segment {
                segment.recall(record);
            }
        }
        if is_new {
            self.seal();
        }
    }

    /// Marks every record below `settled` as settled. A failed write of the mark only costs duplicates after
    /// a crash.
    pub fn mark(&mut self, settled: u64) {
        self.settled = self.settled.max(settled);
        self.due.mark = Some(self.settled).filter(|settled| *settled > self.mark.1);
    }

    /// Tests whether the files are still there, retries deletions that failed, and closes and deletes files if
    /// every record is settled and none has arrived since the last call.
    pub fn rest(&mut self) {
        let idle = self.next_at_rest == self.next;
        self.next_at_rest = self.next;
        if idle && self.segments.iter().all(Segment::is_settled) {
            self.seal();
            self.due.close = true;
        }
        self.prune();
        self.due.check = true;
    }

    /// Items and payload bytes of this process that are only on disk, or are to be.
    pub fn unread(&self) -> (u64, usize) {
        self.segments
            .iter()
            .fold((0, 0), |(items, bytes), segment| {
                (items + segment.unread.0, bytes + segment.unread.1)
            })
    }
}

pub(crate) fn new_name(first: u64) -> SegmentName {
    SegmentName {
        first,
        salt: fastrand::u32(..),
        plain_length: None,
    }
}
