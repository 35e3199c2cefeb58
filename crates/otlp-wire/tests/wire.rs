//! Compares operations on bytes with prost: checks, counts, concatenation and edits give the same results as
//! decoded objects.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::profiles::v1development::{
    Profile, ResourceProfiles, Sample, ScopeProfiles,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span::Event, span::Link,
};
use otlp_wire::{
    AttributeAction, AttributeEdit, AttributeValue, Edits, Malformed, Signal, inspect,
};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        "\\PC{0,12}".prop_map(|text| Some(any_value::Value::StringValue(text))),
        any::<bool>().prop_map(|value| Some(any_value::Value::BoolValue(value))),
        any::<i64>().prop_map(|value| Some(any_value::Value::IntValue(value))),
        (-1e9..1e9).prop_map(|value| Some(any_value::Value::DoubleValue(value))),
        vec(any::<u8>(), 0..9).prop_map(|bytes| Some(any_value::Value::BytesValue(bytes))),
    ];
    let leaf = leaf.prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|values| AnyValue {
                value: Some(any_value::Value::ArrayValue(ArrayValue { values })),
            }),
            vec(("[a-c]{0,2}", inner), 0..3).prop_map(|entries| AnyValue {
                value: Some(any_value::Value::KvlistValue(KeyValueList {
                    values: entries
                        .into_iter()
                        .map(|(key, value)| key_value(key, value))
                        .collect(),
                })),
            }),
        ]
    })
}

fn key_value(key: String, value: AnyValue) -> KeyValue {
    KeyValue {
        key,
        value: Some(value),
        ..KeyValue::default()
    }
}

/// Few different keys, so that edits meet them; without duplicates, which are no valid data.
pub fn text(key: &str, value: &str) -> KeyValue {
    key_value(
        key.into(),
        AnyValue {
            value: Some(any_value::Value::StringValue(value.into())),
        },
    )
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(("[a-e]", any_value()), 0..4).prop_map(|entries| {
        let mut attributes: Vec<KeyValue> = Vec::new();
        for (key, value) in entries {
            if !attributes.iter().any(|attribute| attribute.key == key) {
                attributes.push(key_value(key, value));
            }
        }
        attributes
    })
}

fn resource() -> impl Strategy<Value = Option<Resource>> {
    proptest::option::of(
        (attributes(), 0..3_u32).prop_map(|(attributes, dropped)| Resource {
            attributes,
            dropped_attributes_count: dropped,
            ..Resource::default()
        }),
    )
}

fn instrumentation_scope() -> impl Strategy<Value = Option<InstrumentationScope>> {
    proptest::option::of(("\\PC{0,5}", attributes()).prop_map(|(name, attributes)| {
        InstrumentationScope {
            name,
            attributes,
            ..InstrumentationScope::default()
        }
    }))
}

fn span() -> impl Strategy<Value = Span> {
    (
        vec(any::<u8>(), 16),
        "\\PC{0,20}",
        attributes(),
        any::<u64>(),
        attributes(),
        any::<u32>(),
    )
        .prop_map(|(trace_id, name, attributes, time, event, flags)| Span {
            trace_id: trace_id.clone(),
            name: name.clone(),
            trace_state: name.clone(),
            start_time_unix_nano: time,
            attributes,
            kind: 3,
            flags,
            events: vec![Event {
                time_unix_nano: time,
                name: name.clone(),
                attributes: event.clone(),
                dropped_attributes_count: 1,
            }],
            links: vec![Link {
                trace_id,
                attributes: event,
                flags,
                ..Link::default()
            }],
            status: Some(Status {
                message: name,
                code: 2,
            }),
            ..Span::default()
        })
}

