//! The protobuf wire format: varints, tags, lengths and groups.

use crate::malformed::{MAX_DEPTH, Malformed};

/// One field of a message.
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
    /// The whole field with its tag.
    pub(crate) raw: &'a [u8],
}

/// A field's value in its wire form.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Fixed32,
    Length(&'a [u8]),
    Group,
}

/// The fields of a message that [`inspect`](crate::inspect()) has accepted; of others, those before the first
/// mistake, which follows them again and again.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, Malformed>> {
    let mut cursor = Cursor::new(message);
    std::iter::from_fn(move || cursor.field(MAX_DEPTH).transpose())
}

/// Walks the fields of one message.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// A base-128 number of at most ten bytes, the tenth holding one bit.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        // Most varints of OTLP are tags and lengths below 128.
        match self.bytes.get(self.at) {
            Some(&first) if first < 0x80 => {
                self.at += 1;
                Ok(u64::from(first))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let mut value = 0_u64;
        for (index, &byte) in rest.iter().take(10).enumerate() {
            if index == 9 && byte > 1 {
                return Err(Malformed::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(if rest.len() < 10 {
            Malformed::Truncated
        } else {
            Malformed::Varint
        })
    }

    /// The next field, or `None` at the end. Groups are skipped whole, at most `depth` deep.
    #[inline]
    fn field(&mut self, depth: u32) -> Result<Option<Field<'a>>, Malformed> {
        if self.is_at_end() {
            return Ok(None);
        }
        let start = self.at;
        let (number, wire_type) = self.tag()?;
        let value = self.value(number, wire_type, depth)?;
        let raw = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Some(Field { number, value, raw }))
    }

    /// The value after a tag.
    #[inline]
    pub(crate) fn value(
        &mut self,
        number: u32,
        wire_type: u8,
        depth: u32,
    ) -> Result<Value<'a>, Malformed> {
        Ok(match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
                Value::Length(self.take(length)?)
            }
            3 => {
                self.skip_group(number, depth)?;
                Value::Group
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            4 => return Err(Malformed::Group),
            _ => return Err(Malformed::WireType),
        })
    }

    /// Number and wire type of the next field.
    #[inline]
    pub(crate) fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed::FieldNumber)?;
        if tag >> 3 == 0 {
            return Err(Malformed::FieldNumber);
        }
        Ok((tag >> 3, (tag & 7) as u8))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    /// Skips the rest of the group that has just begun.
    #[cold]
    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed::Depth)?;
        loop {
            let before = self.at;
            let (inner, wire_type) = self.tag().map_err(|error| match error {
                Malformed::Truncated => Malformed::Group,
                other => other,
            })?;
            if wire_type == 4 {
                return if inner == number {
                    Ok(())
                } else {
                    Err(Malformed::Group)
                };
            }
            self.at = before;
            if depth == 0 {
                return Err(Malformed::Depth);
            }
            self.field(depth)?;
        }
    }
}

/// The length of `value` as a varint.
pub(crate) fn varint_length(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

pub(crate) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Writes a field with a length; `tag` is its one-byte tag.
pub(crate) fn write_field(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The same as bytes of their own.
pub(crate) fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 6);
    write_field(tag, bytes, &mut out);
    out
}
