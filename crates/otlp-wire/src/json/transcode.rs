//! From the tokens of a document to the bytes of a message, guided by the message's schema.

use std::borrow::Cow;

use super::error::{Error, excerpt};
use super::number::{double, integer};
use super::output::Output;
use super::reader::Reader;
use super::text::{Decode, base64_in_place, hex_in_place};
use crate::malformed::MAX_DEPTH;
use crate::schema::{FieldSchema, Label, Message, Type};
use crate::signal::Signal;

/// Wire types (Protocol Buffers, "Message Structure").
const VARINT: u32 = 0;
const EIGHT_BYTES: u32 = 1;
const LENGTH: u32 = 2;
const FOUR_BYTES: u32 = 5;

/// The protobuf form of an `Export<Signal>ServiceRequest`, at most `limit` bytes. The reader allocates
/// memory only after `grant` has agreed to that many bytes.
///
/// # Errors
/// The first mistake in the document, or that the result exceeds `limit` or what `grant` allows.
pub fn transcode(
    signal: Signal,
    text: &[u8],
    limit: usize,
    grant: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<u8>, Error> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Error::fault(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut transcoder = Transcoder {
        reader: Reader::new(text),
        // Without keys and quotes telemetry is less than half as long.
        out: Output::new(text.len() / 2, limit, grant)?,
    };
    transcoder.message(signal.request(), MAX_DEPTH)?;
    transcoder.reader.end()?;
    transcoder.out.finish()
}

struct Transcoder<'t, 'g> {
    reader: Reader<'t>,
    out: Output<'g>,
}

/// A number in its wire form.
#[derive(Clone, Copy)]
enum Scalar {
    Varint(u64),
    FourBytes(u32),
    EightBytes(u64),
}

impl Transcoder<'_, '_> {
    /// Reads an object as the content of a message; it may nest `depth` more.
    fn message(&mut self, schema: &'static Message, depth: u32) -> Result<(), Error> {
        self.reader.open(b'{', "an object")?;
        let mut seen = 0_u32;
        let mut has_chosen = false;
        let mut likely = 0;
        let mut is_first = true;
        while self.reader.more(b'}', &mut is_first)? {
            let Some((index, field)) = self.key(schema, likely)? else {
                continue;
            };
            likely = index + 1;
            if self.reader.literal("null") {
                continue;
            }
            let name = field.name.as_bytes();
            let bit = 1 << index;
            let is_choice = field.label == Label::Choice;
            if seen & bit != 0 || (is_choice && has_chosen) {
                let message = if seen & bit != 0 {
                    "is given twice"
                } else {
                    "is given together with a key that excludes it"
                };
                return Err(Error::fault(message).under(name));
            }
            seen |= bit;
            has_chosen |= is_choice;
            self.field(field, depth)
                .map_err(|error| error.under(name))?;
        }
        Ok(())
    }

    /// Reads a key and finds its field; skips the value of an unknown key. Encoders write fields in order,
    /// so the likely one is tried first.
    fn key(
        &mut self,
        schema: &'static Message,
        likely: usize,
    ) -> Result<Option<(usize, &'static FieldSchema)>, Error> {
        if let Some(field) = schema.fields.get(likely)
            && self.reader.key_is(field.name)
        {
            return Ok(Some((likely, field)));
        }
        let key = self.reader.key()?.short();
        let named = schema.named(&key);
        if named.is_none() {
            self.reader.skip().map_err(|error| error.under(&key))?;
        }
        Ok(named)
    }

    fn field(&mut self, field: &'static FieldSchema, depth: u32) -> Result<(), Error> {
        match (field.label, field.kind) {
            (
                Label::Many,
                Type::Text | Type::Bytes | Type::Id | Type::Message(_) | Type::Item(_),
            ) => self.elements(|this| this.value(field, depth)),
            (Label::Many, kind) => {
                let tag_at = self.out.len();
                self.tag(field, LENGTH)?;
                let open = self.out.open()?;
                self.elements(|this| {
                    let value = this.scalar(kind)?;
                    this.write(value)
                })?;
                if self.out.close(open) == 0 {
                    self.out.forget(tag_at);
                }
                Ok(())
            }
            _ => self.value(field, depth),
        }
    }

    fn elements(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.reader.open(b'[', "an array")?;
        let mut is_first = true;
        let mut index = 0;
        while self.reader.more(b']', &mut is_first)? {
            element(self).map_err(|error| error.at(index))?;
            index += 1;
        }
        Ok(())
    }

    /// Reads one value and writes it with its tag.
    fn value(&mut self, field: &'static FieldSchema, depth: u32) -> Result<(), Error> {
        match field.kind {
            Type::Message(inner) | Type::Item(inner) => {
                let depth = depth.checked_sub(1).ok_or_else(Error::too_deep)?;
                self.tag(field, LENGTH)?;
                let open = self.out.open()?;
                self.message(inner, depth)?;
                self.out.close(open);
                Ok(())
            }
            Type::Text => self.string(field, None),
            Type::Id => self.string(field, Some(hex_in_place)),
            Type::Bytes => self.string(field, Some(base64_in_place)),
            kind => {
                let value = self.scalar(kind)?;
                let (wire, is_default) = match value {
                    Scalar::Varint(value) => (VARINT, value == 0),
                    Scalar::FourBytes(value) => (FOUR_BYTES, value == 0),
                    Scalar::EightBytes(value) => (EIGHT_BYTES, value == 0),
                };
                if is_default && field.label == Label::One {
                    return Ok(());
                }
                self.tag(field, wire)?;
                self.write(value)
            }
        }
    }

    /// Reads a string; with `decode` it stands for bytes.
    fn string(&mut self, field: &FieldSchema, decode: Option<Decode>) -> Result<(), Error> {
        let text = self.reader.string("a string")?;
        if text.raw.is_empty() && field.label == Label::One {
            return Ok(());
        }
        if decode.is_none() && !text.is_escaped {
            return self.out.field(field.number << 3 | LENGTH, text.raw);
        }
        self.tag(field, LENGTH)?;
        let open = self.out.open()?;
        let start = self.out.len();
        self.out.unescaped(text.raw)?;
        if let Some(decode) = decode {
            self.out.decode(start, decode)?;
        }
        self.out.close(open);
        Ok(())
    }

    fn scalar(&mut self, kind: Type) -> Result<Scalar, Error> {
        Ok(match kind {
            Type::Bool if self.reader.literal("true") => Scalar::Varint(1),
            Type::Bool if self.reader.literal("false") => Scalar::Varint(0),
            Type::Bool => return Err(self.reader.expected("true or false")),
            Type::Enum(names) => Scalar::Varint(self.enumeration(names)?),
            Type::Int32 => {
                let value: i32 = integer(&self.digits()?)?;
                Scalar::Varint(i64::from(value).cast_unsigned())
            }
            Type::Int64 => Scalar::Varint(integer::<i64>(&self.digits()?)?.cast_unsigned()),
            Type::Uint32 => Scalar::Varint(integer::<u32>(&self.digits()?)?.into()),
            Type::Uint64 => Scalar::Varint(integer(&self.digits()?)?),
            Type::Sint32 => {
                let value: i32 = integer(&self.digits()?)?;
                Scalar::Varint(((value << 1) ^ (value >> 31)).cast_unsigned().into())
            }
            Type::Fixed32 => Scalar::FourBytes(integer(&self.digits()?)?),
            Type::Fixed64 => Scalar::EightBytes(integer(&self.digits()?)?),
            Type::Sfixed64 => Scalar::EightBytes(integer::<i64>(&self.digits()?)?.cast_unsigned()),
            Type::Double => Scalar::EightBytes(double(&self.digits()?)?.to_bits()),
            Type::Text | Type::Bytes | Type::Id | Type::Message(_) | Type::Item(_) => {
                return Err(self.reader.expected("a number"));
            }
        })
    }

    fn enumeration(&mut self, names: &[&str]) -> Result<u64, Error> {
        if self.reader.peek() != Some(b'"') {
            let value: i32 = integer(self.reader.number("a number or a name")?)?;
            return Ok(i64::from(value).cast_unsigned());
        }
        let name = self.reader.string("a name")?.short();
        names
            .iter()
            .position(|known| known.as_bytes() == &*name)
            .map(|value| value as u64)
            .ok_or_else(|| Error::fault(format!("`{}` is not one of its names", excerpt(&name))))
    }

    /// Reads a number, or a string that holds one.
    fn digits(&mut self) -> Result<Cow<'_, [u8]>, Error> {
        if self.reader.peek() == Some(b'"') {
            return Ok(self.reader.string("a number")?.short());
        }
        self.reader.number("a number").map(Cow::Borrowed)
    }

    fn tag(&mut self, field: &FieldSchema, wire: u32) -> Result<(), Error> {
        self.out.varint(u64::from(field.number << 3 | wire))
    }

    fn write(&mut self, value: Scalar) -> Result<(), Error> {
        match value {
            Scalar::Varint(value) => self.out.varint(value),
            Scalar::FourBytes(value) => self.out.raw(&value.to_le_bytes()),
            Scalar::EightBytes(value) => self.out.raw(&value.to_le_bytes()),
        }
    }
}
