//! OTLP/JSON: accepted, ignored and refused input, and the positions of errors.

mod differential;
mod schema;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use otlp_wire::{
    Signal, inspect,
    json::{self, Error},
};
use prost::Message;

const LIMIT: usize = 20 * 1024 * 1024;

pub fn transcode(signal: Signal, text: &str) -> Result<Vec<u8>, Error> {
    json::transcode(signal, text.as_bytes(), LIMIT, &mut |_| true)
}

/// A request of one span with these fields.
fn one_span(fields: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#)
}

fn span(fields: &str) -> Span {
    let bytes = transcode(Signal::Traces, &one_span(fields)).unwrap();
    let request = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
    request.resource_spans[0].scope_spans[0].spans[0].clone()
}

/// The value of a span's only attribute.
fn attribute(value: &str) -> Option<Value> {
    let fields = format!(r#""attributes":[{{"key":"k","value":{value}}}]"#);
    span(&fields).attributes[0].value.clone()?.value
}

fn refusal(signal: Signal, text: &str) -> String {
    transcode(signal, text).unwrap_err().to_string()
}

/// What is wrong with a span, its path from there, without the place in the text.
fn span_refusal(fields: &str) -> String {
    let message = refusal(Signal::Traces, &one_span(fields));
    let message = message.split(" at byte ").next().unwrap();
    let path = "resourceSpans[0].scopeSpans[0].spans[0]";
    message
        .strip_prefix(path)
        .unwrap_or_else(|| panic!("{message}"))
        .to_owned()
}

#[test]
fn ids_are_hexadecimal_in_either_case() {
    let span = span(
        r#""traceId":"5B8EFFF798038103D269B633813FC60c","spanId":"eee19b7ec3c1b174","parentSpanId":"""#,
    );
    assert_eq!(span.trace_id[..4], [0x5b, 0x8e, 0xff, 0xf7]);
    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
    assert_eq!(span.parent_span_id, b"");
    assert_eq!(
        span_refusal(r#""spanId":"abc""#),
        ".spanId: hexadecimal digits come in pairs"
    );
    assert_eq!(
        span_refusal(r#""spanId":"W47/95gDgQPSabYz""#),
        ".spanId: expected hexadecimal digits",
        "base64 is no id"
    );
}

#[test]
fn bytes_are_base64_of_either_alphabet_and_padding() {
    for text in ["-_8A", "+/8A"] {
        let expected = Some(Value::BytesValue(vec![0xfb, 0xff, 0x00]));
        assert_eq!(
            attribute(&format!(r#"{{"bytesValue":"{text}"}}"#)),
            expected
        );
    }
    for text in ["AQ==", "AQ", r"\u0041Q=\u003d"] {
        let value = attribute(&format!(r#"{{"bytesValue":"{text}"}}"#));
        assert_eq!(value, Some(Value::BytesValue(vec![1])), "{text}");
    }
    let escaped_as_php_does = attribute(r#"{"bytesValue":"\/\/\/\/"}"#);
    assert_eq!(escaped_as_php_does, Some(Value::BytesValue(vec![0xff; 3])));
    assert_eq!(
        attribute(r#"{"bytesValue":""}"#),
        Some(Value::BytesValue(vec![]))
    );
    for wrong in ["A", "AQ=", "=", "====", "A=B=", "AQ= =", "A!"] {
        let fields = format!(r#""attributes":[{{"value":{{"bytesValue":"{wrong}"}}}}]"#);
        let message = span_refusal(&fields);
        assert_eq!(
            message, ".attributes[0].value.bytesValue: expected base64",
            "{wrong}"
        );
    }
}

#[test]
fn keys_may_be_in_snake_case_and_escaped() {
    let span = span(r#""start_time_unix_nano":"7","\u006eame":"n","dropped_events_count":3"#);
    assert_eq!(
        (
            span.start_time_unix_nano,
            span.name.as_str(),
            span.dropped_events_count
        ),
        (7, "n", 3)
    );
    let neither =
        span_refusal(r#""name":"a","Name":1,"na_me":2,"start_TimeUnixNano":3,"kind":"?""#);
    assert_eq!(neither, ".kind: `?` is not one of its names");
}

#[test]
fn enums_are_numbers_or_names() {
    let span = span(r#""kind":"SPAN_KIND_SERVER","status":{"code":"STATUS_CODE_ERROR"}"#);
    assert_eq!((span.kind, span.status.unwrap().code), (2, 2));
    assert_eq!(self::span(r#""kind":3"#).kind, 3);
    assert_eq!(
        self::span(r#""kind":77"#).kind,
        77,
        "enums of proto3 are open"
    );
    assert_eq!(
        span_refusal(r#""status":{"code":"ERROR"}"#),
        ".status.code: `ERROR` is not one of its names"
    );
    assert_eq!(
        span_refusal(r#""kind":true"#),
        ".kind: expected a number or a name, found `true`"
    );
}

#[test]
fn whole_numbers_may_be_strings_or_have_an_exponent() {
    for (text, value) in [
        ("18446744073709551615", u64::MAX),
        ("\"18446744073709551615\"", u64::MAX),
        ("1.7e18", 1_700_000_000_000_000_000),
        ("1700000000000000001.000", 1_700_000_000_000_000_001),
        ("\"12.5E+1\"", 125),
        ("1000e-3", 1),
        ("0.0", 0),
        ("-0", 0),
    ] {
        let span = span(&format!(r#""startTimeUnixNano":{text}"#));
        assert_eq!(span.start_time_unix_nano, value, "{text}");
    }
    for (text, value) in [
        ("-9223372036854775808", i64::MIN),
        ("\"9223372036854775807\"", i64::MAX),
        ("-1e2", -100),
    ] {
        let value = Some(Value::IntValue(value));
        assert_eq!(
            attribute(&format!(r#"{{"intValue":{text}}}"#)),
            value,
            "{text}"
        );
    }
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    for (fields, message) in [
        (
            r#""startTimeUnixNano":-1"#,
            "`-1` does not fit into 64 bits",
        ),
        (
            r#""startTimeUnixNano":18446744073709551616"#,
            "`18446744073709551616` does not fit into 64 bits",
        ),
        (
            r#""startTimeUnixNano":1e999999999999999999999"#,
            "`1e999999999999999999999` does not fit into 64 bits",
        ),
        (r#""startTimeUnixNano":1.5"#, "`1.5` is not a whole number"),
        (
            r#""startTimeUnixNano":1e-9"#,
            "`1e-9` is not a whole number",
        ),
        (r#""startTimeUnixNano":"" "#, "`` is not a whole number"),
        (r#""startTimeUnixNano":" 1""#, "` 1` is not a whole number"),
        (
            r#""startTimeUnixNano":"0x1""#,
            "`0x1` is not a whole number",
        ),
        (
            r#""startTimeUnixNano":true"#,
            "expected a number, found `true`",
        ),
    ] {
        assert_eq!(
            span_refusal(fields),
            format!(".startTimeUnixNano: {message}")
        );
    }
    let flags = span_refusal(r#""flags":4294967296"#);
    assert_eq!(flags, ".flags: `4294967296` does not fit into 32 bits");
}

#[test]
fn doubles_may_be_strings_and_words() {
    let double = |text: &str| match attribute(&format!(r#"{{"doubleValue":{text}}}"#)) {
        Some(Value::DoubleValue(value)) => value,
        other => panic!("{other:?}"),
    };
    assert_eq!(double("0.1").to_bits(), 0.1_f64.to_bits());
    assert_eq!(double("\"-1.5e3\"").to_bits(), (-1500.0_f64).to_bits());
    assert_eq!(double("7").to_bits(), 7.0_f64.to_bits());
    assert_eq!(
        double("2.2250738585072011e-308").to_bits(),
        2.225_073_858_507_201e-308_f64.to_bits()
    );
    assert!(double("\"NaN\"").is_nan());
    assert_eq!(double("\"Infinity\"").to_bits(), f64::INFINITY.to_bits());
    assert_eq!(
        double("\"-Infinity\"").to_bits(),
        f64::NEG_INFINITY.to_bits()
    );
    for (text, message) in [
        ("\"inf\"", "`inf` is not a number"),
        ("\"+1\"", "`+1` is not a number"),
        ("\"\"", "`` is not a number"),
        ("1e999", "`1e999` does not fit into a double"),
    ] {
        let fields = format!(r#""attributes":[{{"value":{{"doubleValue":{text}}}}}]"#);
        let expected = format!(".attributes[0].value.doubleValue: {message}");
        assert_eq!(span_refusal(&fields), expected);
    }
}

#[test]
fn attribute_values_may_have_every_type_or_none() {
    assert_eq!(attribute("{}"), None);
    assert_eq!(
        attribute(r#"{"stringValue":""}"#),
        Some(Value::StringValue(String::new()))
    );
    assert_eq!(
        attribute(r#"{"boolValue":false}"#),
        Some(Value::BoolValue(false))
    );
    assert_eq!(attribute(r#"{"intValue":0}"#), Some(Value::IntValue(0)));
    assert_eq!(
        attribute(r#"{"stringValueStrindex":4}"#),
        Some(Value::StringValueStrindex(4))
    );
    let nested = attribute(
        r#"{"arrayValue":{"values":[{},{"kvlistValue":{"values":[{"key":"a","value":{"intValue":"1"}},{}]}}]}}"#,
    );
    let Some(Value::ArrayValue(array)) = nested else {
        panic!("{nested:?}");
    };
    assert_eq!(array.values.len(), 2);
    assert!(
        matches!(&array.values[1].value, Some(Value::KvlistValue(list)) if list.values.len() == 2)
    );
}

#[test]
fn null_is_absent_also_within_a_oneof() {
    let span = span(r#""name":null,"attributes":null,"status":null,"kind":null,"name":"n""#);
    assert_eq!(
        (span.name.as_str(), span.attributes.len(), span.status),
        ("n", 0, None)
    );
    let value = attribute(r#"{"stringValue":null,"intValue":1,"boolValue":null}"#);
    assert_eq!(value, Some(Value::IntValue(1)));
    assert_eq!(
        span_refusal(r#""attributes":[{}, null]"#),
        ".attributes[1]: expected an object, found `null`"
    );
}

#[test]
fn duplicate_keys_are_refused() {
    assert_eq!(
        span_refusal(r#""name":"a","name":"b""#),
        ".name: is given twice"
    );
    let both = span_refusal(r#""traceId":"","trace_id":"aa""#);
    assert_eq!(both, ".traceId: is given twice");
    let choice = span_refusal(r#""attributes":[{"value":{"intValue":1,"stringValue":"a"}}]"#);
    assert_eq!(
        choice,
        ".attributes[0].value.stringValue: is given together with a key that excludes it"
    );
}

#[test]
fn unknown_keys_are_ignored_if_their_values_are_json() {
    let span = span(
        r#""new":{"a":[1,-2.5e-3,{"b":{}},[]],"c":"\u00e9\\","d":[true,false,null]},"name":"n","x":1,"":{}"#,
    );
    assert_eq!(span.name, "n");
    for (fields, message) in [
        (r#""new":[1,2"#, ".new: expected `,` or `]`, found `}`"),
        (
            r#""new":{"a":01}"#,
            ".new: expected `,` or `}`, found a number",
        ),
        (r#""new":[1,]"#, ".new: expected a value, found `]`"),
        (r#""new":tru"#, ".new: expected a value, found `tru`"),
        (r#""new":"\x""#, ".new: an unknown escape in a string"),
        (r#""new":-"#, ".new: a number that ends too early"),
        (r#""new" 1"#, ".new: expected `:`, found a number"),
        (r"new:1", ": expected a key, found `new`"),
    ] {
        assert_eq!(span_refusal(fields), message);
    }
    let deep = |levels: usize| format!(r#""new":{}{}"#, "[".repeat(levels), "]".repeat(levels));
    self::span(&deep(100));
    assert_eq!(
        span_refusal(&deep(101)),
        ".new: values are nested deeper than 100"
    );
    let million = format!(r#"{{"new":{}"#, "[{\"a\":".repeat(1_000_000));
    let message = refusal(Signal::Traces, &million);
    assert_eq!(message, "new: values are nested deeper than 100");
}

#[test]
fn document_must_be_one_utf_8_object() {
    assert_eq!(transcode(Signal::Traces, " {} \n"), Ok(Vec::new()));
    for (text, message) in [
        ("", "expected an object, found the end at byte 0"),
        ("[]", "expected an object, found an array at byte 0"),
        ("{}{}", "expected the end, found an object at byte 2"),
        ("{", "expected a key, found the end at byte 1"),
        (
            "\u{feff}{}",
            "expected an object, found `\u{feff}` at byte 0",
        ),
        ("{\"a", "a string without end at byte 3"),
        ("{\"a\n\":1}", "a control character in a string at byte 3"),
        (
            "{\"resourceSpans\":{}}",
            "resourceSpans: expected an array, found an object at byte 17",
        ),
    ] {
        assert_eq!(refusal(Signal::Traces, text), message);
    }
    let error = json::transcode(Signal::Traces, b"{\"a\xff\":1}", LIMIT, &mut |_| true);
    assert_eq!(error.unwrap_err().to_string(), "not UTF-8 at byte 3");
}

#[test]
fn text_is_unescaped_and_lone_surrogates_replaced() {
    let text = |text: &str| span(&format!(r#""name":"{text}""#)).name;
    assert_eq!(text(r#"\"\\\/\b\f\n\r\t"#), "\"\\/\u{8}\u{c}\n\r\t");
    assert_eq!(text(r"a\u0000\u00e9\u20ACz"), "a\0é€z");
    assert_eq!(text(r"\ud83d\uDE00é"), "😀é");
    assert_eq!(text(r"cut \ud83d"), "cut \u{fffd}");
    assert_eq!(
        text(r"\ude00\ud83d\ud83d\ude00\ud83dx"),
        "\u{fffd}\u{fffd}😀\u{fffd}x"
    );
    for wrong in [r"\u12g4", r"\u", r"\U0041", r"\"] {
        let message = span_refusal(&format!(r#""name":"{wrong}"#));
        assert!(message.contains("an unknown escape"), "{wrong}: {message}");
    }
}

#[test]
fn values_nest_as_deep_as_inspect_allows() {
    let nested = |levels: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(levels);
        let close = "]}}".repeat(levels);
        let body = format!("{open}{close}");
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{body}}}]}}]}}]}}"#)
    };
    let bytes = transcode(Signal::Logs, &nested(48)).unwrap();
    let inspected = inspect(Signal::Logs, &bytes);
    assert_eq!(inspected, Ok(1));
    assert!(ExportLogsServiceRequest::decode(bytes.as_slice()).is_ok());
    let message = refusal(Signal::Logs, &nested(49));
    assert!(
        message.ends_with("values are nested deeper than 100"),
        "{message}"
    );
    assert!(
        message.starts_with("resourceLogs[0].scopeLogs[0].logRecords[0].body.arrayValue.values[0]")
    );
    refusal(Signal::Logs, &nested(500_000));
}

#[test]
fn lengths_of_every_width_are_correct() {
    for size in [
        0, 1, 100, 126, 127, 128, 129, 16_000, 16_383, 16_384, 2_097_152,
    ] {
        for text in ["x".repeat(size), r"\u0078".repeat(size)] {
            let entry = format!(
                r#"{{"key":"k","value":{{"kvlistValue":{{"values":[{{"key":"{text}"}},{{}},{{"key":"{text}"}}]}}}}}}"#
            );
            let span = span(&format!(
                r#""attributes":[{{}},{entry},{{"key":"b"}}],"name":"n""#
            ));
            assert_eq!((span.attributes.len(), span.name.as_str()), (3, "n"));
            let value = span.attributes[1].value.as_ref().unwrap().value.as_ref();
            let Some(Value::KvlistValue(list)) = value else {
                panic!("{value:?}");
            };
            let sizes: Vec<_> = list.values.iter().map(|entry| entry.key.len()).collect();
            assert_eq!(sizes, [size, 0, size]);
        }
    }
}

#[test]
fn number_lists_are_packed_and_empty_lists_absent() {
    let text = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","histogram":{"dataPoints":[
        {"bucketCounts":["1",2,0],"explicitBounds":[0.5,"NaN",0],"sum":0},{"bucketCounts":[],"min":0}]}}]}]}]}"#;
    let bytes = transcode(Signal::Metrics, text).unwrap();
    let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
    let data = &request.resource_metrics[0].scope_metrics[0].metrics[0].data;
    let Some(Data::Histogram(histogram)) = data else {
        panic!("{data:?}");
    };
    let [first, second] = histogram.data_points.as_slice() else {
        panic!("{histogram:?}");
    };
    assert_eq!(first.bucket_counts, [1, 2, 0]);
    assert!(first.explicit_bounds[1].is_nan());
    assert_eq!((first.sum, first.min), (Some(0.0), None));
    assert_eq!(
        second.encode_to_vec().len(),
        9,
        "only `min`, which is optional, is there"
    );
    let wrong = text.replace("2,0]", "2,-1]");
    assert_eq!(
        refusal(Signal::Metrics, &wrong),
        "resourceMetrics[0].scopeMetrics[0].metrics[0].histogram.dataPoints[0].bucketCounts[2]: `-1` does not fit into 64 bits"
    );
}

/// Two bytes of text for eight of protobuf: the largest growth there is.
fn zeros(count: usize) -> String {
    let zeros = vec!["0"; count].join(",");
    format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"bucketCounts":[{zeros}]}}]}}}}]}}]}}]}}"#
    )
}

#[test]
fn result_larger_than_the_limit_is_refused() {
    let text = zeros(1000);
    let size = transcode(Signal::Metrics, &text).unwrap().len();
    assert!(size > 8000);
    for limit in 0..size {
        let result = json::transcode(Signal::Metrics, text.as_bytes(), limit, &mut |_| true);
        assert_eq!(result, Err(Error::TooLarge(limit)));
    }
    let result = json::transcode(Signal::Metrics, text.as_bytes(), size, &mut |_| true);
    assert_eq!(result.unwrap().len(), size);
}

#[test]
fn memory_is_granted_before_it_is_allocated() {
    for text in [
        zeros(1000),
        one_span(&format!(r#""name":"{}""#, "a".repeat(1000))),
    ] {
        let signal = if text.contains("Spans") {
            Signal::Traces
        } else {
            Signal::Metrics
        };
        let mut granted = 0;
        let mut times = 0;
        let mut grant = |more| {
            granted += more;
            times += 1;
            true
        };
        let bytes = json::transcode(signal, text.as_bytes(), LIMIT, &mut grant).unwrap();
        assert!(
            bytes.capacity() <= granted,
            "{} > {granted}",
            bytes.capacity()
        );
        for refused in 0..times {
            let mut left = refused;
            let mut grant = |_| {
                left -= 1;
                left >= 0
            };
            let result = json::transcode(signal, text.as_bytes(), LIMIT, &mut grant);
            assert_eq!(result, Err(Error::Exhausted));
        }
    }
}
