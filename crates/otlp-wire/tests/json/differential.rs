//! Compares with others: opentelemetry-proto's serde for the meaning of requests, `serde_json` for the syntax of
//! JSON, and prost and `inspect` for the output.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use otlp_wire::{Signal, inspect, json};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::{LIMIT, transcode};
use crate::wire::{logs, metrics, prost_takes, traces};

/// The request after its way through JSON.
fn through_json<M: Message + Default + serde::Serialize>(
    signal: Signal,
    request: &M,
    pretty: bool,
) -> M {
    let text = if pretty {
        serde_json::to_string_pretty(request)
    } else {
        serde_json::to_string(request)
    };
    let bytes = transcode(signal, &text.unwrap()).unwrap();
    inspect(signal, &bytes).unwrap();
    M::decode(bytes.as_slice()).unwrap()
}

/// Pieces that JSON is made of, and some that only look like it.
const PIECES: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    " ",
    "\"a\"",
    "\"\"",
    "\"\\n\\u00e9\"",
    "\"\\x\"",
    "\"\\u12\"",
    "\"",
    "0",
    "-0",
    "01",
    "1.5",
    "1.",
    ".5",
    "-",
    "1e5",
    "1E+5",
    "1e",
    "+1",
    "true",
    "tru",
    "false",
    "null",
    "nul",
    "\u{1}",
];

fn document() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e9..1e9).prop_map(Into::into),
        "\\PC{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 30, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            vec(("[a-c\"\\\\\n]{0,9}", inner), 0..4).prop_map(|entries| {
                entries
                    .into_iter()
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

/// Whether an unknown key may hold this text, which must be whether it is JSON.
fn is_taken(text: &str) -> bool {
    transcode(Signal::Logs, &format!("{{\"unknown\":{text}}}")).is_ok()
}

/// By syntax alone: a number may be too large for any type.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_requests_decode_like_serde(traces in traces(), metrics in metrics(), logs in logs(), pretty: bool) {
        prop_assert_eq!(&through_json(Signal::Traces, &traces, pretty), &traces);
        prop_assert_eq!(&through_json(Signal::Metrics, &metrics, pretty), &metrics);
        prop_assert_eq!(&through_json(Signal::Logs, &logs, pretty), &logs);
    }

    #[test]
    fn json_syntax_matches_serde_json(document in document(), pieces in vec(0..PIECES.len(), 0..12)) {
        prop_assert!(is_taken(&document.to_string()));
        prop_assert!(is_taken(&serde_json::to_string_pretty(&document).unwrap()));
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        let expected = is_json(&text);
        prop_assert_eq!(is_taken(&text), expected, "{}", text);
    }

    #[test]
    fn damaged_json_is_accepted_exactly_when_serde_json_accepts_it(
        document in document(),
        damage in vec((any::<prop::sample::Index>(), 0..PIECES.len()), 1..3),
    ) {
        let mut text = document.to_string();
        for (index, piece) in damage {
            let at = text.floor_char_boundary(index.index(text.len() + 1));
            text.insert_str(at, PIECES[piece]);
        }
        let expected = is_json(&text);
        prop_assert_eq!(is_taken(&text), expected, "{}", text);
    }

    #[test]
    fn damaged_requests_are_refused_or_still_protobuf(
        traces in traces(),
        metrics in metrics(),
        logs in logs(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        for (signal, text) in [
            (Signal::Traces, serde_json::to_vec::<ExportTraceServiceRequest>(&traces)),
            (Signal::Metrics, serde_json::to_vec::<ExportMetricsServiceRequest>(&metrics)),
            (Signal::Logs, serde_json::to_vec::<ExportLogsServiceRequest>(&logs)),
        ] {
            let mut text = text.unwrap();
            for (index, byte) in &damage {
                let at = index.index(text.len());
                text[at] = *byte;
            }
            if let Ok(bytes) = json::transcode(signal, &text, LIMIT, &mut |_| true) {
                prop_assert!(inspect(signal, &bytes).is_ok());
                prop_assert!(prost_takes(signal, &bytes));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        for signal in Signal::ALL {
            let _ = json::transcode(signal, &bytes, 100, &mut |_| true);
        }
    }
}
