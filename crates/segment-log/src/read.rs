//! Reads records back in chunks, without holding a lock on the log.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::files;
use crate::scan::{Damage, SegmentScan};

/// A part of a segment to read.
#[derive(Clone, Debug)]
pub struct ReadJob {
    pub(crate) path: PathBuf,
    pub(crate) segment: u64,
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) scan: SegmentScan,
    /// The sequences to read: not what is settled, nor what stands in a later segment once more.
    pub(crate) wanted: Range<u64>,
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
    /// The first sequence of the segment.
    pub segment: u64,
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
            scan: self.scan.clone(),
            records: Vec::new(),
            damage: Damage::default(),
            failed: None,
        };
        let read = self.read(&mut chunk);
        chunk.damage = chunk.scan.take_damage();
        if let Err(error) = read {
            // The unreadable rest holds at least one record.
            chunk.damage.records += 1;
            chunk.damage.bytes += self.until - chunk.read_to;
            chunk.read_to = self.until;
            chunk.failed = Some((self.path, error));
        }
        chunk
    }

    /// Reads about `most` bytes, and at least one record if there is one.
    fn read(&self, chunk: &mut Chunk) -> io::Result<()> {
        let file = File::open(&self.path)?;
        let mut wanted = self.most;
        while chunk.read_to < self.until && chunk.records.is_empty() {
            let left = usize::try_from(self.until - chunk.read_to).unwrap_or(usize::MAX);
            let mut buffer = vec![0; left.min(wanted)];
            file.read_exact_at(&mut buffer, chunk.read_to)?;
            let (records, scan) = (&mut chunk.records, &mut chunk.scan);
            let (used, needed) = scan.read(&buffer, buffer.len() == left, |record| {
                if self.wanted.contains(&record.sequence) {
                    records.push(StoredRecord {
                        sequence: record.sequence,
                        items: record.items,
                        payload: Bytes::copy_from_slice(record.payload),
                    });
                }
            });
            chunk.read_to += used as u64;
            wanted = self.most.max(needed);
        }
        Ok(())
    }

    /// The part after `chunk`, if there is one.
    pub fn after(&self, chunk: &Chunk) -> Option<Self> {
        let more = chunk.read_to < self.until;
        more.then(|| Self {
            from: chunk.read_to,
            scan: chunk.scan.clone(),
            ..self.clone()
        })
    }

    /// Deletes the segment; its records are stored elsewhere.
    pub fn remove_segment(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// The first parts of about `most` bytes of all segments in a log's directory, oldest first. The process that
/// wrote them has ended, and the caller holds its slot.
pub fn leftovers(directory: &Path, most: usize) -> io::Result<Vec<ReadJob>> {
    let (segments, _) = match files::list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let (_, settled_below) = files::read_mark(directory);
    let after = segments.iter().skip(1).map(|(name, _)| name.first);
    let ends: Vec<_> = after.chain([u64::MAX]).collect();
    let jobs = segments.into_iter().zip(ends);
    let jobs = jobs.map(|((name, until), end)| ReadJob {
        path: directory.join(name.to_string()),
        segment: name.first,
        from: 0,
        until,
        scan: SegmentScan::new(name.salt, name.first),
        wanted: settled_below..end,
        most,
    });
    Ok(jobs.collect())
}
