//! Writes protobuf front to back. The length of a message is known only at its end: one byte is reserved
//! for it, and a single pass at the very end makes space for longer lengths.

use super::error::Error;
use super::text::{Decode, unescape};
use crate::wire::{varint_length, write_varint};

/// The length of the longest varint.
const VARINT: usize = 10;

/// The bytes written so far.
pub(super) struct Output<'g> {
    bytes: Vec<u8>,
    /// Open lengths and lengths of more than one byte, in order.
    lengths: Vec<Length>,
    /// Bytes that these lengths need beyond the reserved ones.
    missing: usize,
    limit: usize,
    grant: &'g mut dyn FnMut(usize) -> bool,
}

struct Length {
    at: usize,
    value: usize,
}

/// An unfinished message or string.
#[derive(Clone, Copy)]
pub(super) struct Open {
    index: usize,
    missing: usize,
}

impl<'g> Output<'g> {
    /// An empty output with space for `likely` bytes.
    pub(super) fn new(
        likely: usize,
        limit: usize,
        grant: &'g mut dyn FnMut(usize) -> bool,
    ) -> Result<Self, Error> {
        let mut output = Self {
            bytes: Vec::new(),
            lengths: Vec::new(),
            missing: 0,
            limit,
            grant,
        };
        output.reserve(likely.min(limit))?;
        Ok(output)
    }

    #[inline]
    fn reserve(&mut self, more: usize) -> Result<(), Error> {
        if more <= self.bytes.capacity() - self.bytes.len() {
            return Ok(());
        }
        self.grow(more)
    }

    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), Error> {
        let needed = self.bytes.len() + more;
        let capacity = self.bytes.capacity();
        // Callers may reserve a little more than they write.
        if needed > self.limit.saturating_add(2 * VARINT) {
            return Err(Error::TooLarge(self.limit));
        }
        let larger = (capacity * 2).min(self.limit).max(needed);
        if !(self.grant)(larger - capacity) {
            return Err(Error::Exhausted);
        }
        self.bytes.reserve_exact(larger - self.bytes.len());
        Ok(())
    }

    /// The current length, for [`Output::forget`].
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Removes an empty field, from its tag on.
    pub(super) fn forget(&mut self, tag_at: usize) {
        self.bytes.truncate(tag_at);
    }

    pub(super) fn varint(&mut self, value: u64) -> Result<(), Error> {
        self.reserve(VARINT)?;
        write_varint(value, &mut self.bytes);
        Ok(())
    }

    /// Writes a whole field with a length.
    pub(super) fn field(&mut self, tag: u32, bytes: &[u8]) -> Result<(), Error> {
        self.reserve(2 * VARINT + bytes.len())?;
        write_varint(tag.into(), &mut self.bytes);
        write_varint(bytes.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Begins a value whose length [`Output::close`] writes.
    pub(super) fn open(&mut self) -> Result<Open, Error> {
        let capacity = self.lengths.capacity();
        if self.lengths.len() == capacity {
            let larger = (capacity * 2).max(64);
            if !(self.grant)((larger - capacity) * size_of::<Length>()) {
                return Err(Error::Exhausted);
            }
            self.lengths.reserve_exact(larger - capacity);
        }
        let open = Open {
            index: self.lengths.len(),
            missing: self.missing,
        };
        let at = self.bytes.len();
        self.lengths.push(Length { at, value: 0 });
        self.raw(&[0])?;
        Ok(open)
    }

    /// Ends the value and returns its length.
    pub(super) fn close(&mut self, open: Open) -> usize {
        let Some(length) = self.lengths.get_mut(open.index) else {
            return 0;
        };
        let value = self.bytes.len() - length.at - 1 + self.missing - open.missing;
        match u8::try_from(value) {
            Ok(short) if short < 0x80 => {
                // Inner values are shorter still, so this is the last length in the list.
                if let Some(byte) = self.bytes.get_mut(length.at) {
                    *byte = short;
                }
                self.lengths.truncate(open.index);
            }
            _ => {
                length.value = value;
                self.missing += varint_length(value) - 1;
            }
        }
        value
    }

    /// Appends an escaped string, unescaped.
    pub(super) fn unescaped(&mut self, raw: &[u8]) -> Result<(), Error> {
        self.reserve(raw.len())?;
        unescape(raw, &mut self.bytes);
        Ok(())
    }

    /// Decodes in place what was written since `start`.
    pub(super) fn decode(&mut self, start: usize, decode: Decode) -> Result<(), Error> {
        let text = self.bytes.get_mut(start..).unwrap_or_default();
        let length = decode(text).map_err(Error::fault)?;
        self.bytes.truncate(start + length);
        Ok(())
    }

    /// The finished bytes.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Error> {
        let mut end = self.bytes.len();
        let mut to = end + self.missing;
        if to > self.limit {
            return Err(Error::TooLarge(self.limit));
        }
        self.reserve(self.missing)?;
        self.bytes.resize(to, 0);
        let mut varint = Vec::with_capacity(VARINT);
        for length in self.lengths.iter().rev() {
            let behind = length.at + 1..end;
            to -= behind.len();
            self.bytes.copy_within(behind, to);
            varint.clear();
            write_varint(length.value as u64, &mut varint);
            let space = to - varint.len()..to;
            to = space.start;
            if let Some(space) = self.bytes.get_mut(space) {
                space.copy_from_slice(&varint);
            }
            end = length.at;
        }
        Ok(self.bytes)
    }
}
