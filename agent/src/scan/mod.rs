//! Reading OTLP requests on the wire: whether they are well formed and how many items they carry.
//! Nothing is decoded into objects and nothing is allocated. Must not know HTTP, gRPC or queues.
//!
//! What passes here parses in every protobuf implementation, so one client's bytes can be merged with
//! another's without risk to either (OTLP specification; Protocol Buffers encoding).

mod otlp;
mod schema;
mod wire;

pub(crate) use schema::{Field, Label, Message, Type};
pub(crate) use wire::{Cursor, Value, varint_length, write_varint};

use schema::Kind;

/// Messages that may be nested in one another, as many as prost and Go's gRPC allow.
pub const MAX_DEPTH: u32 = 100;

/// What an OTLP request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
    /// Samples of profiles, whose protocol is still in development.
    Profiles,
}

impl Signal {
    /// How many signals there are.
    pub const COUNT: usize = 4;

    /// Every signal, in the order of [`Signal::index`].
    pub const ALL: [Self; Self::COUNT] = [Self::Traces, Self::Metrics, Self::Logs, Self::Profiles];

    /// `traces`, `metrics`, `logs` or `profiles`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Profiles => "profiles",
        }
    }

    /// What the collector's metrics call its items.
    pub fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metric_points",
            Self::Logs => "log_records",
            Self::Profiles => "profile_samples",
        }
    }

    /// Position in [`Signal::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Path of its requests over HTTP (OTLP specification, "OTLP/HTTP Request").
    pub fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
            Self::Profiles => "/v1development/profiles",
        }
    }

    /// Path of its requests over gRPC.
    pub fn grpc_path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Profiles => {
                "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
            }
        }
    }

    /// Whether requests laid end to end are one request, and whether their resources may be edited.
    /// Profiles refer by number to the one dictionary of their request, so they are passed as they are.
    pub fn is_mergeable(self) -> bool {
        self != Self::Profiles
    }

    /// The schema of its requests.
    pub(crate) fn request(self) -> &'static Message {
        match self {
            Self::Traces => &otlp::TRACES,
            Self::Metrics => &otlp::METRICS,
            Self::Logs => &otlp::LOGS,
            Self::Profiles => &otlp::PROFILES,
        }
    }
}

/// Why bytes are not an OTLP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end inside a field, or a length points behind their end.
    #[error("the request ends inside a field")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("a varint is longer than ten bytes")]
    Varint,
    /// A tag that names no field.
    #[error("a field has number 0 or one beyond 32 bits")]
    FieldNumber,
    /// A known field encoded as something else, or a wire type that does not exist.
    #[error("a field has the wrong wire type")]
    WireType,
    /// A group that is not closed, or closed by another's end.
    #[error("a group is not closed")]
    Group,
    /// A string field that holds other bytes.
    #[error("a string is not valid UTF-8")]
    Utf8,
    /// More than [`MAX_DEPTH`] messages inside one another.
    #[error("values are nested deeper than 100 messages")]
    Depth,
}

/// Checks a whole `Export<Signal>ServiceRequest` and counts its spans, data points, log
/// records or samples of profiles.
///
/// # Errors
/// The first reason why the bytes are not such a request.
pub fn inspect(signal: Signal, request: &[u8]) -> Result<usize, Malformed> {
    let mut items = 0;
    message(request, signal.request(), MAX_DEPTH, &mut items)?;
    Ok(items)
}

fn message(
    bytes: &[u8],
    schema: &'static Message,
    depth: u32,
    items: &mut usize,
) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(bytes);
    while !cursor.is_at_end() {
        let (number, wire_type) = cursor.tag()?;
        match (schema.kind(number), cursor.value(number, wire_type, depth)?) {
            (Kind::Unknown, _) => {
                if depth == 0 {
                    return Err(Malformed::Depth);
                }
            }
            (Kind::Varint | Kind::PackedVarint, Value::Varint(_))
            | (Kind::Fixed64 | Kind::PackedFixed64, Value::Fixed64)
            | (Kind::Fixed32, Value::Fixed32)
            | (Kind::Bytes, Value::Length(_)) => {}
            (Kind::Text, Value::Length(text)) => check_text(text)?,
            (Kind::Message(inner), Value::Length(bytes)) => {
                if !(std::ptr::eq(inner, &raw const otlp::KEY_VALUE)
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
    Ok(())
}

/// Whether a `KeyValue` is one as SDKs write it: a key of ASCII letters, then a value that is one such
/// string, or one number. Most bytes of telemetry are in these, so they are not walked field by field;
/// whatever looks different is, and may well be valid.
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

/// Tags of the fields above, in one byte each.
const KEY: u8 = 0x0a;
const VALUE: u8 = 0x12;
const STRING: u8 = 0x0a;
const BOOL: u8 = 0x10;
const INTEGER: u8 = 0x18;

/// A field with this tag and less than 128 bytes at the beginning, and what follows it.
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

/// Eight bytes at a time, the last of them twice: most strings are too short for anything wider.
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

fn below(depth: u32) -> Result<u32, Malformed> {
    depth.checked_sub(1).ok_or(Malformed::Depth)
}
