//! Strings that are not UTF-8, in protobuf and JSON.

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::profiles::v1development::ProfilesDictionary;
use otlp_wire::{Malformed, Signal, inspect, json, repair};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use crate::wire::{field, metrics};

/// A request of one span with this name.
fn span(name: &[u8]) -> Vec<u8> {
    field(1, &field(2, &field(2, &field(5, name))))
}

/// The name after the repair.
fn repaired(name: &[u8]) -> String {
    let mut request = span(name);
    assert_eq!(inspect(Signal::Traces, &request), Err(Malformed::Utf8));
    assert_eq!(repair(Signal::Traces, &mut request), Ok(1));
    assert_eq!(inspect(Signal::Traces, &request), Ok(1));
    assert_eq!(request.len(), span(name).len());
    let mut request = ExportTraceServiceRequest::decode(request.as_slice()).unwrap();
    request.resource_spans[0].scope_spans[0]
        .spans
        .remove(0)
        .name
}

#[test]
fn each_bad_byte_becomes_a_question_mark() {
    assert_eq!(repaired(b"\xff"), "?");
    assert_eq!(repaired(b"a\xffb\xfe\xfdc"), "a?b??c");
    assert_eq!(repaired(b"gr\xfcn"), "gr?n", "Latin-1");
    assert_eq!(
        repaired("grün, 緑\u{10ffff}".as_bytes().split_last().unwrap().1),
        "grün, 緑???"
    );
    assert_eq!(repaired(b"\xed\xa0\x80"), "???", "a surrogate");
    assert_eq!(repaired(b"\xc0\xaf"), "??", "longer than it need be");
    assert_eq!(
        repaired("ü\u{80}x".as_bytes().split_first().unwrap().1),
        "?\u{80}x"
    );
}

#[test]
fn strings_at_any_depth_are_repaired_and_bytes_are_not() {
    let key_value = |value: &[u8]| field(6, &[field(1, b"k\xff"), field(2, value)].concat());
    let list = field(5, &field(1, &field(1, b"\xfe")));
    let bytes = field(7, b"\xff");
    let unknown = field(15, b"\xff");
    let record = [key_value(&list), key_value(&bytes), unknown.clone()].concat();
    let mut request = field(1, &field(2, &field(2, &record)));
    assert_eq!(repair(Signal::Logs, &mut request), Ok(3));
    assert_eq!(inspect(Signal::Logs, &request), Ok(1));
    assert!(request.ends_with(&unknown));
    assert!(request.windows(3).any(|window| window == bytes));
}

#[test]
fn dictionary_of_profiles_is_repaired() {
    let dictionary = ProfilesDictionary {
        string_table: vec!["name".to_owned(), "XX".to_owned()],
        ..ProfilesDictionary::default()
    };
    let request = ExportProfilesServiceRequest {
        dictionary: Some(dictionary),
        ..ExportProfilesServiceRequest::default()
    };
    let mut bytes = request.encode_to_vec();
    let at = bytes.windows(2).position(|window| window == b"XX").unwrap();
    bytes[at] = 0xff;
    assert_eq!(repair(Signal::Profiles, &mut bytes), Ok(1));
    let repaired = ExportProfilesServiceRequest::decode(bytes.as_slice()).unwrap();
    assert_eq!(repaired.dictionary.unwrap().string_table, ["name", "?X"]);
}

#[test]
fn what_is_no_request_is_still_refused() {
    let mut truncated = span(b"a\xffb");
    truncated.pop();
    assert_eq!(
        repair(Signal::Traces, &mut truncated),
        Err(Malformed::Truncated)
    );
    let mut deep = vec![0xff];
    for _ in 0..200 {
        deep = field(5, &field(1, &deep));
    }
    let mut deep = field(1, &field(2, &field(2, &field(5, &deep))));
    assert_eq!(repair(Signal::Logs, &mut deep), Err(Malformed::Depth));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_bad_strings_change(request in metrics()) {
        let bytes = request.encode_to_vec();
        let mut same = bytes.clone();
        prop_assert_eq!(repair(Signal::Metrics, &mut same), Ok(0));
        prop_assert_eq!(same, bytes);
    }

    #[test]
    fn repaired_names_differ_only_in_bad_bytes(name in vec(any::<u8>(), 1..40)) {
        prop_assume!(std::str::from_utf8(&name).is_err());
        let repaired = repaired(&name);
        prop_assert_eq!(repaired.len(), name.len());
        // What the standard library replaces, byte for byte.
        let mut expected = String::new();
        for chunk in name.utf8_chunks() {
            expected.push_str(chunk.valid());
            expected.push_str(&"?".repeat(chunk.invalid().len()));
        }
        prop_assert_eq!(repaired, expected);
    }
}

/// Repairs a document, and how many strings that were.
fn document(text: &[u8]) -> (usize, Result<Vec<u8>, json::Error>) {
    let transcode = |text: &[u8]| json::transcode(Signal::Traces, text, 10_000, &mut |_| true);
    assert!(matches!(transcode(text), Err(json::Error::Utf8(_))));
    let mut repaired = text.to_vec();
    let strings = json::repair(&mut repaired);
    assert_eq!(repaired.len(), text.len());
    (strings, transcode(&repaired))
}

#[test]
fn strings_of_json_are_repaired() {
    let spans = |spans: &[u8]| {
        let (before, after) = (
            &b"{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":["[..],
            b"]}]}]}",
        );
        [before, spans, after].concat()
    };
    let one = document(&spans(b"{\"name\":\"a\xff\xfe \\\" \xfdb\"}"));
    assert_eq!(one.0, 1);
    assert_eq!(one.1.unwrap(), span(b"a?? \" ?b"));
    let two = document(&spans(b"{\"name\":\"\xff\\\\\",\"traceState\":\"\xff\"}"));
    assert_eq!(two.0, 2);
    assert!(two.1.is_ok());
}

#[test]
fn bad_bytes_outside_of_json_strings_are_refused() {
    for text in [
        &b"\xff"[..],
        b"{}\xff",
        b"{\"resourceSpans\":\xff}",
        b"{\"a\":\"\\\xff\"}",
    ] {
        assert!(document(text).1.is_err());
    }
}
