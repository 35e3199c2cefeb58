//! The mark: the sequence below which every record is settled. Writes alternate between two places, so
//! that an interrupted write leaves the other intact.

use crate::name::LAST;
use crate::record::salted;

/// The length of one mark.
const MARK: usize = 32;

/// The length of both places.
pub const MARKS: usize = 2 * MARK;

const MAGIC: [u8; 8] = *b"OTAMARK1";

/// The bytes of mark number `generation` and their offset in the file. Every record below `settled` is
/// settled.
pub fn mark(generation: u64, settled: u64) -> ([u8; MARK], u64) {
    let mut bytes = [0; MARK];
    let fields = MAGIC
        .iter()
        .copied()
        .chain(generation.to_le_bytes())
        .chain(settled.to_le_bytes());
    for (space, byte) in bytes.iter_mut().zip(fields) {
        *space = byte;
    }
    if let Some((fields, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = salted(0, fields).to_le_bytes();
    }
    let place = if generation.is_multiple_of(2) {
        0
    } else {
        MARK as u64
    };
    (bytes, place)
}

/// The generation and content of the newest intact mark.
pub fn latest_mark(bytes: &[u8]) -> Option<(u64, u64)> {
    bytes.chunks_exact(MARK).filter_map(read).max()
}

fn read(bytes: &[u8]) -> Option<(u64, u64)> {
    let (fields, crc) = bytes.split_last_chunk::<4>()?;
    if salted(0, fields) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (magic, rest) = fields.split_first_chunk::<8>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (settled, _) = rest.split_first_chunk::<8>()?;
    let (generation, settled) = (
        u64::from_le_bytes(*generation),
        u64::from_le_bytes(*settled),
    );
    (*magic == MAGIC && generation < LAST && settled < LAST).then_some((generation, settled))
}
