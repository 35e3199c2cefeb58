//! Scans a segment piece by piece. Damage costs only the records it hits: an intact header locates the next
//! record even if its payload is damaged, and after a damaged header the scan searches for the next intact
//! one.

use crate::record::{HEADER, MAGIC, parse};

/// One intact record.
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
    /// An intact header with a damaged payload: sequence and length.
    Broken(u64, usize),
    /// The number of bytes without a header.
    Noise(usize),
    /// The number of bytes that are needed from here on.
    More(usize),
}

impl SegmentScan {
    /// Starts at the record of sequence `expected`.
    pub fn new(salt: u32, expected: u64) -> Self {
        Self {
            salt,
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

    /// Reads the whole records at the beginning of `bytes`. With `last` the segment ends there; a record
    /// cut short at its end was never finished and is not damage.
    ///
    /// Returns the number of used bytes, and how many the scan needs after those.
    pub fn read<'a>(
        &mut self,
        bytes: &'a [u8],
        last: bool,
        mut take: impl FnMut(Record<'a>),
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
                    self.resume_at(record.sequence);
                    take(record);
                    length
                }
                Step::Broken(sequence, length) => {
                    self.resume_at(sequence);
                    self.damage.records += 1;
                    self.damage.bytes += length as u64;
                    length
                }
                Step::Noise(length) => {
                    self.skipped += length as u64;
                    self.damage.bytes += length as u64;
                    length
                }
                Step::More(_) if last => {
                    self.end();
                    return (bytes.len(), 0);
                }
                Step::More(needed) => return (used, needed),
            };
        }
    }

    /// Notes an intact header; its sequence tells how many records are missing before it.
    fn resume_at(&mut self, sequence: u64) {
        self.damage.records += sequence.saturating_sub(self.expected);
        self.expected = sequence.saturating_add(1);
        self.skipped = 0;
    }

    /// Counts damage that no intact header follows.
    fn end(&mut self) {
        if self.skipped > 0 {
            self.damage.records += 1;
            self.skipped = 0;
        }
    }

    /// Whether a header with this sequence can be here: each missing record took at least a header, and
    /// without damage there is no gap.
    fn plausible(&self, sequence: u64, passed: usize) -> bool {
        let missing = sequence.checked_sub(self.expected);
        let skipped = self.skipped + passed as u64;
        missing.is_some_and(|missing| missing <= skipped / HEADER as u64)
    }

    fn step<'a>(&self, bytes: &'a [u8], last: bool) -> Step<'a> {
        if bytes.len() < HEADER {
            return Step::More(HEADER);
        }
        let Some(header) = parse(self.salt, bytes).filter(|h| self.plausible(h.sequence, 0)) else {
            return self.resync(bytes, last);
        };
        let length = HEADER + header.length as usize;
        let Some(payload) = bytes.get(HEADER..length) else {
            return Step::More(length);
        };
        if crc32fast::hash(payload) != header.payload_crc {
            return Step::Broken(header.sequence, length);
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
            .filter(|(_, window)| window.starts_with(&MAGIC))
            .find_map(|(at, window)| {
                let header = parse(self.salt, window)?;
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
