//! Does the work of a log on disk. Every call may wait for the disk as long as the disk likes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use bytes::Bytes;

use crate::error::LogError;
use crate::files::{self, identity};
use crate::mark::mark;
use crate::name::SegmentName;
use crate::record::{HEADER, header};

/// Smaller payloads are written together with others.
const WRITE_ALONE: usize = 32 * 1024;

/// A record that is not known to be on disk.
#[derive(Clone, Debug)]
pub(crate) struct NewRecord {
    pub(crate) sequence: u64,
    pub(crate) items: u32,
    pub(crate) payload: Bytes,
    /// Whether the log's owner keeps it in memory.
    pub(crate) in_memory: bool,
    pub(crate) settled: bool,
}

impl NewRecord {
    /// The bytes it takes on disk.
    pub(crate) fn length(&self) -> u64 {
        (HEADER + self.payload.len()) as u64
    }
}

/// Records to write one after the other.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) name: SegmentName,
    /// The offset of the first.
    pub(crate) at: u64,
    pub(crate) records: Vec<NewRecord>,
}

impl Append {
    /// The offset after the first `records`.
    pub(crate) fn end_of(&self, records: usize) -> u64 {
        let lengths = self.records.iter().take(records).map(NewRecord::length);
        self.at + lengths.sum::<u64>()
    }
}

/// What the disk is to do.
#[derive(Debug)]
pub struct Work {
    pub(crate) directory: PathBuf,
    /// Test whether this is still the directory, and the segment still in it.
    pub(crate) identity: Option<(u64, u64)>,
    /// Test whether the disk takes data, before anything is appended.
    pub(crate) is_probe: bool,
    pub(crate) delete: Vec<SegmentName>,
    /// Files to delete that may not exist.
    pub(crate) broken: Vec<PathBuf>,
    pub(crate) mark: Option<(u64, u64)>,
    pub(crate) append: Option<Append>,
    pub(crate) sync: bool,
    pub(crate) close: bool,
}

impl Work {
    pub(crate) fn is_empty(&self) -> bool {
        let has_files = self.identity.is_some() || !self.delete.is_empty();
        let writes = self.is_probe || self.mark.is_some() || self.append.is_some();
        !has_files && !writes && self.broken.is_empty() && !self.close
    }
}

/// What has become of [`Work`].
#[derive(Debug, Default)]
pub struct Outcome {
    pub(crate) deleted: Vec<SegmentName>,
    pub(crate) is_marked: bool,
    /// The number of records that are on disk, the first ones.
    pub(crate) written: usize,
    /// Why the other records are not on disk, or not known to be.
    pub error: Option<LogError>,
}

/// The open files of one log, for the thread that writes it.
#[derive(Debug, Default)]
pub struct Writer {
    segment: Option<(SegmentName, File)>,
    mark_file: Option<File>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Does some work; blocks. Deletions and marks that fail are no failure.
    pub fn run(&mut self, work: &Work) -> Outcome {
        let mut outcome = Outcome::default();
        if work.identity.is_some_and(|of| !self.exists(work, of)) {
            outcome.error = Some(LogError::Vanished(work.directory.clone()));
            return outcome;
        }
        for path in &work.broken {
            let _ = fs::remove_file(path);
        }
        for name in &work.delete {
            self.segment.take_if(|(open, _)| open == name);
            match fs::remove_file(work.directory.join(name.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                _ => outcome.deleted.push(*name),
            }
        }
        if let Some(marked) = work.mark {
            outcome.is_marked = self.mark(work, marked).is_ok();
        }
        outcome.error = self.write(work, &mut outcome.written).err();
        if work.close {
            *self = Self::default();
        }
        outcome
    }

    fn write(&mut self, work: &Work, written: &mut usize) -> Result<(), LogError> {
        if work.is_probe {
            files::probe(&work.directory)?;
        }
        let Some(append) = &work.append else {
            return Ok(());
        };
        let path = work.directory.join(append.name.to_string());
        let failed = |source| LogError::io(&path, source);
        let is_open = |(name, _): &mut (SegmentName, File)| *name == append.name;
        let (file, is_new) = match self.segment.take_if(is_open) {
            Some((_, file)) => (file, false),
            None => (files::open_or_create(&path).map_err(failed)?, true),
        };
        let appended = self.append(&file, append, written);
        if appended.is_err() {
            // The reader skips an unfinished record.
            let _ = file.set_len(append.end_of(*written));
        }
        if work.sync && *written > 0 {
            let synced = file.sync_data().and_then(|()| {
                if is_new {
                    files::sync_directory(&work.directory)
                } else {
                    Ok(())
                }
            });
            // After a failed sync nothing is known about what is on disk (fsync(2)).
            synced.inspect_err(|_| *written = 0).map_err(failed)?;
        }
        appended.map_err(failed)?;
        self.segment = Some((append.name, file));
        Ok(())
    }

    /// Notes the number of whole records that are written.
    fn append(&mut self, file: &File, append: &Append, written: &mut usize) -> io::Result<()> {
        let mut at = append.at;
        let mut write = |bytes: &[u8]| {
            file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
            io::Result::Ok(())
        };
        self.buffer.clear();
        for (index, record) in append.records.iter().enumerate() {
            let (salt, payload) = (append.name.salt, &record.payload);
            let header = header(salt, record.sequence, record.items, payload);
            self.buffer
                .extend(header.ok_or(io::ErrorKind::InvalidInput)?);
            let is_large = payload.len() >= WRITE_ALONE;
            if !is_large {
                self.buffer.extend_from_slice(payload);
            }
            let is_last = index + 1 == append.records.len();
            if is_large || is_last || self.buffer.len() >= WRITE_ALONE {
                write(&self.buffer)?;
                self.buffer.clear();
                if is_large {
                    write(payload)?;
                }
                *written = index + 1;
            }
        }
        Ok(())
    }

    fn mark(&mut self, work: &Work, (generation, settled): (u64, u64)) -> io::Result<()> {
        let file = match self.mark_file.take() {
            Some(file) => file,
            None => files::open_or_create(&files::mark_path(&work.directory))?,
        };
        let (bytes, offset) = mark(generation, settled);
        self.mark_file.insert(file).write_all_at(&bytes, offset)
    }

    fn exists(&self, work: &Work, of: (u64, u64)) -> bool {
        let is_same = |metadata: fs::Metadata| identity(&metadata) == of;
        let is_linked = |metadata: fs::Metadata| metadata.nlink() > 0;
        fs::metadata(&work.directory).is_ok_and(is_same)
            && self
                .segment
                .as_ref()
                .is_none_or(|(_, file)| file.metadata().is_ok_and(is_linked))
    }
}
