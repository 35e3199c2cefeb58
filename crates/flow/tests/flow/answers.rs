//! What statuses mean.

use std::time::Duration;

use otelagent_flow::{
    Outcome, grpc_refuses_encoding, http_refuses_encoding, of_grpc, of_http, of_proxy,
};

const SECOND: Option<Duration> = Some(Duration::from_secs(1));

#[test]
fn exhausted_status_is_about_size_only_if_its_message_says_so() {
    for message in [
        "grpc: received message larger than max (5034010 vs. 4194304)",
        "grpc: received message after decompression larger than max 4194304",
        "gRPC message exceeds maximum size 4194304: 5034010",
        "Received message exceeds the maximum configured message size.",
    ] {
        assert_eq!(of_grpc(8, message, None), Outcome::TooLarge, "{message}");
    }
    let tonic =
        "Error, decoded message length too large: found 5034010 bytes, the limit is: 4194304 bytes";
    assert_eq!(of_grpc(11, tonic, None), Outcome::TooLarge);
    for message in [
        "RATE_LIMITED: ingestion rate limit exceeded",
        "data refused due to high memory usage",
        "",
    ] {
        assert_eq!(of_grpc(8, message, None), Outcome::Exhausted, "{message}");
        assert_eq!(of_grpc(8, message, SECOND), Outcome::Busy(SECOND));
    }
}

#[test]
fn grpc_statuses_are_about_data_way_or_load() {
    for code in [2, 3, 5, 6, 9, 13, 99] {
        assert_eq!(of_grpc(code, "", None), Outcome::BadData, "{code}");
    }
    for code in [7, 12, 16] {
        assert_eq!(of_grpc(code, "", None), Outcome::Denied, "{code}");
    }
    for code in [1, 4, 10, 11, 14, 15] {
        assert_eq!(of_grpc(code, "", SECOND), Outcome::Busy(SECOND), "{code}");
    }
}

#[test]
fn http_statuses_are_about_size_data_way_or_load() {
    assert_eq!(of_http(204, "", None), Outcome::Delivered);
    assert_eq!(of_http(413, "", None), Outcome::TooLarge);
    let collector = "http: request body too large";
    assert_eq!(of_http(400, collector, None), Outcome::TooLarge);
    for status in [400, 409, 422, 500] {
        assert_eq!(of_http(status, "", None), Outcome::BadData, "{status}");
    }
    for status in [
        101, 301, 307, 401, 403, 404, 405, 406, 411, 417, 431, 451, 464, 501, 505, 511, 600, 999,
    ] {
        assert_eq!(of_http(status, "", None), Outcome::Denied, "{status}");
    }
    for status in [408, 425, 499, 507, 509, 520, 521, 529, 530, 599] {
        assert_eq!(of_http(status, "", None), Outcome::Exhausted, "{status}");
    }
    for status in [429, 500, 502, 503, 504, 507, 522] {
        let outcome = of_http(status, "", SECOND);
        assert_eq!(outcome, Outcome::Busy(SECOND), "{status}");
    }
}

#[test]
fn proxy_in_front_of_grpc_says_nothing_about_data() {
    for status in [200, 204, 400, 404, 415, 422] {
        assert_eq!(of_proxy(status, None), Outcome::Denied, "{status}");
    }
    assert_eq!(of_proxy(413, None), Outcome::TooLarge);
    assert_eq!(of_proxy(500, None), Outcome::Exhausted);
    assert_eq!(of_proxy(503, SECOND), Outcome::Busy(SECOND));
}

#[test]
fn unknown_encoding_is_told_from_bad_data() {
    for (code, message) in [
        (
            12,
            "grpc: Decompressor is not installed for grpc-encoding \"zstd\"",
        ),
        (
            13,
            "grpc: Decompressor is not installed for grpc-encoding \"zstd\"",
        ),
        (
            12,
            "Content is compressed with `zstd` which isn't supported",
        ),
        (12, "Can't find decompressor for zstd"),
        (13, "Can't find decompressor for zstd"),
        (
            12,
            "Unsupported grpc-encoding value 'zstd'. Supported encodings: identity, gzip, deflate",
        ),
        (12, "Compression algorithm 'zstd' is disabled."),
    ] {
        assert!(grpc_refuses_encoding(code, message), "{code} {message}");
    }
    for (code, message) in [
        (
            12,
            "unknown service opentelemetry.proto.collector.trace.v1.TraceService",
        ),
        (13, "unmarshal: invalid TraceID length"),
        (14, "compression is slow today"),
        (0, "zstd"),
    ] {
        assert!(!grpc_refuses_encoding(code, message), "{code} {message}");
    }
    assert!(http_refuses_encoding(415, ""));
    assert!(http_refuses_encoding(
        400,
        "unsupported Content-Encoding: zstd"
    ));
    assert!(!http_refuses_encoding(
        400,
        "unmarshal: invalid TraceID length"
    ));
    assert!(!http_refuses_encoding(404, "zstd"));
}
