//! Reads records back in chunks, without holding a lock on the log.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::files;
use crate::name::SegmentName;
use crate::scan::{Damage, SegmentScan};

/// A part of a segment to read.
#[derive(Debug)]
pub struct ReadJob {
    pub(crate) path: PathBuf,
    pub(crate) segment: u64,
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) scan: SegmentScan,
    pub(crate) settled_below: u64,
    pub(crate) most: usize,
}

/// A record that was read back.
#[derive(Debug)]
pub struct StoredRecord {
    /// Its sequence in the log.
    pub sequence: u64,
    /// The number of items in it.
    pub items: u32,
    /// The appended bytes.
    pub payload: Bytes,
}

/// The result of a read.
#[derive(Debug)]
pub struct Chunk {
    pub(crate) segment: u64,
    pub(crate) read_to: u64,
    pub(crate) scan: SegmentScan,
    /// The unsettled records, in order.
    pub records: Vec<StoredRecord>,
    /// The damage that the read skipped.
    pub damage: Damage,
    /// Why the rest of the segment is unreadable.
    pub failed: Option<(PathBuf, io::Error)>,
}

impl Chunk {
    /// The first sequence of the segment.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// The items and payload bytes of all records.
    pub fn sum(&self) -> (u64, usize) {
        self.records.iter().fold((0, 0), |(items, bytes), record| {
            (
                items + u64::from(record.items),
                bytes + record.payload.len(),
            )
        })
    }
}

impl ReadJob {
    /// The unread bytes of the segment.
    pub fn bytes(&self) -> u64 {
        self.until - self.from
    }

    /// Reads the chunk; blocks.
    pub fn run(self) -> Chunk {
        let mut chunk = Chunk {
            segment: self.segment,
            read_to: self.from,
            scan: self.scan,
            records: Vec::new(),
            damage: Damage::default(),
            failed: None,
        };
        let before = chunk.scan.damage();
        let left = self.until - self.from;
        let read = File::open(&self.path).and_then(|file| {
            read_records(&file, self.until, self.most, self.settled_below, &mut chunk)
        });
        let after = chunk.scan.damage();
        chunk.damage = Damage {
            records: after.records - before.records,
            bytes: after.bytes - before.bytes,
        };
        if let Err(error) = read {
            // The unreadable rest holds at least one record.
            chunk.damage.records += 1;
            chunk.damage.bytes += left - (chunk.read_to - self.from);
            chunk.read_to = self.until;
            chunk.failed = Some((self.path, error));
        }
        chunk
    }
}

/// Reads about `most` bytes after the chunk, and at least one record if there is one.
fn read_records(
    file: &File,
    until: u64,
    most: usize,
    settled_below: u64,
    chunk: &mut Chunk,
) -> io::Result<()> {
    let mut wanted = most;
    while chunk.read_to < until && chunk.records.is_empty() {
        let left = usize::try_from(until - chunk.read_to).unwrap_or(usize::MAX);
        let mut buffer = vec![0; left.min(wanted)];
        file.read_exact_at(&mut buffer, chunk.read_to)?;
        let (records, scan) = (&mut chunk.records, &mut chunk.scan);
        let (used, needed) = scan.read(&buffer, buffer.len() == left, |record| {
            if record.sequence >= settled_below {
                records.push(StoredRecord {
                    sequence: record.sequence,
                    items: record.items,
                    payload: Bytes::copy_from_slice(record.payload),
                });
            }
        });
        chunk.read_to += used as u64;
        wanted = most.max(needed);
    }
    Ok(())
}

/// A segment of a process that has ended.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
    name: SegmentName,
    length: u64,
    settled_below: u64,
}

/// The segments in a log's directory, oldest first; the caller holds the slot.
pub fn leftovers(directory: &Path) -> io::Result<Vec<Leftover>> {
    let (segments, _) = match files::list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let (_, settled_below) = files::read_mark(directory);
    Ok(segments
        .into_iter()
        .map(|(name, length)| Leftover {
            path: directory.join(name.to_string()),
            name,
            length,
            settled_below,
        })
        .collect())
}

impl Leftover {
    /// The first part to read.
    pub fn first_job(&self, most: usize) -> ReadJob {
        self.job(0, SegmentScan::new(self.name.salt, self.name.first), most)
    }

    /// The part after `chunk`, if there is one.
    pub fn job_after(&self, chunk: &Chunk, most: usize) -> Option<ReadJob> {
        let more = chunk.read_to < self.length;
        more.then(|| self.job(chunk.read_to, chunk.scan.clone(), most))
    }

    fn job(&self, from: u64, scan: SegmentScan, most: usize) -> ReadJob {
        ReadJob {
            path: self.path.clone(),
            segment: self.name.first,
            from,
            until: self.length,
            scan,
            settled_below: self.settled_below,
            most,
        }
    }

    /// Deletes the segment; its records are stored elsewhere.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
