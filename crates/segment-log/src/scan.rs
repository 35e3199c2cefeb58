//! Scans a segment piece by piece. Damage costs only the records it hits: an intact header locates the next
//! record even if its payload is damaged, and after a damaged header the scan searches for the next intact
//! one. Of a compressed segment it scans the blocks.

use crate::name::SegmentName;
use crate::record::{HEADER, Unit, parse};

/// One intact record; of a compressed segment, a block with the sequence of its first record and as many items
/// as it has records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its position in the order of the log.
    pub sequence: u64,
    /// The number of items in it.
    pub items: u32,
    /// The appended bytes.
    pub payload: &'a [u8],
}

/// What a scan could not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// The least number of damaged records.
    pub records: u64,
    /// Skipped bytes.
    pub bytes: u64,
}

/// The state of a scan of one segment.
#[derive(Clone, Debug)]
pub struct SegmentScan {
    unit: Unit,
    salt: u32,
    /// The next record's sequence if nothing is damaged.
    expected: u64,
    /// Bytes skipped since the last intact header.
    skipped: u64,
    damage: Damage,
}

enum Step<'a> {
    /// An intact record and its length, header included.
    Record(Record<'a>, usize),
    /// An intact header with a damaged payload: sequence, number of records and length.
    Broken(u64, u64, usize),
    /// The number of bytes without a header.
    Noise(usize),
    /// The number of bytes that are needed from here on.
    More(usize),
}

impl SegmentScan {
    /// Starts at the beginning of a segment.
    pub fn new(name: SegmentName) -> Self {
        Self::at(name, name.first)
    }

    /// Starts at the record of sequence `expected`.
    pub(crate) fn at(name: SegmentName, expected: u64) -> Self {
        Self {
            unit: name.plain_length.map_or(Unit::Record, |_| Unit::Block),
            salt: name.salt,
            expected,
            skipped: 0,
            damage: Damage::default(),
        }
    }

    /// The sequence of the next record.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// The damage so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// The damage so far; further damage is counted from zero.
    pub(crate) fn take_damage(&mut self) -> Damage {
        std::mem::take(&mut self.damage)
    }

    /// Counts records that an intact block should have and has not.
    pub(crate) fn add_damage(&mut self, damage: Damage) {
        self.damage.records += damage.records;
        self.damage.bytes += damage.bytes;
    }

    /// Reads the whole records at the beginning of `bytes`. With `last` the segment ends there; a record
    /// cut short at its end was never finished and is not damage. Stops before a record that is not taken.
    ///
    /// Returns the number of used bytes, and how many the scan needs after those.
    pub fn read<'a>(
        &mut self,
        bytes: &'a [u8],
        last: bool,
        mut take: impl FnMut(Record<'a>) -> bool,
    ) -> (usize, usize) {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            if rest.is_empty() && last {
                self.end();
                return (used, 0);
            }
            used += match self.step(rest, last) {
                Step::Record(record, length) => {
                    if !take(record) {
                        return (used, 0);
                    }
                    self.resume_at(record.sequence, self.records_in(record.items));
                    length
                }
                Step::Broken(sequence, records, length) => {
                    self.resume_at(sequence, records);
                    self.damage.records += records;
                    self.damage.bytes += length as u64;
                    length
                }
                Step::Noise(length) => {
                    self.skip(length);
                    length
                }
                Step::More(_) if last => {
                    // A segment is complete before it is compressed.
                    if self.unit == Unit::Block {
                        self.skip(rest.len());
                    }
                    self.end();
                    return (bytes.len(), 0);
                }
                Step::More(needed) => return (used, needed),
            };
        }
    }

    /// The number of records behind a header.
    fn records_in(&self, items: u32) -> u64 {
        match self.unit {
            Unit::Record => 1,
            Unit::Block => items.into(),
        }
    }

    /// Notes an intact header; its sequence tells how many records are missing before it.
    fn resume_at(&mut self, sequence: u64, records: u64) {
        self.damage.records += sequence.saturating_sub(self.expected);
        self.expected = sequence.saturating_add(records);
        self.skipped = 0;
    }

    /// Counts bytes without a header.
    fn skip(&mut self, bytes: usize) {
        self.skipped += bytes as u64;
        self.damage.bytes += bytes as u64;
    }

    /// Counts damage that no intact header follows.
    fn end(&mut self) {
        if self.skipped > 0 {
            self.damage.records += 1;
            self.skipped = 0;
        }
    }

    /// Whether a header with this sequence can be here: each missing record took at least a header, or each missing
    /// block with any number of records; and without damage there is no gap.
    fn plausible(&self, sequence: u64, passed: usize) -> bool {
        let missing = sequence.checked_sub(self.expected);
        let headers = (self.skipped + passed as u64) / HEADER as u64;
        missing.is_some_and(|missing| match self.unit {
            Unit::Record => missing <= headers,
            Unit::Block => missing == 0 || headers > 0,
        })
    }

    fn step<'a>(&self, bytes: &'a [u8], last: bool) -> Step<'a> {
        if bytes.len() < HEADER {
            return Step::More(HEADER);
        }
        let header = parse(self.unit, self.salt, bytes);
        let Some(header) = header.filter(|header| self.plausible(header.sequence, 0)) else {
            return self.resync(bytes, last);
        };
        let length = HEADER + header.length as usize;
        let Some(payload) = bytes.get(HEADER..length) else {
            return Step::More(length);
        };
        if crc32fast::hash(payload) != header.payload_crc {
            let records = self.records_in(header.items);
            return Step::Broken(header.sequence, records, length);
        }
        let record = Record {
            sequence: header.sequence,
            items: header.items,
            payload,
        };
        Step::Record(record, length)
    }

    fn resync<'a>(&self, bytes: &'a [u8], last: bool) -> Step<'a> {
        let found = bytes
            .windows(HEADER)
            .enumerate()
            .skip(1)
            .filter(|(_, window)| window.starts_with(&self.unit.magic()))
            .find_map(|(at, window)| {
                let header = parse(self.unit, self.salt, window)?;
                self.plausible(header.sequence, at).then_some(at)
            });
        match found {
            Some(at) => Step::Noise(at),
            None if last => Step::Noise(bytes.len()),
            // The last bytes may be the beginning of a header.
            None => Step::Noise(bytes.len() - (HEADER - 1)),
        }
    }
}
