//! Reads records back in chunks, without holding a lock on the log.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::block::{BLOCK, DECOMPRESSOR, FIELDS, plain_length, records, unpack};
use crate::error::LogError;
use crate::files;
use crate::name::SegmentName;
use crate::record::HEADER;
use crate::scan::{Damage, Record, SegmentScan};

/// Asks for so many bytes of memory; the answer says whether they may be allocated. All of them are given back once
/// the caller has the result.
pub type Grant<'a> = &'a mut dyn FnMut(usize) -> bool;

/// A part of a segment to read.
#[derive(Clone, Debug)]
pub struct ReadJob {
    pub(crate) directory: PathBuf,
    pub(crate) name: SegmentName,
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
    /// Whether the read ended early for lack of memory.
    pub is_refused: bool,
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

    fn path(&self) -> PathBuf {
        self.directory.join(self.name.to_string())
    }

    /// Reads the chunk; blocks.
    pub fn run(self, grant: Grant<'_>) -> Chunk {
        let mut chunk = Chunk {
            segment: self.name.first,
            read_to: self.from,
            scan: self.scan.clone(),
            records: Vec::new(),
            damage: Damage::default(),
            is_refused: false,
            failed: None,
        };
        let read = self.read(&mut chunk, grant);
        chunk.damage = chunk.scan.take_damage();
        if let Err(error) = read {
            // The unreadable rest holds at least one record.
            chunk.damage.records += 1;
            chunk.damage.bytes += self.until - chunk.read_to;
            chunk.read_to = self.until;
            chunk.failed = Some((self.path(), error));
        }
        chunk
    }

    /// Reads about `most` bytes, and at least one record if there is one and memory for it.
    fn read(&self, chunk: &mut Chunk, grant: Grant<'_>) -> io::Result<()> {
        let file = File::open(self.path())?;
        // A compressed segment gives several times as much.
        let most = match self.name.plain_length {
            None => self.most,
            Some(_) => self.most / 4,
        };
        let mut wanted = most;
        let mut granted = 0;
        while chunk.read_to < self.until && chunk.records.is_empty() && !chunk.is_refused {
            let left = usize::try_from(self.until - chunk.read_to).unwrap_or(usize::MAX);
            let length = left.min(wanted);
            if length > granted && !grant(length - granted) {
                chunk.is_refused = true;
                return Ok(());
            }
            granted = granted.max(length);
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, chunk.read_to)?;
            let buffer = Bytes::from(buffer);
            let mut reader = ChunkReader {
                job: self,
                buffer: &buffer,
                grant: &mut *grant,
                records: &mut chunk.records,
                bytes: 0,
                is_refused: false,
                damage: Damage::default(),
            };
            let is_last = length == left;
            let take = |record| reader.take(record);
            let (used, needed) = chunk.scan.read(&buffer, is_last, take);
            chunk.is_refused = reader.is_refused;
            chunk.scan.add_damage(reader.damage);
            chunk.read_to += used as u64;
            wanted = most.max(needed);
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
        fs::remove_file(self.path())
    }
}

/// Takes the records of one buffer.
struct ChunkReader<'a> {
    job: &'a ReadJob,
    buffer: &'a Bytes,
    grant: Grant<'a>,
    records: &'a mut Vec<StoredRecord>,
    /// The bytes taken so far.
    bytes: usize,
    is_refused: bool,
    damage: Damage,
}

impl ChunkReader<'_> {
    /// Takes a record or a block; `false` if that has to wait.
    fn take(&mut self, record: Record<'_>) -> bool {
        if self.job.name.plain_length.is_some() {
            return self.take_block(record);
        }
        if !self.job.wanted.contains(&record.sequence) {
            return true;
        }
        // A large record comes alone and needs no copy.
        let is_alone = record.payload.len() + HEADER == self.buffer.len();
        let payload = if is_alone {
            self.buffer.slice_ref(record.payload)
        } else if self.ask(record.payload.len()) {
            Bytes::copy_from_slice(record.payload)
        } else {
            return false;
        };
        self.push(&record, payload);
        true
    }

    fn take_block(&mut self, block: Record<'_>) -> bool {
        let wanted = &self.job.wanted;
        let end = block.sequence.saturating_add(block.items.into());
        if end <= wanted.start || block.sequence >= wanted.end {
            return true;
        }
        if self.bytes > 0 && self.bytes + BLOCK > self.job.most {
            return false;
        }
        let length = plain_length(block.payload).unwrap_or_default();
        let is_alone = block.items == 1;
        let copies = if is_alone { 0 } else { length };
        if !self.ask(length.saturating_add(copies).saturating_add(DECOMPRESSOR)) {
            return false;
        }
        let plain = Bytes::from(unpack(block.payload, length).unwrap_or_default());
        let mut found = 0;
        for record in records(block.sequence, &plain).take(block.items as usize) {
            found += 1;
            if self.job.wanted.contains(&record.sequence) {
                let payload = if is_alone {
                    plain.slice_ref(record.payload)
                } else {
                    Bytes::copy_from_slice(record.payload)
                };
                self.push(&record, payload);
            }
        }
        if found < u64::from(block.items) {
            self.damage.records += u64::from(block.items) - found;
            self.damage.bytes += (HEADER + block.payload.len()) as u64;
        }
        true
    }

    /// Asks for memory. What was read before is returned first.
    fn ask(&mut self, bytes: usize) -> bool {
        self.is_refused = !(self.grant)(bytes);
        !self.is_refused
    }

    fn push(&mut self, record: &Record<'_>, payload: Bytes) {
        self.bytes += payload.len() + FIELDS;
        self.records.push(StoredRecord {
            sequence: record.sequence,
            items: record.items,
            payload,
        });
    }
}

/// The first parts of about `most` bytes of all segments in a log's directory, oldest first. The process that
/// wrote them has ended, and the caller holds its slot.
pub fn leftovers(directory: &Path, most: usize) -> Result<Vec<ReadJob>, LogError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    files::tidy(directory)?;
    let segments = files::list(directory)
        .map_err(|source| LogError::io(directory, source))?
        .0;
    let (_, settled_below) = files::read_mark(directory);
    let after = segments.iter().skip(1).map(|(name, _)| name.first);
    let ends: Vec<_> = after.chain([u64::MAX]).collect();
    let jobs = segments.into_iter().zip(ends);
    let jobs = jobs.map(|((name, until), end)| ReadJob {
        directory: directory.to_owned(),
        name,
        from: 0,
        until,
        scan: SegmentScan::new(name),
        wanted: settled_below..end,
        most,
    });
    Ok(jobs.collect())
}
