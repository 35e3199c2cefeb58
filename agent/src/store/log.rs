//! The log of one lane: records are appended to the newest segment, and segments are deleted whole once
//! everything in them is settled. Must not know lanes.
//!
//! A segment of an earlier process is never appended to: what its last write left behind need not be
//! repaired, only passed over.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;
use super::files::{self, identity, write_both};
use super::read::{Chunk, Job};
use crate::segment::{HEADER, Name, Scan, header, mark};

/// Sizes and promises of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A segment this large is followed by another.
    pub(crate) segment: u64,
    /// Bytes all segments may take.
    pub(crate) total: u64,
    /// Appended records are to be synced by the caller.
    pub(crate) fsync: bool,
    /// Mode of directories.
    pub(crate) directory_mode: u32,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its segment, by first sequence.
    pub(crate) segment: u64,
    /// Its sequence.
    pub(crate) sequence: u64,
}

/// What has to be synced before records up to a mark are safe from a loss of power.
#[derive(Debug)]
pub(crate) struct Unsynced {
    files: Vec<Arc<File>>,
    /// The log's directory, and whether it has a new entry.
    pub(crate) directory: PathBuf,
    new_file: bool,
    /// Everything below this sequence is covered.
    pub(crate) below: u64,
}

impl Unsynced {
    /// Syncs. Blocks.
    pub(crate) fn sync(&self) -> io::Result<()> {
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
    name: Name,
    /// Bytes of whole records, or of a file another process has left.
    length: u64,
    /// What has been read, or never has to be.
    read_to: u64,
    scan: Scan,
    /// Records held in memory and not settled.
    live: u64,
    /// Items and payload bytes of this process that are on disk only.
    unread: (u64, usize),
    /// Appended by an earlier process.
    leftover: bool,
}

impl Segment {
    fn is_read(&self) -> bool {
        self.read_to == self.length
    }
}

/// What became of a chunk that was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// It came from an earlier process.
    pub(crate) leftover: bool,
    /// Items and payload bytes this process has appended and that cannot be read.
    pub(crate) lost: (u64, usize),
}

/// One lane's records on disk.
#[derive(Debug)]
pub(crate) struct Log {
    directory: PathBuf,
    /// Device and inode of the directory when it was opened.
    identity: (u64, u64),
    limits: Limits,
    segments: VecDeque<Segment>,
    /// Appends to the last segment.
    writer: Option<Arc<File>>,
    /// Sequence of the next record.
    next: u64,
    /// Generation and content of the mark on disk.
    mark: (u64, u64),
    mark_file: Option<File>,
    unsynced: Vec<Arc<File>>,
    new_file: bool,
    synced_below: u64,
    /// Bytes earlier processes have left and that are not read yet.
    leftover: u64,
    /// `next` at the last look for idleness.
    looked_at: u64,
    /// Files in the directory that are not ours to touch.
    pub(crate) foreign: Vec<String>,
}

impl Log {
    /// Opens the log of a directory, which is made if it is missing. What an earlier process has left is
    /// not looked into yet, so that this is quick however much there is.
    pub(crate) fn open(directory: &Path, limits: Limits) -> Result<Self, StoreError> {
        let failed = |source| StoreError::io(directory, source);
        files::make_directory(directory, limits.directory_mode).map_err(failed)?;
        let identity = identity(&fs::metadata(directory).map_err(failed)?);
        let (found, foreign) = files::list(directory).map_err(failed)?;
        let mark = files::read_mark(directory);
        // Every record has a header, so this is beyond the last one.
        let beyond = |(name, length): &(Name, u64)| name.first + length / HEADER as u64 + 1;
        let next = found.last().map_or(1, beyond).max(mark.1).max(1);
        let segments: VecDeque<_> = found
            .iter()
            .enumerate()
            .map(|(index, (name, length))| {
                let after = found
                    .get(index + 1)
                    .map_or(u64::MAX, |(name, _)| name.first);
                Segment {
                    name: *name,
                    length: *length,
                    read_to: if after <= mark.1 { *length } else { 0 },
                    scan: Scan::new(name.salt, name.first),
                    live: 0,
                    unread: (0, 0),
                    leftover: true,
                }
            })
            .collect();
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
            looked_at: next,
            foreign,
        };
        log.prune();
        Ok(log)
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether everything in it is in memory, too, or settled.
    pub(crate) fn is_read(&self) -> bool {
        // What is not read is at the end, so from there it is found at once.
        self.segments.iter().rev().all(Segment::is_read)
    }

    /// Bytes of earlier processes that are not read yet.
    pub(crate) fn leftover(&self) -> u64 {
        self.leftover
    }

    /// Sequence of the next record.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Whether a record of `bytes` fits into what the files may take.
    pub(crate) fn has_room(&mut self, bytes: usize) -> bool {
        let fits = |log: &Self| {
            let taken: u64 = log.segments.iter().map(|segment| segment.length).sum();
            taken + (HEADER + bytes) as u64 <= log.limits.total
        };
        if self.limits.total == u64::MAX || fits(self) {
            return true;
        }
        // The current segment may hold nothing but what is settled.
        let settled = |segment: &Segment| segment.live == 0 && segment.is_read();
        if self.writer.is_some() && self.segments.back().is_some_and(settled) {
            self.seal();
        }
        fits(self)
    }

    /// Goes on at `sequence`, or later if it already is.
    pub(crate) fn begin_at(&mut self, sequence: u64) {
        self.next = self.next.max(sequence);
        self.synced_below = self.next;
    }

