//! Blocks of compressed records. A block needs no other one to be read, so damage costs only its own records, and a
//! reader holds one at a time.
//!
//! A block is a header and a zstd frame, which states its content size. In the frame, each record is its length, its
//! items and its payload; the sequences have no gaps.

use std::io;

use zstd::bulk::{Compressor, decompress};
use zstd::zstd_safe::get_frame_content_size;

use crate::record::{HEADER, Unit, header_of};
use crate::scan::Record;

/// The level of compression; `docs/benchmarks.md` has the figures.
const LEVEL: i32 = 3;

/// The length of a block before compression; only a single record may be larger.
pub(crate) const BLOCK: usize = 128 * 1024;

/// The bytes before a record in a block: its length and its items.
pub(crate) const FIELDS: usize = 8;

/// The memory of a compressor and of a decompressor, rounded up.
pub(crate) const COMPRESSOR: usize = 1536 * 1024;
pub(crate) const DECOMPRESSOR: usize = 192 * 1024;

/// Writes records into blocks.
pub struct BlockWriter {
    compressor: Compressor<'static>,
    salt: u32,
    /// The sequence of the first record.
    first: u64,
    records: u32,
    plain: Vec<u8>,
}

impl BlockWriter {
    /// A writer of a segment with this salt.
    pub fn new(salt: u32) -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new(LEVEL)?,
            salt,
            first: 0,
            records: 0,
            plain: Vec::new(),
        })
    }

    /// Adds a record to the block; the sequence follows that of the record before.
    pub fn add(&mut self, record: &Record<'_>) -> io::Result<()> {
        if self.records == 0 {
            self.first = record.sequence;
        }
        let length = u32::try_from(record.payload.len());
        let length = length.map_err(|_| io::ErrorKind::InvalidInput)?;
        self.plain.extend(length.to_le_bytes());
        self.plain.extend(record.items.to_le_bytes());
        self.plain.extend_from_slice(record.payload);
        self.records += 1;
        Ok(())
    }

    /// The length of the block before compression.
    pub fn plain_length(&self) -> usize {
        self.plain.len()
    }

    /// Ends the block; returns its header and its frame.
    pub fn finish(&mut self) -> io::Result<([u8; HEADER], Vec<u8>)> {
        let frame = self.compressor.compress(&self.plain)?;
        let header = header_of(Unit::Block, self.salt, self.first, self.records, &frame);
        self.records = 0;
        self.plain.clear();
        // What a large record needed would stay.
        self.plain.shrink_to(2 * BLOCK);
        Ok((header.ok_or(io::ErrorKind::InvalidInput)?, frame))
    }
}

/// The length of a block's records, decompressed.
pub fn plain_length(frame: &[u8]) -> Option<usize> {
    let length = get_frame_content_size(frame).ok().flatten()?;
    usize::try_from(length).ok()
}

/// Decompresses a block to its length.
pub fn unpack(frame: &[u8], length: usize) -> io::Result<Vec<u8>> {
    decompress(frame, length)
}

/// Splits the decompressed records of a block.
pub fn records(first: u64, plain: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = plain;
    (first..).map_while(move |sequence| {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (items, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (payload, after) = after.split_at_checked(length)?;
        rest = after;
        Some(Record {
            sequence,
            items: u32::from_le_bytes(*items),
            payload,
        })
    })
}