pub fn traces() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = (instrumentation_scope(), vec(span(), 0..3), "\\PC{0,5}").prop_map(
        |(scope, spans, schema_url)| ScopeSpans {
            scope,
            spans,
            schema_url,
        },
    );
    let entry = (resource(), vec(scope, 0..3), "\\PC{0,5}").prop_map(
        |(resource, scope_spans, schema_url)| ResourceSpans {
            resource,
            scope_spans,
            schema_url,
        },
    );
    vec(entry, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

pub fn logs() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let record =
        (any_value(), attributes(), "\\PC{0,9}").prop_map(|(body, attributes, text)| LogRecord {
            body: Some(body),
            attributes,
            severity_text: text.clone(),
            event_name: text,
            observed_time_unix_nano: 5,
            flags: 1,
            ..LogRecord::default()
        });
    let scope = vec(record, 0..4).prop_map(|log_records| ScopeLogs {
        log_records,
        ..ScopeLogs::default()
    });
    let entry = (resource(), vec(scope, 0..3)).prop_map(|(resource, scope_logs)| ResourceLogs {
        resource,
        scope_logs,
        ..ResourceLogs::default()
    });
    vec(entry, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn number_point(attributes: Vec<KeyValue>, value: i64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes.clone(),
        exemplars: vec![Exemplar {
            filtered_attributes: attributes,
            span_id: vec![1; 8],
            ..Exemplar::default()
        }],
        value: Some(number_data_point::Value::AsInt(value)),
        ..NumberDataPoint::default()
    }
}

fn metric_data() -> impl Strategy<Value = Data> {
    (0..5, attributes(), vec(any::<i64>(), 0..4)).prop_map(|(kind, attributes, values)| {
        let numbers = values
            .iter()
            .map(|value| number_point(attributes.clone(), *value))
            .collect();
        match kind {
            0 => Data::Gauge(Gauge {
                data_points: numbers,
            }),
            1 => Data::Sum(Sum {
                data_points: numbers,
                aggregation_temporality: 2,
                is_monotonic: true,
            }),
            2 => Data::Histogram(Histogram {
                data_points: values
                    .iter()
                    .map(|value| HistogramDataPoint {
                        attributes: attributes.clone(),
                        bucket_counts: vec![value.unsigned_abs(); 3],
                        explicit_bounds: vec![0.5, 1.5],
                        sum: Some(1.0),
                        ..HistogramDataPoint::default()
                    })
                    .collect(),
                aggregation_temporality: 1,
            }),
            3 => Data::ExponentialHistogram(ExponentialHistogram {
                data_points: values
                    .iter()
                    .map(|value| ExponentialHistogramDataPoint {
                        attributes: attributes.clone(),
                        scale: -3,
                        positive: Some(Buckets {
                            offset: -7,
                            bucket_counts: vec![value.unsigned_abs(), 1, 300],
                        }),
                        zero_threshold: 0.1,
                        ..ExponentialHistogramDataPoint::default()
                    })
                    .collect(),
                aggregation_temporality: 1,
            }),
            _ => Data::Summary(Summary {
                data_points: values
                    .iter()
                    .map(|_| SummaryDataPoint {
                        attributes: attributes.clone(),
                        quantile_values: vec![ValueAtQuantile {
                            quantile: 0.5,
                            value: 3.0,
                        }],
                        ..SummaryDataPoint::default()
                    })
                    .collect(),
            }),
        }
    })
}

pub fn metrics() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let metric =
        ("\\PC{0,9}", metric_data(), attributes()).prop_map(|(name, data, metadata)| Metric {
            name: name.clone(),
            description: name.clone(),
            unit: name,
            data: Some(data),
            metadata,
        });
    let scope = vec(metric, 0..4).prop_map(|metrics| ScopeMetrics {
        metrics,
        ..ScopeMetrics::default()
    });
    let entry =
        (resource(), vec(scope, 0..3)).prop_map(|(resource, scope_metrics)| ResourceMetrics {
            resource,
            scope_metrics,
            ..ResourceMetrics::default()
        });
    vec(entry, 0..3).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

fn count_spans(request: &ExportTraceServiceRequest) -> usize {
    let entries = request.resource_spans.iter();
    let scopes = entries.flat_map(|entry| &entry.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

fn count_logs(request: &ExportLogsServiceRequest) -> usize {
    let scopes = request
        .resource_logs
        .iter()
        .flat_map(|entry| &entry.scope_logs);
    scopes.map(|scope| scope.log_records.len()).sum()
}

fn count_points(request: &ExportMetricsServiceRequest) -> usize {
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|entry| &entry.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics);
    metrics
        .map(|metric| match metric.data.as_ref().unwrap() {
            Data::Gauge(data) => data.data_points.len(),
            Data::Sum(data) => data.data_points.len(),
            Data::Histogram(data) => data.data_points.len(),
            Data::ExponentialHistogram(data) => data.data_points.len(),
            Data::Summary(data) => data.data_points.len(),
        })
        .sum()
}

fn attribute_value() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        "\\PC{0,9}".prop_map(AttributeValue::Text),
        any::<bool>().prop_map(AttributeValue::Bool),
        any::<i64>().prop_map(AttributeValue::Integer),
        (-1e9..1e9).prop_map(AttributeValue::Float),
    ]
}

