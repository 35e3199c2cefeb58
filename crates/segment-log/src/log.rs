//! One log: appends to the newest segment, and deletes segments once all their records are settled.
//!
//! A process never appends to a segment of an earlier one, so it need not repair an unfinished write; the
//! reader skips it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::LogError;
use crate::files::{self, identity, write_both};
use crate::mark::mark;
use crate::name::SegmentName;
use crate::read::{Chunk, ReadJob};
use crate::record::{HEADER, header};
use crate::scan::SegmentScan;

/// The sizes and guarantees of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// The log starts another segment at this size.
    pub segment: u64,
    /// The maximum size of all segments together.
    pub total: u64,
    /// Whether the caller syncs appended records.
    pub fsync: bool,
    /// The mode of new directories.
    pub directory_mode: u32,
}

/// The position of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The first sequence of its segment.
    pub segment: u64,
    /// Its sequence.
    pub sequence: u64,
}

/// The files to sync before records up to a sequence survive a loss of power.
#[derive(Debug)]
pub struct Unsynced {
    files: Vec<Arc<File>>,
    /// The log's directory.
    pub directory: PathBuf,
    new_file: bool,
    /// The sync covers every record below this sequence.
    pub below: u64,
}

impl Unsynced {
    /// Syncs the files; blocks.
    pub fn sync(&self) -> io::Result<()> {
        for file in &self.files {
            file.sync_data()?;
        }
        if self.new_file {
            File::open(&self.directory)?.sync_all()?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Segment {
    name: SegmentName,
    /// The length of whole records, or of a file of an earlier process.
    length: u64,
    /// The end of the part that needs no reading.
    read_to: u64,
    scan: SegmentScan,
    /// Unsettled records in memory.
    live: u64,
    /// Items and payload bytes of this process that are only on disk.
    unread: (u64, usize),
    /// Whether an earlier process wrote the segment.
    leftover: bool,
}

impl Segment {
    fn new(name: SegmentName, length: u64, leftover: bool) -> Self {
        Self {
            name,
            length,
            read_to: 0,
            scan: SegmentScan::new(name.salt, name.first),
            live: 0,
            unread: (0, 0),
            leftover,
        }
    }

    fn is_read(&self) -> bool {
        self.read_to == self.length
    }
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
    directory: PathBuf,
    /// Device and inode of the directory at the time of opening.
    identity: (u64, u64),
    limits: LogLimits,
    segments: VecDeque<Segment>,
    /// The last segment, while it is open for appending.
    writer: Option<Arc<File>>,
    /// The sequence of the next record.
    next: u64,
    /// The generation and content of the mark on disk.
    mark: (u64, u64),
    mark_file: Option<File>,
    unsynced: Vec<Arc<File>>,
    new_file: bool,
    synced_below: u64,
    /// Unread bytes of earlier processes.
    leftover: u64,
    /// The value of `next` at the last call of [`Log::rest`].
    next_at_rest: u64,
    /// Foreign files in the directory, which the log leaves alone.
    pub foreign: Vec<String>,
}

impl Log {
    /// Opens the log of a directory; creates the directory if it is missing. Does not read records of earlier
    /// processes yet, so it is fast however many there are.
    pub fn open(directory: &Path, limits: LogLimits) -> Result<Self, LogError> {
        let failed = |source| LogError::io(directory, source);
        files::make_directory(directory, limits.directory_mode).map_err(failed)?;
        let identity = identity(&fs::metadata(directory).map_err(failed)?);
        let (found, foreign) = files::list(directory).map_err(failed)?;
        let mark = files::read_mark(directory);
        // Every record has a header, so this is beyond the last record.
        let beyond = |(name, length): &(SegmentName, u64)| name.first + length / HEADER as u64 + 1;
        let next = found.last().map_or(1, beyond).max(mark.1).max(1);
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
        let leftover = segments.iter().map(|s| s.length - s.read_to).sum();
        let mut log = Self {
            directory: directory.to_owned(),
            identity,
            limits,
            segments,
            writer: None,
            next,
            mark,
            mark_file: None,
            unsynced: Vec::new(),
            new_file: false,
            synced_below: next,
            leftover,
            next_at_rest: next,
            foreign,
        };
        log.prune();
        Ok(log)
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

    /// The sequence of the next record.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// The size limit of all files together, in bytes; `u64::MAX` means none.
    pub fn size_limit(&self) -> u64 {
        self.limits.total
    }

    /// Whether a record of `bytes` fits into the size limit.
    pub fn has_room(&mut self, bytes: usize) -> bool {
        let fits = |log: &Self| {
            let taken: u64 = log.segments.iter().map(|segment| segment.length).sum();
            taken + (HEADER + bytes) as u64 <= log.limits.total
        };
        if self.limits.total == u64::MAX || fits(self) {
            return true;
        }
        // The current segment may hold only settled records.
        let settled = |segment: &Segment| segment.live == 0 && segment.is_read();
        if self.writer.is_some() && self.segments.back().is_some_and(settled) {
            self.seal();
        }
        fits(self)
    }

    /// Continues at `sequence` or later.
    pub fn begin_at(&mut self, sequence: u64) {
        self.next = self.next.max(sequence);
        self.synced_below = self.next;
    }

    /// Appends a record. With `in_memory` the caller keeps the record and the log need not read it back;
    /// only valid while [`Self::is_read`].
    pub fn append(
        &mut self,
        items: u32,
        payload: &[u8],
        in_memory: bool,
    ) -> Result<Position, LogError> {
        self.roll()?;
        let Some((writer, segment)) = self.writer.as_ref().zip(self.segments.back_mut()) else {
            return Err(LogError::Vanished(self.directory.clone()));
        };
        let sequence = self.next;
        let header = header(segment.name.salt, sequence, items, payload);
        let written = match header {
            Some(header) => write_both(writer, &header, payload),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        if let Err(source) = written {
            let path = self.directory.join(segment.name.to_string());
            // If this fails too, the reader skips the remainder.
            let _ = writer.set_len(segment.length);
            self.seal();
            return Err(LogError::io(path, source));
        }
        segment.length += (HEADER + payload.len()) as u64;
        if in_memory {
            segment.read_to = segment.length;
            segment.scan = SegmentScan::new(segment.name.salt, sequence + 1);
            segment.live += 1;
        } else {
            segment.unread.0 += u64::from(items);
            segment.unread.1 += payload.len();
        }
        self.next += 1;
        Ok(Position {
            segment: segment.name.first,
            sequence,
        })
    }

    /// Tests whether a disk that failed takes data again.
    pub fn probe(&self) -> Result<(), LogError> {
        files::probe(&self.directory)
    }

    /// Makes sure that there is a segment to append to.
    fn roll(&mut self) -> Result<(), LogError> {
        if self.writer.is_some() {
            let length = self.segments.back().map_or(0, |segment| segment.length);
            if length < self.limits.segment {
                return Ok(());
            }
            self.seal();
        }
        let name = SegmentName {
            first: self.next,
            salt: fastrand::u32(..),
        };
        let path = self.directory.join(name.to_string());
        let file = files::to_write()
            .create_new(true)
            .open(&path)
            .map_err(|source| LogError::io(path, source))?;
        let file = Arc::new(file);
        if self.limits.fsync {
            self.unsynced.push(Arc::clone(&file));
            self.new_file = true;
        }
        self.writer = Some(file);
        self.segments.push_back(Segment::new(name, 0, false));
        Ok(())
    }

    /// Ends the current segment; the next record starts another.
    pub fn seal(&mut self) {
        self.writer = None;
        self.prune();
    }

    /// The next part to read, of about `most` bytes.
    pub fn read_job(&self, most: usize) -> Option<ReadJob> {
        let segment = self.segments.iter().find(|segment| !segment.is_read())?;
        Some(ReadJob {
            path: self.directory.join(segment.name.to_string()),
            segment: segment.name.first,
            from: segment.read_to,
            until: segment.length,
            scan: segment.scan.clone(),
            settled_below: self.mark.1,
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
        let read_to = chunk.read_to.clamp(segment.read_to, segment.length);
        if segment.leftover {
            self.leftover -= read_to - segment.read_to;
        }
        segment.read_to = read_to;
        segment.scan = chunk.scan.clone();
        segment.live += chunk.records.len() as u64;
        if !segment.leftover {
            let (items, bytes) = chunk.sum();
            segment.unread.0 = segment.unread.0.saturating_sub(items);
            segment.unread.1 = segment.unread.1.saturating_sub(bytes);
            if segment.is_read() {
                taken.lost = std::mem::take(&mut segment.unread);
            }
        }
        self.prune();
        taken
    }

    /// Notes that records of a segment are settled.
    pub fn settle(&mut self, segment: u64, records: u64) {
        let found = self
            .segments
            .iter_mut()
            .find(|candidate| candidate.name.first == segment);
        if let Some(segment) = found {
            segment.live = segment.live.saturating_sub(records);
        }
    }

    /// Deletes settled segments; a later call retries failed deletions.
    pub fn prune(&mut self) {
        let writing = self.writer.is_some();
        let last = self.segments.len().saturating_sub(1);
        let mut index = 0;
        let directory = &self.directory;
        self.segments.retain(|segment| {
            let current = writing && index == last;
            index += 1;
            if current || segment.live > 0 || !segment.is_read() {
                return true;
            }
            match fs::remove_file(directory.join(segment.name.to_string())) {
                Ok(()) => false,
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            }
        });
    }

    /// The sequence of the first record that is only on disk.
    pub fn first_unread(&self) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| !segment.is_read())?;
        Some(segment.scan.expected())
    }

    /// Marks every record below `settled` as settled. A failed write of the mark only costs duplicates after
    /// a crash.
    pub fn mark(&mut self, settled: u64) {
        if settled <= self.mark.1 {
            return;
        }
        if self.mark_file.is_none() {
            self.mark_file = files::open_or_create(&files::mark_path(&self.directory)).ok();
        }
        let (bytes, offset) = mark(self.mark.0 + 1, settled);
        if let Some(file) = &self.mark_file
            && file.write_all_at(&bytes, offset).is_ok()
        {
            self.mark = (self.mark.0 + 1, settled);
        }
    }

    /// Closes and deletes files if every record is settled and none has arrived since the last call.
    pub fn rest(&mut self) {
        let idle = self.next_at_rest == self.next;
        self.next_at_rest = self.next;
        if idle && self.segments.iter().all(|s| s.live == 0 && s.is_read()) {
            self.seal();
            self.mark_file = None;
            if self.synced_below == self.next {
                self.unsynced.clear();
            }
        }
        self.prune();
    }

    /// The files to sync now; `None` if nothing is unsynced.
    pub fn unsynced(&mut self) -> Option<Unsynced> {
        if self.synced_below == self.next {
            return None;
        }
        let mut files = std::mem::take(&mut self.unsynced);
        if let Some(writer) = &self.writer {
            self.unsynced.push(Arc::clone(writer));
            if !files.iter().any(|file| Arc::ptr_eq(file, writer)) {
                files.push(Arc::clone(writer));
            }
        }
        self.synced_below = self.next;
        Some(Unsynced {
            files,
            directory: self.directory.clone(),
            new_file: std::mem::take(&mut self.new_file),
            below: self.next,
        })
    }

    /// Whether the directory and the current segment still exist.
    pub fn exists(&self) -> bool {
        let directory = fs::metadata(&self.directory)
            .is_ok_and(|metadata| identity(&metadata) == self.identity);
        directory
            && self
                .writer
                .as_ref()
                .is_none_or(|writer| writer.metadata().is_ok_and(|metadata| metadata.nlink() > 0))
    }

    /// Items and payload bytes of this process that are only on disk.
    pub fn unread(&self) -> (u64, usize) {
        self.segments
            .iter()
            .fold((0, 0), |(items, bytes), segment| {
                (items + segment.unread.0, bytes + segment.unread.1)
            })
    }
}
