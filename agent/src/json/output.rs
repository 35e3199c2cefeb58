//! Protobuf written front to back. The length of a message is known only at its end and takes one byte or
//! more: one byte is left for it, and what longer lengths need beyond that is made room for at the very
//! end, in one pass over all of them. Must not know messages.

use super::Error;
use super::text::unescape;
use crate::scan::{varint_length, write_varint};

/// Bytes of the longest varint.
const VARINT: usize = 10;

/// The bytes so far.
pub(super) struct Output<'g> {
    bytes: Vec<u8>,
    /// Lengths of more than one byte, by their place.
    lengths: Vec<Length>,
    /// Bytes these lengths need beyond the one that is there.
    missing: usize,
    limit: usize,
    grant: &'g mut dyn FnMut(usize) -> bool,
}

struct Length {
    at: usize,
    value: usize,
}

/// A message or string that is not finished.
#[derive(Clone, Copy)]
pub(super) struct Open {
    index: usize,
    missing: usize,
}

impl<'g> Output<'g> {
    /// An empty output with `likely` bytes of room.
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
        output.make_room(likely.min(limit))?;
        Ok(output)
    }

    #[inline]
    fn make_room(&mut self, more: usize) -> Result<(), Error> {
        if more <= self.bytes.capacity() - self.bytes.len() {
            return Ok(());
        }
        self.grow(more)
    }

    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), Error> {
        let needed = self.bytes.len() + more;
        let room = self.bytes.capacity();
        // What is asked for may be a little more than what is then written.
        if needed > self.limit.saturating_add(2 * VARINT) {
            return Err(Error::TooLarge(self.limit));
        }
        let larger = (room * 2).min(self.limit).max(needed);
        if !(self.grant)(larger - room) {
            return Err(Error::Exhausted);
        }
        self.bytes.reserve_exact(larger - self.bytes.len());
        Ok(())
    }

    /// Where the next byte goes, for [`Output::forget`].
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes back a field that turned out to hold nothing, from its tag on.
    pub(super) fn forget(&mut self, tag_at: usize) {
        self.bytes.truncate(tag_at);
    }

    pub(super) fn varint(&mut self, value: u64) -> Result<(), Error> {
        self.make_room(VARINT)?;
        write_varint(value, &mut self.bytes);
        Ok(())
    }

    /// A tag, a length and as many bytes.
    pub(super) fn field(&mut self, tag: u32, bytes: &[u8]) -> Result<(), Error> {
        self.make_room(2 * VARINT + bytes.len())?;
        write_varint(tag.into(), &mut self.bytes);
        write_varint(bytes.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.make_room(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Begins something of a length to be told by [`Output::close`].
    pub(super) fn open(&mut self) -> Result<Open, Error> {
        let room = self.lengths.capacity();
        if self.lengths.len() == room {
            let larger = (room * 2).max(64);
            if !(self.grant)((larger - room) * size_of::<Length>()) {
                return Err(Error::Exhausted);
            }
            self.lengths.reserve_exact(larger - room);
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

    /// Ends it and gives its length.
    pub(super) fn close(&mut self, open: Open) -> usize {
        let Some(length) = self.lengths.get_mut(open.index) else {
            return 0;
        };
        let value = self.bytes.len() - length.at - 1 + self.missing - open.missing;
        match u8::try_from(value) {
            Ok(short) if short < 0x80 => {
                // Whatever is inside is shorter still, so this is the last length that was noted.
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

    /// Appends what an escaped string says.
    pub(super) fn unescaped(&mut self, raw: &[u8]) -> Result<(), Error> {
        self.make_room(raw.len())?;
        unescape(raw, &mut self.bytes);
        Ok(())
    }

    /// Decodes what was written since `start` where it is.
    pub(super) fn decode(
        &mut self,
        start: usize,
        decode: fn(&mut [u8]) -> Result<usize, &'static str>,
    ) -> Result<(), Error> {
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
        self.make_room(self.missing)?;
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