fn edits() -> impl Strategy<Value = Vec<AttributeEdit>> {
    let edit = ("[a-g]", "[a-g]", 0..5, attribute_value());
    let edit = edit.prop_map(|(key, source, action, value)| AttributeEdit {
        key,
        action: match action {
            0 => AttributeAction::Insert(value),
            1 => AttributeAction::Update(value),
            2 => AttributeAction::Upsert(value),
            3 => AttributeAction::InsertFrom(source),
            _ => AttributeAction::Delete,
        },
    });
    vec(edit, 1..5)
}

/// Applies edits without limits. What is allocated is what was asked for, to the byte.
pub fn apply(edits: &[AttributeEdit], request: &[u8]) -> Vec<u8> {
    let mut granted = 0;
    let mut grant = |bytes| {
        granted += bytes;
        true
    };
    let edited = Edits::new(edits).apply(request, usize::MAX, &mut grant);
    let edited = edited.unwrap();
    assert_eq!((edited.len(), edited.capacity()), (granted, granted));
    edited
}

/// What the edits mean, on objects.
fn edit_object(resource: &mut Option<Resource>, edits: &[AttributeEdit]) {
    let attributes = &mut resource.get_or_insert_default().attributes;
    for edit in edits {
        let at = attributes
            .iter()
            .position(|attribute| attribute.key == edit.key);
        let new = |value: &AttributeValue| {
            let value = match value.clone() {
                AttributeValue::Text(text) => any_value::Value::StringValue(text),
                AttributeValue::Bool(value) => any_value::Value::BoolValue(value),
                AttributeValue::Integer(value) => any_value::Value::IntValue(value),
                AttributeValue::Float(value) => any_value::Value::DoubleValue(value),
            };
            key_value(edit.key.clone(), AnyValue { value: Some(value) })
        };
        match (&edit.action, at) {
            (AttributeAction::Insert(value) | AttributeAction::Upsert(value), None) => {
                attributes.push(new(value));
            }
            (AttributeAction::InsertFrom(source), None) => {
                let mut all = attributes.iter();
                if let Some(source) = all.find(|attribute| attribute.key == *source).cloned() {
                    attributes.push(KeyValue {
                        key: edit.key.clone(),
                        ..source
                    });
                }
            }
            (AttributeAction::Update(value) | AttributeAction::Upsert(value), Some(at)) => {
                attributes[at] = new(value);
            }
            (AttributeAction::Delete, Some(at)) => {
                attributes.remove(at);
            }
            _ => {}
        }
    }
}

pub fn prost_takes(signal: Signal, bytes: &[u8]) -> bool {
    match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(bytes).is_ok(),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).is_ok(),
        Signal::Logs => ExportLogsServiceRequest::decode(bytes).is_ok(),
        Signal::Profiles => ExportProfilesServiceRequest::decode(bytes).is_ok(),
    }
}