    /// Appends a record; `keep`: it is in memory, too, and need not be read again, which may be said only
    /// while [`Self::is_read`].
    pub(crate) fn append(
        &mut self,
        items: u32,
        payload: &[u8],
        keep: bool,
    ) -> Result<Place, StoreError> {
        self.roll()?;
        let Some((writer, segment)) = self.writer.as_ref().zip(self.segments.back_mut()) else {
            return Err(StoreError::Vanished(self.directory.clone()));
        };
        let sequence = self.next;
        let header = header(segment.name.salt, sequence, items, payload);
        let written = match header {
            Some(header) => write_both(writer, &header, payload),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        if let Err(source) = written {
            let path = self.directory.join(segment.name.to_string());
            // Where this fails, too, the remainder is passed over by its reader.
            let _ = writer.set_len(segment.length);
            self.seal();
            return Err(StoreError::io(path, source));
        }
        segment.length += (HEADER + payload.len()) as u64;
        if keep {
            segment.read_to = segment.length;
            segment.scan = Scan::new(segment.name.salt, sequence + 1);
            segment.live += 1;
        } else {
            segment.unread.0 += u64::from(items);
            segment.unread.1 += payload.len();
        }
        self.next += 1;
        Ok(Place {
            segment: segment.name.first,
            sequence,
        })
    }

    /// Whether the disk takes anything, after it has failed to.
    pub(crate) fn probe(&self) -> Result<(), StoreError> {
        files::probe(&self.directory)
    }

    /// A segment to append to.
    fn roll(&mut self) -> Result<(), StoreError> {
        if self.writer.is_some() {
            let length = self.segments.back().map_or(0, |segment| segment.length);
            if length < self.limits.segment {
                return Ok(());
            }
            self.seal();
        }
        let name = Name {
            first: self.next,
            salt: fastrand::u32(..),
        };
        let path = self.directory.join(name.to_string());
        let file = files::to_write()
            .create_new(true)
            .open(&path)
            .map_err(|source| StoreError::io(path, source))?;
        let file = Arc::new(file);
        if self.limits.fsync {
            self.unsynced.push(Arc::clone(&file));
            self.new_file = true;
        }
        self.writer = Some(file);
        self.segments.push_back(Segment {
            name,
            length: 0,
            read_to: 0,
            scan: Scan::new(name.salt, name.first),
            live: 0,
            unread: (0, 0),
            leftover: false,
        });
        Ok(())
    }

    /// Ends the current segment; the next record begins another.
    pub(crate) fn seal(&mut self) {
        self.writer = None;
        self.prune();
    }

    /// The next piece to be read, of about `most` bytes.
    pub(crate) fn job(&self, most: usize) -> Option<Job> {
        let segment = self.segments.iter().find(|segment| !segment.is_read())?;
        Some(Job {
            path: self.directory.join(segment.name.to_string()),
            segment: segment.name.first,
            from: segment.read_to,
            until: segment.length,
            scan: segment.scan.clone(),
            settled_below: self.mark.1,
            most,
        })
    }

    /// Takes note of what was read: its records are in memory from now on.
    pub(crate) fn taken(&mut self, chunk: &Chunk) -> Taken {
        let mut taken = Taken::default();
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

    /// Records of a segment are settled.
    pub(crate) fn settle(&mut self, segment: u64, records: u64) {
        let found = self
            .segments
            .iter_mut()
            .find(|candidate| candidate.name.first == segment);
        if let Some(segment) = found {
            segment.live = segment.live.saturating_sub(records);
        }
    }

    /// Deletes what is settled. Where a file cannot be deleted, that is tried again.
    pub(crate) fn prune(&mut self) {
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

    /// Sequence of the first record that is on disk only.
    pub(crate) fn first_unread(&self) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| !segment.is_read())?;
        Some(segment.scan.expected())
    }

    /// Everything below `settled` is settled. A mark that cannot be written costs duplicates after a
    /// crash, nothing else.
    pub(crate) fn mark(&mut self, settled: u64) {
        if settled <= self.mark.1 {
            return;
        }
        if self.mark_file.is_none() {
            self.mark_file = files::open_mark(&self.directory).ok();
        }
        let (bytes, place) = mark(self.mark.0 + 1, settled);
        if let Some(file) = &self.mark_file
            && file.write_all_at(&bytes, place).is_ok()
        {
            self.mark = (self.mark.0 + 1, settled);
        }
    }

    /// Keeps no file, and none open, while nothing is queued and nothing has arrived since the last
    /// call.
    pub(crate) fn rest(&mut self) {
        let idle = self.looked_at == self.next;
        self.looked_at = self.next;
        if idle && self.segments.iter().all(|s| s.live == 0 && s.is_read()) {
            self.seal();
            self.mark_file = None;
            if self.synced_below == self.next {
                self.unsynced.clear();
            }
        }
        self.prune();
    }

    /// What has to be synced now; `None` where everything is.
    pub(crate) fn unsynced(&mut self) -> Option<Unsynced> {
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

    /// Whether the directory and the segment being written are still where they were.
    pub(crate) fn is_there(&self) -> bool {
        let directory = fs::metadata(&self.directory)
            .is_ok_and(|metadata| identity(&metadata) == self.identity);
        directory
            && self
                .writer
                .as_ref()
                .is_none_or(|writer| writer.metadata().is_ok_and(|metadata| metadata.nlink() > 0))
    }

    /// Items and payload bytes of this process that are on disk only.
    pub(crate) fn unread(&self) -> (u64, usize) {
        self.segments
            .iter()
            .fold((0, 0), |(items, bytes), segment| {
                (items + segment.unread.0, bytes + segment.unread.1)
            })
    }
}
