//! Reading what is on disk only: piece by piece, outside of any lock. Must not know lanes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::files;
use crate::segment::{Damage, Name, Scan};

/// A piece of a segment to be read.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) path: PathBuf,
    pub(super) segment: u64,
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) scan: Scan,
    pub(super) settled_below: u64,
    pub(super) most: usize,
}

/// A record in memory.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its place in the log it was read from.
    pub(crate) sequence: u64,
    /// Spans, data points or log records in it.
    pub(crate) items: u32,
    /// A whole request.
    pub(crate) payload: Bytes,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(super) segment: u64,
    pub(super) read_to: u64,
    pub(super) scan: Scan,
    /// What is not settled, in order.
    pub(crate) records: Vec<Stored>,
    /// What was passed over.
    pub(crate) damage: Damage,
    /// Why the rest of the segment cannot be read.
    pub(crate) failed: Option<(PathBuf, io::Error)>,
}

impl Chunk {
    /// The segment the records are in.
    pub(crate) fn segment(&self) -> u64 {
        self.segment
    }

    /// Items and payload bytes of all records.
    pub(crate) fn sum(&self) -> (u64, usize) {
        self.records.iter().fold((0, 0), |(items, bytes), record| {
            (
                items + u64::from(record.items),
                bytes + record.payload.len(),
            )
        })
    }
}

impl Job {
    /// Bytes left of its segment.
    pub(crate) fn bytes(&self) -> u64 {
        self.until - self.from
    }

    /// Reads. Blocks.
    pub(crate) fn run(self) -> Chunk {
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
        let read = File::open(&self.path)
            .and_then(|file| pieces(&file, self.until, self.most, self.settled_below, &mut chunk));
        let after = chunk.scan.damage();
        chunk.damage = Damage {
            records: after.records - before.records,
            bytes: after.bytes - before.bytes,
        };
        if let Err(error) = read {
            // The rest is unreadable; at least one record is in it.
            chunk.damage.records += 1;
            chunk.damage.bytes += left - (chunk.read_to - self.from);
            chunk.read_to = self.until;
            chunk.failed = Some((self.path, error));
        }
        chunk
    }
}

/// Reads about `most` bytes from where the chunk ends, and at least one record, if there is one.
fn pieces(
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
                records.push(Stored {
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

/// A segment a dead process has left.
#[derive(Debug)]
pub(crate) struct Leftover {
    path: PathBuf,
    name: Name,
    length: u64,
    settled_below: u64,
}

/// The segments in a directory of a slot that is held, oldest first.
pub(crate) fn leftovers(directory: &Path) -> io::Result<Vec<Leftover>> {
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
    /// The first piece to be read.
    pub(crate) fn begin(&self, most: usize) -> Job {
        self.job(0, Scan::new(self.name.salt, self.name.first), most)
    }

    /// The piece after `chunk`, if there is one.
    pub(crate) fn after(&self, chunk: &Chunk, most: usize) -> Option<Job> {
        let more = chunk.read_to < self.length;
        more.then(|| self.job(chunk.read_to, chunk.scan.clone(), most))
    }

    fn job(&self, from: u64, scan: Scan, most: usize) -> Job {
        Job {
            path: self.path.clone(),
            segment: self.name.first,
            from,
            until: self.length,
            scan,
            settled_below: self.settled_below,
            most,
        }
    }

    /// Deletes it: everything in it is elsewhere.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