/// Except for lengths of ids, which mean nothing to prost.
fn agrees_with_prost(signal: Signal, bytes: &[u8]) -> bool {
    match inspect(signal, bytes) {
        Err(Malformed::IdLength { .. }) => true,
        inspected => inspected.is_ok() == prost_takes(signal, bytes),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_item_is_counted(traces in traces(), metrics in metrics(), logs in logs()) {
        prop_assert_eq!(inspect(Signal::Traces, &traces.encode_to_vec()), Ok(count_spans(&traces)));
        prop_assert_eq!(inspect(Signal::Metrics, &metrics.encode_to_vec()), Ok(count_points(&metrics)));
        prop_assert_eq!(inspect(Signal::Logs, &logs.encode_to_vec()), Ok(count_logs(&logs)));
    }

    #[test]
    fn concatenated_requests_are_their_union(requests in vec(traces(), 0..5)) {
        let bytes: Vec<u8> = requests.iter().flat_map(Message::encode_to_vec).collect();
        let union = ExportTraceServiceRequest {
            resource_spans: requests.iter().flat_map(|request| request.resource_spans.clone()).collect(),
        };
        prop_assert_eq!(ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap(), union);
        prop_assert!(inspect(Signal::Traces, &bytes).is_ok());
    }

    #[test]
    fn byte_edits_equal_object_edits(request in metrics(), edits in edits()) {
        let bytes = apply(&edits, &request.encode_to_vec());
        let mut edited = request;
        edited.resource_metrics.retain(|entry| !entry.scope_metrics.is_empty());
        for entry in &mut edited.resource_metrics {
            edit_object(&mut entry.resource, &edits);
        }
        prop_assert_eq!(ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap(), edited);
        prop_assert!(inspect(Signal::Metrics, &bytes).is_ok());
    }

    #[test]
    fn arbitrary_bytes_are_accepted_exactly_when_prost_accepts_them(bytes in vec(any::<u8>(), 0..200)) {
        for signal in Signal::ALL {
            prop_assert!(agrees_with_prost(signal, &bytes));
            let _ = Edits::new(&[]).apply(&bytes, usize::MAX, &mut |_| true);
        }
    }

    #[test]
    fn damaged_requests_are_accepted_exactly_when_prost_accepts_them(
        request in metrics(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = request.encode_to_vec();
        prop_assume!(!bytes.is_empty());
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let taken = inspect(Signal::Metrics, &bytes).is_ok();
        prop_assert!(agrees_with_prost(Signal::Metrics, &bytes));
        if taken {
            let edited = apply(&[insert("k")], &bytes);
            prop_assert!(prost_takes(Signal::Metrics, &edited));
        }
    }
}

pub fn insert(key: &str) -> AttributeEdit {
    AttributeEdit {
        key: key.into(),
        action: AttributeAction::Insert(AttributeValue::Text("v".into())),
    }
}

pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend(bytes);
    out
}

#[test]
fn deprecated_field_1000_is_counted_and_checked() {
    let scope = field(2, &Span::default().encode_to_vec());
    let mut entry = vec![0xc2, 0x3e];
    prost::encoding::encode_varint(scope.len() as u64, &mut entry);
    entry.extend(&scope);
    assert_eq!(inspect(Signal::Traces, &field(1, &entry)), Ok(1));
}

#[test]
fn nesting_limit_equals_prosts() {
    let nested = |levels: usize| {
        let mut value = Vec::new();
        for _ in 0..levels {
            value = field(5, &field(1, &value));
        }
        let record = field(5, &value);
        field(1, &field(2, &field(2, &record)))
    };
    for levels in 40..60 {
        let request = nested(levels);
        let taken = inspect(Signal::Logs, &request);
        assert_eq!(
            taken.is_ok(),
            prost_takes(Signal::Logs, &request),
            "{levels} levels"
        );
    }
    assert_eq!(
        inspect(Signal::Logs, &nested(10_000)),
        Err(Malformed::Depth)
    );
}

#[test]
fn each_kind_of_damage_has_its_error() {
    let inspect = |bytes: &[u8]| inspect(Signal::Traces, bytes).unwrap_err();
    assert_eq!(inspect(&[0x0a, 0x05, 0x00]), Malformed::Truncated);
    assert_eq!(inspect(&[0x0a]), Malformed::Truncated);
    assert_eq!(inspect(&[0xff; 11]), Malformed::Varint);
    assert_eq!(inspect(&[0x02, 0x00]), Malformed::FieldNumber);
    assert_eq!(inspect(&[0x08, 0x01]), Malformed::WireType);
    assert_eq!(inspect(&[0x7f]), Malformed::WireType);
    assert_eq!(inspect(&[0x7b]), Malformed::Group);
    assert_eq!(inspect(&[0x7c]), Malformed::Group);
    assert_eq!(inspect(&[0x7b, 0x84, 0x01]), Malformed::Group);
    assert_eq!(inspect(&[0x7b; 200]), Malformed::Depth);
    assert_eq!(inspect(&field(1, &field(3, &[0xff]))), Malformed::Utf8);
    assert_eq!(
        inspect(&[
            0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01
        ]),
        Malformed::Truncated
    );
}

#[test]
fn profiles_are_counted_by_samples() {
    let profiles = [2, 0, 3].map(|samples| Profile {
        samples: vec![Sample::default(); samples],
        ..Profile::default()
    });
    let request = ExportProfilesServiceRequest {
        resource_profiles: vec![ResourceProfiles {
            scope_profiles: vec![ScopeProfiles {
                profiles: profiles.to_vec(),
                ..ScopeProfiles::default()
            }],
            ..ResourceProfiles::default()
        }],
        ..ExportProfilesServiceRequest::default()
    };
    assert_eq!(inspect(Signal::Profiles, &request.encode_to_vec()), Ok(5));
}
