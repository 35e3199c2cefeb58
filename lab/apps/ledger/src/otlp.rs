//! From OTLP messages to the book.
//!
//! The program that is counted numbers its spans and log records itself: attributes `app.run`,
//! `app.seq` and, on the last one, `app.last`. Data points carry `app.run` alone.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::book::{Attributes, Book, Item, Signal};

/// Notes all spans.
pub(crate) fn note_traces(book: &mut Book, request: &ExportTraceServiceRequest, now: u64) {
    for group in &request.resource_spans {
        let resource = attributes(group.resource.as_ref());
        for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
            book.note(item(Signal::Traces, &span.attributes), &resource, now);
        }
    }
}

/// Notes all log records.
pub(crate) fn note_logs(book: &mut Book, request: &ExportLogsServiceRequest, now: u64) {
    for group in &request.resource_logs {
        let resource = attributes(group.resource.as_ref());
        for record in group.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            book.note(item(Signal::Logs, &record.attributes), &resource, now);
        }
    }
}

/// Notes all data points.
pub(crate) fn note_metrics(book: &mut Book, request: &ExportMetricsServiceRequest, now: u64) {
    for group in &request.resource_metrics {
        let resource = attributes(group.resource.as_ref());
        for metric in group.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            for (point, value) in metric.data.iter().flat_map(points) {
                let item = Item {
                    value,
                    ..item(Signal::Metrics, point)
                };
                book.note(item, &resource, now);
            }
        }
    }
}

/// The attributes of each data point, and what it counts where it is a whole number of a sum.
fn points(data: &Data) -> Vec<(&[KeyValue], Option<u64>)> {
    match data {
        Data::Gauge(gauge) => gauge
            .data_points
            .iter()
            .map(|p| (p.attributes.as_slice(), None))
            .collect(),
        Data::Sum(sum) => sum
            .data_points
            .iter()
            .map(|p| (p.attributes.as_slice(), whole(p.value)))
            .collect(),
        Data::Histogram(h) => h
            .data_points
            .iter()
            .map(|p| (p.attributes.as_slice(), None))
            .collect(),
        Data::ExponentialHistogram(h) => h
            .data_points
            .iter()
            .map(|p| (p.attributes.as_slice(), None))
            .collect(),
        Data::Summary(s) => s
            .data_points
            .iter()
            .map(|p| (p.attributes.as_slice(), None))
            .collect(),
    }
}

fn whole(value: Option<number_data_point::Value>) -> Option<u64> {
    match value {
        Some(number_data_point::Value::AsInt(value)) => u64::try_from(value).ok(),
        _ => None,
    }
}

fn item(signal: Signal, attributes: &[KeyValue]) -> Item<'_> {
    let mut item = Item {
        signal,
        run: "",
        number: None,
        last: false,
        value: None,
    };
    for attribute in attributes {
        let value = attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref());
        match (attribute.key.as_str(), value) {
            ("app.run", Some(Value::StringValue(run))) => item.run = run,
            ("app.seq", Some(Value::IntValue(number))) => item.number = u64::try_from(*number).ok(),
            ("app.last", Some(Value::BoolValue(last))) => item.last = *last,
            _ => {}
        }
    }
    item
}

fn attributes(resource: Option<&Resource>) -> Attributes {
    let pairs = resource.iter().flat_map(|resource| &resource.attributes);
    pairs
        .map(|pair| (pair.key.clone(), text(pair.value.as_ref())))
        .collect()
}

/// Anything that is not plain is shown as its debug form: it only has to be distinguishable.
fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(other) => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    };
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use serde_json::{Value as Json, json};

    use super::*;

    fn pair(key: &str, value: Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        }
    }

    fn string(text: &str) -> Value {
        Value::StringValue(text.to_owned())
    }

    fn resource() -> Resource {
        Resource {
            attributes: vec![
                pair("service.name", string("shop")),
                pair("cpu", Value::IntValue(2)),
            ],
            ..Resource::default()
        }
    }

    fn seen(book: &Book) -> Json {
        serde_json::to_value(book.detail("r").unwrap()).unwrap()
    }

    #[test]
    fn spans_are_noted_by_run_and_number() {
        let span = |number, last| Span {
            attributes: vec![
                pair("app.run", string("r")),
                pair("app.seq", Value::IntValue(number)),
                pair("app.last", Value::BoolValue(last)),
            ],
            ..Span::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource()),
                scope_spans: vec![ScopeSpans {
                    spans: vec![span(0, false), span(2, true), span(-1, false)],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let mut book = Book::default();
        note_traces(&mut book, &request, 7);
        let seen = seen(&book);
        let counts = &seen["signals"]["traces"];
        assert_eq!(counts["received"], 3);
        assert_eq!(counts["firstMissing"], json!([1]));
        assert_eq!(counts["total"], 3);
        assert_eq!(
            seen["resources"][0]["attributes"],
            json!({"service.name": "shop", "cpu": "2"})
        );
        assert_eq!(seen["resources"][0]["last"], 7);
    }

    #[test]
    fn data_points_are_counted_though_they_have_no_number() {
        let point = NumberDataPoint {
            attributes: vec![pair("app.run", string("r"))],
            ..NumberDataPoint::default()
        };
        let sum = Sum {
            data_points: vec![point.clone(), point],
            ..Sum::default()
        };
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(resource()),
                scope_metrics: vec![ScopeMetrics {
                    metrics: vec![Metric {
                        data: Some(Data::Sum(sum)),
                        ..Metric::default()
                    }],
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        let mut book = Book::default();
        note_metrics(&mut book, &request, 0);
        assert_eq!(seen(&book)["signals"]["metrics"]["received"], 2);
    }
}
