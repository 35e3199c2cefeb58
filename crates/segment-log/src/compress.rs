//! Compresses segments that wait behind others, so that more telemetry fits on the disk. What leaves soon is not
//! worth the time.
//!
//! At any moment one file holds the segment for sure: the file as it was is deleted only after the compressed one is
//! complete under its own name and the log reads from it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::block::{BLOCK, BlockWriter, COMPRESSOR};
use crate::files;
use crate::log::Log;
use crate::name::SegmentName;
use crate::read::Grant;
use crate::record::HEADER;
use crate::scan::{Damage, Record, SegmentScan};
use crate::segment::Segment;

/// A smaller segment is not worth a file's change.
const SMALLEST: u64 = 16 * 1024;

/// The bytes that are read at once, unless a record is larger.
const PIECE: usize = 2 * BLOCK;

/// The pause after a block, in times of what the block took: others need the processor more.
const PAUSE: u32 = 4;

/// The longest pause, since a disk may take any time.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A segment to compress.
#[derive(Clone, Debug)]
pub struct CompressJob {
    directory: PathBuf,
    name: SegmentName,
    length: u64,
    /// The largest file that is worth it.
    most: u64,
    sync: bool,
}

/// What has become of a [`CompressJob`].
#[derive(Debug)]
pub enum Compressed {
    /// The segment is in this file, too, with this length.
    Done(SegmentName, u64),
    /// It would not become much smaller, or it is damaged.
    Useless,
    /// There is no memory for it now.
    Refused,
}

impl Compressed {
    /// The new file.
    pub fn file(&self) -> Option<SegmentName> {
        match self {
            Self::Done(name, _) => Some(*name),
            Self::Useless | Self::Refused => None,
        }
    }
}

impl CompressJob {
    /// Compresses the segment; blocks, and takes its time.
    ///
    /// # Errors
    /// If the disk fails; nothing is left of it then, if the disk allows.
    pub fn run(&self, grant: Grant<'_>) -> io::Result<Compressed> {
        let temporary = files::compressing_path(&self.directory);
        let done = self.compress(grant, &temporary);
        if !matches!(done, Ok(Compressed::Done(..))) {
            let _ = fs::remove_file(&temporary);
        }
        done
    }

    fn compress(&self, grant: Grant<'_>, temporary: &Path) -> io::Result<Compressed> {
        if !grant(COMPRESSOR + 2 * PIECE + 2 * BLOCK) {
            return Ok(Compressed::Refused);
        }
        let source = File::open(self.path(self.name))?;
        let mut copy = CompressedFile {
            writer: BlockWriter::new(self.name.salt)?,
            file: files::to_write()
                .create(true)
                .truncate(true)
                .open(temporary)?,
            length: 0,
            most: self.most,
            failed: None,
        };
        let is_whole = match self.copy(&source, &mut copy, grant)? {
            Copied::Whole => copy.flush()?,
            Copied::Useless => false,
            Copied::Refused => return Ok(Compressed::Refused),
        };
        if !is_whole {
            return Ok(Compressed::Useless);
        }
        let name = SegmentName {
            plain_length: Some(self.length),
            ..self.name
        };
        if self.sync {
            copy.file.sync_data()?;
        }
        fs::rename(temporary, self.path(name))?;
        if self.sync {
            files::sync_directory(&self.directory).inspect_err(|_| self.remove(name))?;
        }
        Ok(Compressed::Done(name, copy.length))
    }

    fn copy(
        &self,
        source: &File,
        copy: &mut CompressedFile,
        grant: Grant<'_>,
    ) -> io::Result<Copied> {
        let mut scan = SegmentScan::new(self.name);
        let (mut at, mut wanted, mut granted) = (0, PIECE, PIECE);
        while at < self.length {
            let left = usize::try_from(self.length - at).unwrap_or(usize::MAX);
            let length = left.min(wanted);
            if length > granted {
                // As it is, in a block and compressed.
                if !grant(3 * (length - granted)) {
                    return Ok(Copied::Refused);
                }
                granted = length;
            }
            let mut buffer = vec![0; length];
            source.read_exact_at(&mut buffer, at)?;
            let take = |record| copy.take(record);
            let (used, needed) = scan.read(&buffer, length == left, take);
            if let Some(error) = copy.failed.take() {
                return Err(error);
            }
            if scan.damage() != Damage::default() || copy.length > self.most {
                return Ok(Copied::Useless);
            }
            at += used as u64;
            wanted = PIECE.max(needed);
        }
        Ok(Copied::Whole)
    }

