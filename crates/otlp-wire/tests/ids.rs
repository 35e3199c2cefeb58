//! Ids of other lengths than upstreams take, in every message that has one.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data,
};
use opentelemetry_proto::tonic::profiles::v1development::{
    Link as ProfileLink, Profile, ProfilesDictionary, ResourceProfiles, ScopeProfiles,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span::Link};
use otlp_wire::{Malformed, Signal, inspect};
use prost::Message;

use crate::json::transcode;

fn spans(span: Span) -> Vec<u8> {
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn link(link: Link) -> Vec<u8> {
    spans(Span {
        links: vec![link],
        ..Span::default()
    })
}

fn record(record: LogRecord) -> Vec<u8> {
    let scope_logs = vec![ScopeLogs {
        log_records: vec![record],
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        scope_logs,
        ..ResourceLogs::default()
    }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn exemplar(exemplar: Exemplar) -> Vec<u8> {
    let point = NumberDataPoint {
        exemplars: vec![exemplar],
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        data: Some(Data::Gauge(Gauge {
            data_points: vec![point],
        })),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics {
        metrics: vec![metric],
        ..ScopeMetrics::default()
    }];
    let resource_metrics = vec![ResourceMetrics {
        scope_metrics,
        ..ResourceMetrics::default()
    }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

fn profile(profile_id: Vec<u8>, link: ProfileLink) -> Vec<u8> {
    let scope_profiles = vec![ScopeProfiles {
        profiles: vec![Profile {
            profile_id,
            ..Profile::default()
        }],
        ..ScopeProfiles::default()
    }];
    ExportProfilesServiceRequest {
        resource_profiles: vec![ResourceProfiles {
            scope_profiles,
            ..ResourceProfiles::default()
        }],
        dictionary: Some(ProfilesDictionary {
            link_table: vec![link],
            ..ProfilesDictionary::default()
        }),
    }
    .encode_to_vec()
}

/// A request with an id.
type WithId = fn(Vec<u8>) -> Vec<u8>;

/// Every id of OTLP: its signal, its name, its length.
#[rustfmt::skip]
const IDS: &[(Signal, &str, usize, WithId)] = &[
    (Signal::Traces, "traceId", 16, |id| spans(Span { trace_id: id, ..Span::default() })),
    (Signal::Traces, "spanId", 8, |id| spans(Span { span_id: id, ..Span::default() })),
    (Signal::Traces, "parentSpanId", 8, |id| spans(Span { parent_span_id: id, ..Span::default() })),
    (Signal::Traces, "traceId", 16, |id| link(Link { trace_id: id, ..Link::default() })),
    (Signal::Traces, "spanId", 8, |id| link(Link { span_id: id, ..Link::default() })),
    (Signal::Logs, "traceId", 16, |id| record(LogRecord { trace_id: id, ..LogRecord::default() })),
    (Signal::Logs, "spanId", 8, |id| record(LogRecord { span_id: id, ..LogRecord::default() })),
    (Signal::Metrics, "traceId", 16, |id| exemplar(Exemplar { trace_id: id, ..Exemplar::default() })),
    (Signal::Metrics, "spanId", 8, |id| exemplar(Exemplar { span_id: id, ..Exemplar::default() })),
    (Signal::Profiles, "traceId", 16, |id| profile(Vec::new(), ProfileLink { trace_id: id, ..ProfileLink::default() })),
    (Signal::Profiles, "spanId", 8, |id| profile(Vec::new(), ProfileLink { span_id: id, ..ProfileLink::default() })),
    (Signal::Profiles, "profileId", 16, |id| profile(id, ProfileLink::default())),
];

#[test]
fn ids_have_their_length_or_none() {
    for (signal, field, expected, request) in IDS {
        for length in 0..40 {
            let inspected = inspect(*signal, &request(vec![1; length]));
            if length == 0 || length == *expected {
                assert!(inspected.is_ok(), "{field} of {length}");
            } else {
                let refused = Malformed::IdLength {
                    field,
                    expected: *expected,
                    length,
                };
                assert_eq!(inspected, Err(refused));
            }
        }
    }
}

#[test]
fn refusal_names_the_id_and_its_length() {
    let short = spans(Span {
        parent_span_id: vec![1; 7],
        ..Span::default()
    });
    let refused = inspect(Signal::Traces, &short).unwrap_err().to_string();
    assert_eq!(refused, "parentSpanId has 7 bytes, but must have 8 or none");
}

#[test]
fn ids_in_json_have_their_length_or_none() {
    let request = |id: &str| {
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"traceId":"{id}"}}]}}]}}]}}"#)
    };
    for digits in [0, 32] {
        transcode(Signal::Logs, &request(&"a".repeat(digits))).unwrap();
    }
    for digits in [2, 16, 30, 34, 64] {
        let refused = transcode(Signal::Logs, &request(&"a".repeat(digits))).unwrap_err();
        let expected = format!(
            "resourceLogs[0].scopeLogs[0].logRecords[0].traceId: has {} bytes, but must have 16 or none",
            digits / 2
        );
        assert_eq!(refused.to_string(), expected);
    }
}
