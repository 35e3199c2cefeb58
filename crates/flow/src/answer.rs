//! What a status of the upstream means: the OTLP specification's table, read as a user would want it.

use std::time::Duration;

use crate::outcome::Outcome;

/// Words by which implementations say that a request is too large, in lower case: grpc-go and grpc-core ("received
/// message larger than max"), grpc-java ("message exceeds maximum size"), .NET ("exceeds the maximum configured
/// message size"), tonic ("message length too large"), Go's HTTP server ("request body too large").
const SIZE_WORDS: [&str; 8] = [
    "larger than max",
    "message size",
    "maximum size",
    "max size",
    "too large",
    "too big",
    "body size",
    "4194304",
];

fn speaks_of_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    SIZE_WORDS.iter().any(|words| message.contains(words))
}

/// The outcome of a gRPC status. `delay` is that of its `RetryInfo`.
///
/// `RESOURCE_EXHAUSTED` without a delay is a limit of size only if its message says so: a rate limit of Tempo or
/// a collector's memory limiter look the same otherwise. tonic reports a limit of size as `OUT_OF_RANGE`.
pub fn of_grpc(code: u32, message: &str, delay: Option<Duration>) -> Outcome {
    match code {
        0 => Outcome::Delivered,
        8 | 11 if delay.is_none() && speaks_of_size(message) => Outcome::TooLarge,
        8 if delay.is_none() => Outcome::Exhausted,
        // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
        1 | 4 | 8 | 10 | 11 | 14 | 15 => Outcome::Busy(delay),
        // PERMISSION_DENIED, UNIMPLEMENTED, UNAUTHENTICATED
        7 | 12 | 16 => Outcome::Denied,
        _ => Outcome::BadData,
    }
}

/// The outcome of an HTTP status. `delay` is that of `Retry-After`.
///
/// 400 is a limit of size if it says so, as a collector does. Few statuses are about the data. Any other below 500 is
/// about the way, such as a redirect, which is not followed, or 431 for a token that is too long. Any other from 500
/// on is about the load, as is a body that came too slowly (408): 507 for a full disk, 520 to 530 of Cloudflare for a
/// server that is away.
pub fn of_http(status: u16, message: &str, delay: Option<Duration>) -> Outcome {
    match status {
        200..=299 => Outcome::Delivered,
        413 => Outcome::TooLarge,
        400 if speaks_of_size(message) => Outcome::TooLarge,
        429 | 502..=504 => Outcome::Busy(delay),
        500..=599 if delay.is_some() => Outcome::Busy(delay),
        400 | 409 | 412 | 422 | 424 | 500 => Outcome::BadData,
        408 | 425 | 499 | 506..=510 | 512..=599 => Outcome::Exhausted,
        _ => Outcome::Denied,
    }
}

/// The outcome of an HTTP status that a proxy gives to a gRPC call, of which it has not read the data.
pub fn of_proxy(status: u16, delay: Option<Duration>) -> Outcome {
    match of_http(status, "", delay) {
        Outcome::BadData if status >= 500 => Outcome::Exhausted,
        Outcome::BadData | Outcome::Delivered => Outcome::Denied,
        outcome => outcome,
    }
}

/// Words by which implementations say that they do not know the encoding of a request, in lower case: grpc-go
/// ("Decompressor is not installed for grpc-encoding"), tonic ("Content is compressed with `zstd` which isn't
/// supported"), grpc-java ("Can't find decompressor for zstd"), .NET ("Unsupported grpc-encoding value"), grpc-core
/// ("Compression algorithm 'zstd' is disabled"), the collector over HTTP ("unsupported Content-Encoding: zstd").
const ENCODING_WORDS: [&str; 5] = [
    "decompress",
    "compression",
    "compressed with",
    "-encoding",
    "zstd",
];

fn speaks_of_encoding(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ENCODING_WORDS.iter().any(|words| message.contains(words))
}

/// Whether a gRPC status says that the upstream does not know the encoding of the request.
pub fn grpc_refuses_encoding(code: u32, message: &str) -> bool {
    // UNKNOWN, INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL
    matches!(code, 2 | 3 | 12 | 13) && speaks_of_encoding(message)
}

/// Whether an HTTP status says that the upstream does not know the encoding of the request. 415 may mean its type
/// as well (RFC 9110, section 15.5.16).
pub fn http_refuses_encoding(status: u16, message: &str) -> bool {
    status == 415 || matches!(status, 400 | 406 | 422 | 500 | 501) && speaks_of_encoding(message)
}
