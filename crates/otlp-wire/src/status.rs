//! `google.rpc.Status` with the details that OTLP uses (`RetryInfo`, `BadRequest`), as bytes and in the
//! text encodings of gRPC headers.

use std::fmt::Write as _;
use std::time::Duration;

use crate::json::base64_in_place;
use crate::wire::{Value, field, fields, write_field, write_varint};

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// gRPC status codes (grpc/grpc statuscodes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// Success.
    pub const OK: Self = Self(0);
    /// The request is malformed.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// Too large, or over a quota.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// Unknown method, message encoding or signal.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// A broken frame.
    pub const INTERNAL: Self = Self(13);
    /// Try again later.
    pub const UNAVAILABLE: Self = Self(14);
    /// Credentials are missing or wrong.
    pub const UNAUTHENTICATED: Self = Self(16);
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The gRPC code.
    pub code: Code,
    /// A message for people.
    pub message: String,
    /// How long the client should wait before it tries again.
    pub retry_after: Option<Duration>,
}

impl Status {
    /// Encodes code, message and one detail as protobuf.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0x08];
        write_varint(u64::from(self.code.0), &mut out);
        write_field(0x12, self.message.as_bytes(), &mut out);
        if let Some(delay) = self.retry_after {
            let mut duration = vec![0x08];
            write_varint(delay.as_secs(), &mut duration);
            duration.push(0x10);
            write_varint(u64::from(delay.subsec_nanos()), &mut duration);
            write_field(0x1a, &any(RETRY_INFO, &field(0x0a, &duration)), &mut out);
        } else if self.code == Code::INVALID_ARGUMENT {
            let violation = field(0x12, self.message.as_bytes());
            write_field(0x1a, &any(BAD_REQUEST, &field(0x0a, &violation)), &mut out);
        }
        out
    }

    /// Encodes code and message as protobuf JSON.
    pub fn json(&self) -> String {
        format!(
            "{{\"code\":{},\"message\":{}}}",
            self.code.0,
            json_string(&self.message)
        )
    }
}

/// A JSON string, quotes included.
pub fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn any(type_url: &str, value: &[u8]) -> Vec<u8> {
    [field(0x0a, type_url.as_bytes()), field(0x12, value)].concat()
}

/// The delay of the `RetryInfo` in an encoded status, if there is one.
pub fn retry_delay(status: &[u8]) -> Option<Duration> {
    let mut details = all(status, 3, bytes);
    let info = details.find(|any| submessage(any, 1) == Some(RETRY_INFO.as_bytes()))?;
    let duration = submessage(info, 2).and_then(|info| submessage(info, 1));
    let duration = duration.unwrap_or_default();
    let nanos = u32::try_from(number(duration, 2).min(999_999_999)).unwrap_or_default();
    // Negative seconds look like numbers beyond i64; they mean no delay.
    let seconds = i64::try_from(number(duration, 1)).map_or(0, i64::cast_unsigned);
    Some(Duration::new(seconds, nanos))
}

/// The partial success of an `Export<Signal>ServiceResponse`: rejected items and the message.
pub fn partial_success(response: &[u8]) -> Option<(u64, String)> {
    let partial = submessage(response, 1)?;
    let rejected = i64::try_from(number(partial, 1)).map_or(0, i64::cast_unsigned);
    let message = submessage(partial, 2).unwrap_or_default();
    (rejected > 0 || !message.is_empty())
        .then(|| (rejected, String::from_utf8_lossy(message).into_owned()))
}

/// The message of an encoded status.
pub fn message(status: &[u8]) -> Option<String> {
    submessage(status, 2).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The values of a field that `read` can read, up to the first mistake in the message.
fn all<'a, T>(
    message: &'a [u8],
    number: u32,
    read: fn(Value<'a>) -> Option<T>,
) -> impl Iterator<Item = T> {
    let fields = fields(message).map_while(Result::ok);
    fields.filter_map(move |field| read(field.value).filter(|_| field.number == number))
}

fn bytes(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Length(bytes) => Some(bytes),
        _ => None,
    }
}

fn varint(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Varint(value) => Some(value),
        _ => None,
    }
}

fn submessage(message: &[u8], number: u32) -> Option<&[u8]> {
    all(message, number, bytes).next()
}

fn number(message: &[u8], number: u32) -> u64 {
    all(message, number, varint).next().unwrap_or_default()
}

/// Encodes a `grpc-message` (gRPC over HTTP/2, "Responses").
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Decodes a `grpc-message`; invalid escapes stay as they are.
pub fn percent_decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escape = after
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(escaped) = escape {
            out.push(escaped);
            rest = after.get(2..).unwrap_or_default();
        } else {
            out.push(byte);
            rest = after;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes a binary header value: base64 without padding, as gRPC requires.
pub fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = 0_u32;
        for (index, byte) in group.iter().enumerate() {
            bits |= u32::from(*byte) << (16 - 8 * index);
        }
        for position in 0..=group.len() {
            let index = (bits >> (18 - 6 * position)) & 63;
            out.extend(
                ALPHABET
                    .get(index as usize)
                    .map(|&letter| char::from(letter)),
            );
        }
    }
    out
}

/// Decodes base64 with or without padding.
pub fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = text.trim_ascii().to_vec();
    let length = base64_in_place(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}
