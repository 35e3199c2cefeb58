//! Names of segments: `<first sequence>-<salt>.v1`, and of compressed ones
//! `<first sequence>-<salt>-<length before>.v2`, all in hexadecimal, so that names sort by age.

use std::fmt;

/// An upper bound of all sequences; sums of sequences below it cannot overflow.
pub const LAST: u64 = 1 << 62;

/// The parts of a segment's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The sequence of the first record.
    pub first: u64,
    /// The seed of the headers' checksums.
    pub salt: u32,
    /// Set if the segment is compressed: its length before.
    pub plain_length: Option<u64>,
}

/// What a file in a log's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment of this format.
    Segment(SegmentName),
    /// A segment of a newer format.
    Newer,
    /// Not a segment.
    Foreign,
}

impl SegmentName {
    /// Parses a file's name.
    pub fn parse(name: &str) -> FileKind {
        let Some((stem, version)) = name.rsplit_once(".v") else {
            return FileKind::Foreign;
        };
        let known = match version.parse() {
            Ok(1) => Self::stem(stem),
            Ok(2) => stem.rsplit_once('-').and_then(|(stem, length)| {
                let plain_length = Some(number(length)?);
                let name = Self::stem(stem)?;
                Some(Self {
                    plain_length,
                    ..name
                })
            }),
            Ok(3_u32..) => return FileKind::Newer,
            _ => None,
        };
        known.map_or(FileKind::Foreign, FileKind::Segment)
    }

    fn stem(stem: &str) -> Option<Self> {
        let (first, salt) = stem.split_once('-')?;
        let salt = (salt.len() == 8).then(|| u32::from_str_radix(salt, 16).ok());
        Some(Self {
            first: number(first)?,
            salt: salt.flatten()?,
            plain_length: None,
        })
    }

    /// Whether this is the same segment, compressed or not.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.first, self.salt) == (other.first, other.salt)
    }
}

/// A number below [`LAST`].
fn number(text: &str) -> Option<u64> {
    let number = (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok());
    number.flatten().filter(|number| *number < LAST)
}

impl fmt::Display for SegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}-{:08x}", self.first, self.salt)?;
        match self.plain_length {
            None => write!(formatter, ".v1"),
            Some(length) => write!(formatter, "-{length:016x}.v2"),
        }
    }
}
