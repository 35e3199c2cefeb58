//! Names of segments: `<first sequence>-<salt>.v1`, both in hexadecimal, so that they sort by age.

use std::fmt;

/// Beyond every sequence there will ever be.
pub const LAST: u64 = 1 << 62;

/// What a segment's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Sequence of its first record.
    pub first: u64,
    /// What its headers' checksums begin with.
    pub salt: u32,
}

/// What a file of a queue's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A segment of this format.
    Segment(Name),
    /// A segment of a newer format.
    Newer,
    /// Nothing of ours.
    Foreign,
}

impl Name {
    /// Reads a file's name.
    pub fn parse(name: &str) -> Named {
        let Some((stem, version)) = name.rsplit_once(".v") else {
            return Named::Foreign;
        };
        match (version.parse::<u32>(), Self::stem(stem)) {
            (Ok(1), Some(name)) => Named::Segment(name),
            (Ok(2..), _) => Named::Newer,
            _ => Named::Foreign,
        }
    }

    fn stem(stem: &str) -> Option<Self> {
        let (first, salt) = stem.split_once('-')?;
        if first.len() != 16 || salt.len() != 8 {
            return None;
        }
        // No process counts as far as that; sums of sequences cannot overflow.
        let first = u64::from_str_radix(first, 16).ok();
        Some(Self {
            first: first.filter(|first| *first < LAST)?,
            salt: u32::from_str_radix(salt, 16).ok()?,
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}-{:08x}.v1", self.first, self.salt)
    }
}
