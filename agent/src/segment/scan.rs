//! Reading a segment piece by piece. Damage costs the records it has hit: a sound header says where the
//! next one begins even where its payload is not sound, and after a header that is not, the next sound one is
//! looked for.

use super::{HEADER, MAGIC, parse};

/// One sound record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the order of the queue.
    pub sequence: u64,
    /// Spans, data points or log records in it.
    pub items: u32,
    /// A whole request.
    pub payload: &'a [u8],
}

/// What could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// At least so many records.
    pub records: u64,
    /// Bytes that were passed over.
    pub bytes: u64,
}

/// The state of reading one segment.
#[derive(Clone, Debug)]
pub struct Scan {
    salt: u32,
    /// The next record's sequence, if nothing is damaged.
    expected: u64,
    /// Bytes passed over since the last sound header.
    lost: u64,
    damage: Damage,
}

enum Step<'a> {
    /// A sound record of so many bytes, header included.
    Record(Record<'a>, usize),
    /// A sound header whose payload is not.
    Broken(u64, usize),
    /// No header for so many bytes.
    Noise(usize),
    /// More bytes are needed from here on, so many in all.
    More(usize),
}

impl Scan {
    /// Reading begins at the record of sequence `expected`.
    pub fn new(salt: u32, expected: u64) -> Self {
        Self {
            salt,
            expected,
            lost: 0,
            damage: Damage::default(),
        }
    }

    /// The sequence of the record that comes next.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// What was damaged so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Reads the whole records at the beginning of `bytes`. `last`: the segment ends with them; a record
    /// that is cut short there was never finished and is no damage.
    ///
    /// Returns how many bytes were used, and how many are needed behind those to go on.
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
                    self.sound(record.sequence);
                    take(record);
                    length
                }
                Step::Broken(sequence, length) => {
                    self.sound(sequence);
                    self.damage.records += 1;
                    self.damage.bytes += length as u64;
                    length
                }
                Step::Noise(length) => {
                    self.lost += length as u64;
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

    /// A sound header: what is missing before it is known by its sequence.
    fn sound(&mut self, sequence: u64) {
        self.damage.records += sequence.saturating_sub(self.expected);
        self.expected = sequence.saturating_add(1);
        self.lost = 0;
    }

    /// Damage that no sound header follows.
    fn end(&mut self) {
        if self.lost > 0 {
            self.damage.records += 1;
            self.lost = 0;
        }
    }

    /// Whether a header of this sequence can stand here: records have at least a header each, and
    /// without damage there is no gap.
    fn plausible(&self, sequence: u64, passed: usize) -> bool {
        let missing = sequence.checked_sub(self.expected);
        let passed = self.lost + passed as u64;
        missing.is_some_and(|missing| missing <= passed / HEADER as u64)
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
            // A header may begin in the last bytes.
            None => Step::Noise(bytes.len() - (HEADER - 1)),
        }
    }
}
