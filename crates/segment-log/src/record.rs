//! The header of a record or of a block of records; the crate's page describes its bytes.

/// The length of a record's header.
pub const HEADER: usize = 32;

/// What a header stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A record.
    Record,
    /// A block of compressed records: its sequence is that of the first, and its items are the records.
    Block,
}

impl Unit {
    /// The first bytes of a header.
    pub(crate) fn magic(self) -> [u8; 4] {
        match self {
            Self::Record => *b"OTAR",
            Self::Block => *b"OTAZ",
        }
    }
}

/// The fields of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) sequence: u64,
    pub(crate) items: u32,
    pub(crate) length: u32,
    pub(crate) payload_crc: u32,
}

/// The header of a record; `None` for payloads of 4 GiB and more.
pub fn header(salt: u32, sequence: u64, items: u32, payload: &[u8]) -> Option<[u8; HEADER]> {
    header_of(Unit::Record, salt, sequence, items, payload)
}

/// The same before any unit.
pub(crate) fn header_of(
    unit: Unit,
    salt: u32,
    sequence: u64,
    items: u32,
    payload: &[u8],
) -> Option<[u8; HEADER]> {
    let length = u32::try_from(payload.len()).ok()?;
    let mut header = [0; HEADER];
    let mut rest = header.as_mut_slice();
    for field in [
        &unit.magic()[..],
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

/// A CRC-32 that starts from the salt.
pub(crate) fn salted(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

/// The header at the beginning of `bytes`, if it is intact.
pub(crate) fn parse(unit: Unit, salt: u32, bytes: &[u8]) -> Option<Header> {
    let header = bytes.first_chunk::<HEADER>()?;
    let (magic, rest) = header.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (items, rest) = rest.split_first_chunk::<4>()?;
    let (payload_crc, _) = rest.split_first_chunk::<4>()?;
    let (fields, crc) = header.split_last_chunk::<4>()?;
    let sound = *magic == unit.magic() && salted(salt, fields) == u32::from_le_bytes(*crc);
    sound.then(|| Header {
        sequence: u64::from_le_bytes(*sequence),
        items: u32::from_le_bytes(*items),
        length: u32::from_le_bytes(*length),
        payload_crc: u32::from_le_bytes(*payload_crc),
    })
}
