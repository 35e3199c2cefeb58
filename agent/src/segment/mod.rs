//! The bytes of a queue on disk: records in segments, names of segments, the mark of what is settled.
//! Pure; must not know files.
//!
//! A segment holds nothing but records, one after the other, in ascending and gapless sequence. The
//! version of the format and a salt are part of its name, where no flipped bit can reach them. A record is
//! [`HEADER`] bytes and its payload; all numbers are little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 0..4 | `OTAR` |
//! | 4..8 | length of the payload |
//! | 8..16 | sequence |
//! | 16..20 | items |
//! | 20..24 | CRC-32 of the payload |
//! | 24..28 | 0 |
//! | 28..32 | CRC-32 of the 28 bytes before, begun with the salt |
//!
//! The salt keeps a client from sending a payload that looks like a record where the reader looks for
//! the next one after damage.

mod mark;
mod name;
mod scan;

pub use mark::{MARKS, latest_mark, mark};
pub use name::{LAST, Name, Named};
pub use scan::{Damage, Record, Scan};

/// Bytes before each payload.
pub const HEADER: usize = 32;

const MAGIC: [u8; 4] = *b"OTAR";

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    sequence: u64,
    items: u32,
    length: u32,
    payload_crc: u32,
}

/// The header of a record. Payloads of 4 GiB and more cannot be kept.
pub fn header(salt: u32, sequence: u64, items: u32, payload: &[u8]) -> Option<[u8; HEADER]> {
    let length = u32::try_from(payload.len()).ok()?;
    let mut header = [0; HEADER];
    let mut rest = header.as_mut_slice();
    for field in [
        &MAGIC[..],
        &length.to_le_bytes(),
        &sequence.to_le_bytes(),
        &items.to_le_bytes(),
        &crc32fast::hash(payload).to_le_bytes(),
    ] {
        let (space, after) = rest.split_at_mut_checked(field.len())?;
        space.copy_from_slice(field);
        rest = after;
    }
    let (fields, crc) = header.split_last_chunk_mut::<4>()?;
    *crc = salted(salt, fields).to_le_bytes();
    Some(header)
}

/// A CRC-32 that is not the plain one.
fn salted(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

fn parse(salt: u32, bytes: &[u8]) -> Option<Header> {
    let header = bytes.first_chunk::<HEADER>()?;
    let (magic, rest) = header.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (items, rest) = rest.split_first_chunk::<4>()?;
    let (payload_crc, _) = rest.split_first_chunk::<4>()?;
    let (fields, crc) = header.split_last_chunk::<4>()?;
    let sound = *magic == MAGIC && salted(salt, fields) == u32::from_le_bytes(*crc);
    sound.then(|| Header {
        sequence: u64::from_le_bytes(*sequence),
        items: u32::from_le_bytes(*items),
        length: u32::from_le_bytes(*length),
        payload_crc: u32::from_le_bytes(*payload_crc),
    })
}