    fn path(&self, name: SegmentName) -> PathBuf {
        self.directory.join(name.to_string())
    }

    /// Deletes the file that the log does not use, once it has decided.
    pub fn remove(&self, name: SegmentName) {
        let _ = fs::remove_file(self.path(name));
    }
}

/// How far a segment was copied.
enum Copied {
    Whole,
    Useless,
    Refused,
}

/// The compressed file.
struct CompressedFile {
    writer: BlockWriter,
    file: File,
    length: u64,
    most: u64,
    failed: Option<io::Error>,
}

impl CompressedFile {
    /// Takes a record; `false` if writing fails or is not worth it.
    fn take(&mut self, record: Record<'_>) -> bool {
        let length = self.writer.plain_length();
        let is_full = length > 0 && length + record.payload.len() > BLOCK;
        let written = if is_full { self.flush() } else { Ok(true) };
        let taken = written.and_then(|fits| self.writer.add(&record).map(|()| fits));
        taken.unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }

    /// Writes the block; returns whether the file is not too large yet.
    fn flush(&mut self) -> io::Result<bool> {
        if self.writer.plain_length() == 0 {
            return Ok(self.length > 0);
        }
        let begin = Instant::now();
        let (header, frame) = self.writer.finish()?;
        self.file.write_all(&header)?;
        self.file.write_all(&frame)?;
        self.length += (HEADER + frame.len()) as u64;
        sleep((begin.elapsed().saturating_mul(PAUSE)).min(LONGEST_PAUSE));
        Ok(self.length <= self.most)
    }
}

impl Log {
    /// The next segment to compress: not one that is needed soon, which are the first `soon` with something to read.
    /// [`Self::compressed`] must follow.
    pub fn compress_job(&mut self, soon: usize) -> Option<CompressJob> {
        let written = |segment: &Segment| segment.written > 0;
        // The thread that writes still has the last segment open.
        let behind = self.segments.iter().skip(1).map(written).chain([false]);
        let waiting = self.segments.iter().zip(behind);
        let waiting = waiting.filter(|(segment, _)| !segment.is_read()).skip(soon);
        let mut fit = waiting.filter(|(segment, has_later)| *has_later && segment.is_fit());
        let name = fit.next()?.0.name;
        let free = self.limits.total.saturating_sub(self.size());
        let segment = self.segments.iter_mut().find(|of| of.name == name)?;
        let most = segment.length / 4 * 3;
        if free < most {
            return None;
        }
        segment.is_compressing = true;
        self.compressing = most;
        Some(CompressJob {
            directory: self.directory.clone(),
            name,
            length: segment.length,
            most,
            sync: self.limits.fsync,
        })
    }

    /// Notes what has become of a segment. Returns the file that is to be deleted now.
    /// With `is_reading` a part of the first unread segment is being read.
    pub fn compressed(
        &mut self,
        job: &CompressJob,
        outcome: &io::Result<Compressed>,
        is_reading: bool,
    ) -> Option<SegmentName> {
        self.compressing = 0;
        self.prune();
        let first = self.segments.iter().find(|segment| !segment.is_read());
        let is_in_use = is_reading && first.is_some_and(|first| first.name == job.name);
        let segment = self.segments.iter_mut().find(|of| of.name == job.name);
        let unneeded = outcome.as_ref().ok().and_then(Compressed::file);
        let Some(segment) = segment else {
            return unneeded;
        };
        segment.is_compressing = false;
        match outcome {
            Ok(Compressed::Done(name, length)) if !is_in_use && segment.is_untouched() => {
                segment.replace(*name, *length);
                self.recount();
                Some(job.name)
            }
            Ok(Compressed::Refused) => None,
            _ => {
                segment.stays_plain = true;
                unneeded
            }
        }
    }
}

impl Segment {
    /// Whether it can be compressed.
    fn is_fit(&self) -> bool {
        let is_plain = self.name.plain_length.is_none() && !self.stays_plain;
        is_plain && self.is_untouched() && self.length >= SMALLEST
    }

    /// Is in another file from now on.
    fn replace(&mut self, name: SegmentName, length: u64) {
        self.name = name;
        self.length = length;
        self.written = length;
        self.unread_to = length;
        self.scan = SegmentScan::new(name);
    }
}
