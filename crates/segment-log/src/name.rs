//! Names of segments: `<first sequence>-<salt>.v1`, both in hexadecimal, so that names sort by age.

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
        match (version.parse::<u32>(), Self::stem(stem)) {
            (Ok(1), Some(name)) => FileKind::Segment(name),
            (Ok(2..), _) => FileKind::Newer,
            _ => FileKind::Foreign,
        }
    }

    fn stem(stem: &str) -> Option<Self> {
        let (first, salt) = stem.split_once('-')?;
        if first.len() != 16 || salt.len() != 8 {
            return None;
        }
        let first = u64::from_str_radix(first, 16).ok();
        Some(Self {
            first: first.filter(|first| *first < LAST)?,
            salt: u32::from_str_radix(salt, 16).ok()?,
        })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}-{:08x}.v1", self.first, self.salt)
    }
}
