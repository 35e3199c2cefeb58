//! Checks that bytes are an OTLP request and counts its items, without decoding or allocating.
//!
//! Bytes that pass parse in every protobuf implementation, and their ids have the lengths that a collector
//! requires, so the agent can merge the bytes of different clients safely (OTLP specification; Protocol
//! Buffers encoding).

use crate::malformed::{MAX_DEPTH, Malformed};
use crate::messages;
use crate::schema::{Kind, Message};
use crate::signal::Signal;
use crate::wire::{Cursor, Value};

/// Checks a whole `Export<Signal>ServiceRequest` and counts its items: spans, data points, log records
/// or samples of profiles. A metric of an unknown type counts as one data point.
///
/// # Errors
/// The first reason why the bytes are not such a request.
pub fn inspect(signal: Signal, request: &[u8]) -> Result<usize, Malformed> {
    let mut items = 0;
    message(request, signal.request(), MAX_DEPTH, &mut items)?;
    Ok(items)
}

/// Counts the items in fields of a message that was inspected as a part of a request.
pub(crate) fn count(fields: &[u8], schema: &'static Message) -> usize {
    let mut items = 0;
    match message(fields, schema, MAX_DEPTH, &mut items) {
        Ok(()) => items,
        Err(_) => 0,
    }
}

fn message(
    bytes: &[u8],
    schema: &'static Message,
    depth: u32,
    items: &mut usize,
) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(bytes);
    let items_before = *items;
    let mut has_unknown = false;
    while !cursor.is_at_end() {
        let (number, wire_type) = cursor.tag()?;
        match (schema.kind(number), cursor.value(number, wire_type, depth)?) {
            (Kind::Unknown, _) => {
                if depth == 0 {
                    return Err(Malformed::Depth);
                }
                has_unknown = true;
            }
            (Kind::Varint | Kind::PackedVarint, Value::Varint(_))
            | (Kind::Fixed64 | Kind::PackedFixed64, Value::Fixed64)
            | (Kind::Fixed32, Value::Fixed32)
            | (Kind::Bytes, Value::Length(_)) => {}
            (Kind::Text, Value::Length(text)) => check_text(text)?,
            (Kind::Id(expected), Value::Length(id)) => {
                if id.len() != expected && !id.is_empty() {
                    return Err(id_length(schema, number, expected, id));
                }
            }
            (Kind::Message(inner), Value::Length(bytes)) => {
                if !(std::ptr::eq(inner, &raw const messages::KEY_VALUE)
                    && depth > 2
                    && is_plain_attribute(bytes))
                {
                    message(bytes, inner, below(depth)?, items)?;
                }
            }
            (Kind::Item(inner), Value::Length(bytes)) => {
                *items += 1;
                message(bytes, inner, below(depth)?, items)?;
            }
            (Kind::PackedFixed64, Value::Length(bytes)) => {
                if bytes.len() % 8 != 0 {
                    return Err(Malformed::Truncated);
                }
            }
            (Kind::PackedVarint, Value::Length(bytes)) => {
                let mut packed = Cursor::new(bytes);
                while !packed.is_at_end() {
                    packed.varint()?;
                }
            }
            _ => return Err(Malformed::WireType),
        }
    }
    // A metric of a newer type; how many data points it has is unknown.
    let is_metric = std::ptr::eq(schema, &raw const messages::METRIC);
    if has_unknown && is_metric && *items == items_before {
        *items += 1;
    }
    Ok(())
}

/// Whether a `KeyValue` has the form that SDKs write: an ASCII key, then an ASCII string, a boolean or a
/// small integer. Most bytes of telemetry are in such attributes, so they skip the walk over fields.
/// Other forms may be valid too and take the walk.
#[inline]
fn is_plain_attribute(bytes: &[u8]) -> bool {
    let Some((key, rest)) = short_field(bytes, KEY) else {
        return false;
    };
    let Some((value, [])) = short_field(rest, VALUE) else {
        return false;
    };
    let is_plain = match value {
        [STRING, ..] => matches!(short_field(value, STRING), Some((text, [])) if is_ascii(text)),
        [BOOL | INTEGER, 0..0x80] | [INTEGER, 0x80..=0xff, 0..0x80] => true,
        _ => false,
    };
    is_plain && is_ascii(key)
}

/// The one-byte tags of these fields.
const KEY: u8 = 0x0a;
const VALUE: u8 = 0x12;
const STRING: u8 = 0x0a;
const BOOL: u8 = 0x10;
const INTEGER: u8 = 0x18;

/// The leading field, if it has this tag and fewer than 128 bytes, and the bytes after it.
#[inline]
fn short_field(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    match bytes {
        [first, length @ 0..0x80, rest @ ..] if *first == tag => {
            rest.split_at_checked(usize::from(*length))
        }
        _ => None,
    }
}

#[inline]
fn check_text(text: &[u8]) -> Result<(), Malformed> {
    if is_ascii(text) || std::str::from_utf8(text).is_ok() {
        return Ok(());
    }
    Err(Malformed::Utf8)
}

/// Compares eight bytes at a time; the last word may overlap. Most strings are too short for wider words.
#[inline]
fn is_ascii(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let mut seen = words
        .iter()
        .fold(0, |seen, word| seen | u64::from_ne_bytes(*word));
    if let Some(last) = text.last_chunk::<8>() {
        seen |= u64::from_ne_bytes(*last);
    } else {
        seen |= rest.iter().fold(0, |seen, byte| seen | u64::from(*byte));
    }
    seen & 0x8080_8080_8080_8080 == 0
}

#[cold]
fn id_length(schema: &Message, number: u32, expected: usize, id: &[u8]) -> Malformed {
    Malformed::IdLength {
        field: schema.name(number),
        expected,
        length: id.len(),
    }
}

pub(crate) fn below(depth: u32) -> Result<u32, Malformed> {
    depth.checked_sub(1).ok_or(Malformed::Depth)
}
