//! Cutting requests between their items, compared with decoded objects.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use otlp_wire::{RequestPart, Signal, inspect};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use crate::wire::{field, logs, metrics, traces};

/// Every item with all that is said about it, and every group without one.
fn flat(signal: Signal, request: &[u8]) -> Vec<String> {
    match signal {
        Signal::Traces => flat_traces(&ExportTraceServiceRequest::decode(request).unwrap()),
        Signal::Logs => flat_logs(&ExportLogsServiceRequest::decode(request).unwrap()),
        _ => flat_metrics(&ExportMetricsServiceRequest::decode(request).unwrap()),
    }
}

/// The items of a group, or the group itself.
fn group(name: &str, items: Vec<String>) -> Vec<String> {
    if items.is_empty() {
        return vec![format!("{name}, empty")];
    }
    let named = items.into_iter().map(|item| format!("{name}, {item}"));
    named.collect()
}

fn flat_traces(request: &ExportTraceServiceRequest) -> Vec<String> {
    let entry = |entry: &opentelemetry_proto::tonic::trace::v1::ResourceSpans| {
        let scopes = entry.scope_spans.iter().flat_map(|scope| {
            let spans = scope.spans.iter().map(|span| format!("{span:?}"));
            let name = format!("{:?} {}", scope.scope, scope.schema_url);
            group(&name, spans.collect())
        });
        let name = format!("{:?} {}", entry.resource, entry.schema_url);
        group(&name, scopes.collect())
    };
    request.resource_spans.iter().flat_map(entry).collect()
}

fn flat_logs(request: &ExportLogsServiceRequest) -> Vec<String> {
    let entry = |entry: &opentelemetry_proto::tonic::logs::v1::ResourceLogs| {
        let scopes = entry.scope_logs.iter().flat_map(|scope| {
            let records = scope.log_records.iter().map(|record| format!("{record:?}"));
            let name = format!("{:?} {}", scope.scope, scope.schema_url);
            group(&name, records.collect())
        });
        let name = format!("{:?} {}", entry.resource, entry.schema_url);
        group(&name, scopes.collect())
    };
    request.resource_logs.iter().flat_map(entry).collect()
}

fn flat_metrics(request: &ExportMetricsServiceRequest) -> Vec<String> {
    let entry = |entry: &opentelemetry_proto::tonic::metrics::v1::ResourceMetrics| {
        let scopes = entry.scope_metrics.iter().flat_map(|scope| {
            let metrics = scope.metrics.iter().flat_map(flat_metric);
            let name = format!("{:?} {}", scope.scope, scope.schema_url);
            group(&name, metrics.collect())
        });
        let name = format!("{:?} {}", entry.resource, entry.schema_url);
        group(&name, scopes.collect())
    };
    request.resource_metrics.iter().flat_map(entry).collect()
}

/// The data points of a metric.
fn flat_metric(metric: &Metric) -> Vec<String> {
    let mut rest = metric.clone();
    let points = match &mut rest.data {
        None => Vec::new(),
        Some(Data::Gauge(data)) => debugs(&mut data.data_points),
        Some(Data::Sum(data)) => debugs(&mut data.data_points),
        Some(Data::Histogram(data)) => debugs(&mut data.data_points),
        Some(Data::ExponentialHistogram(data)) => debugs(&mut data.data_points),
        Some(Data::Summary(data)) => debugs(&mut data.data_points),
    };
    group(&format!("{rest:?}"), points)
}

fn debugs<T: std::fmt::Debug>(points: &mut Vec<T>) -> Vec<String> {
    points.drain(..).map(|point| format!("{point:?}")).collect()
}

fn message(part: &RequestPart) -> Vec<u8> {
    part.chunks().concat()
}

fn anything(_: usize) -> bool {
    true
}

/// Cuts as far as possible, and checks every part on the way.
fn cut(signal: Signal, mut part: RequestPart, done: &mut Vec<RequestPart>) {
    let before = message(&part);
    assert_eq!(part.bytes(), before.len());
    assert_eq!(inspect(signal, &before), Ok(part.items()));
    let (items, own) = (part.items(), part.own_bytes());
    let Some(second) = part.split(&mut anything) else {
        assert_eq!(message(&part), before, "nothing changes");
        done.push(part);
        return;
    };
    assert_eq!(part.items() + second.items(), items);
    assert!(part.own_bytes() + second.own_bytes() <= own);
    assert!(part.own_bytes() > 0 && second.own_bytes() > 0);
    assert!(part.bytes() < before.len() && second.bytes() < before.len());
    cut(signal, part, done);
    cut(signal, second, done);
}

fn cut_whole(signal: Signal, request: &[u8]) -> Vec<RequestPart> {
    let mut done = Vec::new();
    let whole = RequestPart::whole(signal, Bytes::copy_from_slice(request));
    cut(signal, whole, &mut done);
    let together = done.iter().flat_map(|part| flat(signal, &message(part)));
    assert_eq!(together.collect::<Vec<_>>(), flat(signal, request));
    done
}

/// What is repeated in a part is much more than what is not.
fn is_mostly_repeated(part: &RequestPart) -> bool {
    part.bytes() - part.own_bytes() >= 8 * part.own_bytes()
}

proptest! {
    #[test]
    fn parts_together_are_the_request(traces in traces(), logs in logs(), metrics in metrics()) {
        for (signal, request) in [
            (Signal::Traces, traces.encode_to_vec()),
            (Signal::Logs, logs.encode_to_vec()),
            (Signal::Metrics, metrics.encode_to_vec()),
        ] {
            for part in cut_whole(signal, &request) {
                prop_assert!(part.items() <= 1 || is_mostly_repeated(&part));
            }
        }
    }

    #[test]
    fn fields_in_any_order_are_cut_alike(request in shuffled(false), metrics in shuffled(true)) {
        for (signal, request) in [(Signal::Traces, request), (Signal::Metrics, metrics)] {
            for part in cut_whole(signal, &request) {
                prop_assert!(part.items() <= 1 || is_mostly_repeated(&part));
            }
        }
    }
}

/// A message of these fields in their order, between which the others stand anywhere.
fn mixed(
    inner: impl Strategy<Value = Vec<Vec<u8>>>,
    others: Vec<Vec<u8>>,
) -> impl Strategy<Value = Vec<u8>> {
    let count = others.len();
    (inner, vec(any::<prop::sample::Index>(), count)).prop_map(move |(mut fields, places)| {
        for (other, place) in others.iter().zip(places) {
            fields.insert(place.index(fields.len() + 1), other.clone());
        }
        fields.concat()
    })
}

/// A request with several fields at each level, known and unknown, between those with items.
fn shuffled(metrics: bool) -> impl Strategy<Value = Vec<u8>> {
    let attribute = |key: &[u8]| field(1, &field(1, key));
    let others = |first: &[u8]| {
        vec![
            field(1, first),
            field(3, b"url"),
            field(9, b"unknown"),
            vec![0x60, 7],
            field(1, first),
        ]
    };
    let span = (0..99_u8).prop_map(move |number| {
        // The time of a data point, the name of a span.
        let time = [&[0x19][..], &[number; 8]].concat();
        if metrics {
            field(1, &time)
        } else {
            field(2, &field(5, &[number & 0x7f]))
        }
    });
    let spans = vec(span, 0..9);
    let items = if metrics {
        let data = mixed(
            spans,
            vec![vec![0x10, 2], vec![0x18, 1], field(15, b"unknown")],
        );
        let data = data.prop_map(|data| vec![field(7, &data)]);
        let names = vec![
            field(1, b"name"),
            field(3, b"unit"),
            field(12, &field(1, b"key")),
        ];
        let metric = mixed(data, names).prop_map(|metric| field(2, &metric));
        vec(metric, 0..3).boxed()
    } else {
        spans.boxed()
    };
    let scope = mixed(items, others(&field(1, b"name")));
    let scope = scope.prop_map(|scope| field(2, &scope));
    let entry = mixed(vec(scope, 0..3), others(&attribute(b"key")));
    let entries = vec(entry.prop_map(|entry| field(1, &entry)), 0..3);
    entries.prop_map(|entries| entries.concat())
}

/// A request of one resource with spans of this size.
fn one_resource(resource: &[u8], spans: usize, bytes: usize) -> Vec<u8> {
    let span = |number: usize| field(2, &field(5, format!("{number:0bytes$}").as_bytes()));
    let spans: Vec<u8> = (0..spans).flat_map(span).collect();
    let scope = field(2, &[field(1, &field(1, b"scope")), spans].concat());
    let resource = field(1, &field(1, &field(1, resource)));
    field(1, &[resource, scope, field(3, b"url")].concat())
}

#[test]
fn halves_are_of_equal_size_and_copy_nothing() {
    let request = one_resource(b"key", 1000, 100);
    let mut first = RequestPart::whole(Signal::Traces, request.clone().into());
    let mut no_copy = |_| false;
    let second = first.split(&mut no_copy).unwrap();
    assert_eq!((first.items(), second.items()), (500, 500));
    let most = request.len() / 2 + 100;
    assert!(first.bytes() < most && second.bytes() < most);
}

#[test]
fn unknown_fields_and_those_of_earlier_versions_are_repeated_and_cut() {
    // `instrumentation_library_spans` was number 1000.
    let old = [&[0xc2, 0x3e, 8][..], &field(2, &[]).repeat(4)].concat();
    let entry = field(1, &[field(77, b"unknown"), old].concat());
    let mut done = Vec::new();
    let whole = RequestPart::whole(Signal::Traces, entry.into());
    cut(Signal::Traces, whole, &mut done);
    assert_eq!(done.len(), 4);
    for part in done {
        let expected = [field(77, b"unknown"), vec![0xc2, 0x3e, 2], field(2, &[])];
        assert_eq!(message(&part), field(1, &expected.concat()));
    }
}

#[test]
fn request_with_fields_of_its_own_is_not_cut() {
    let entry = one_resource(b"key", 2, 5);
    for other in [field(2, b"a dictionary"), vec![0x18, 1], vec![0x23, 0x24]] {
        for request in [[&entry[..], &other].concat(), [&other, &entry[..]].concat()] {
            let mut whole = RequestPart::whole(Signal::Traces, request.into());
            assert!(whole.split(&mut anything).is_none());
        }
    }
    let mut profiles = RequestPart::whole(Signal::Profiles, [&entry[..], &entry].concat().into());
    assert!(profiles.split(&mut anything).is_none());
}

#[test]
fn metric_of_an_unknown_or_of_two_types_is_not_cut() {
    let points = |number| field(number, &field(1, &[]).repeat(2));
    for (metric, items) in [
        (field(14, &field(1, &[]).repeat(2)), 1),
        ([points(5), points(7)].concat(), 4),
        ([points(5), points(5)].concat(), 4),
    ] {
        let request = field(1, &field(2, &field(2, &metric)));
        let mut whole = RequestPart::whole(Signal::Metrics, request.into());
        assert_eq!(whole.items(), items);
        assert!(whole.split(&mut anything).is_none());
    }
}

#[test]
fn what_is_repeated_bounds_the_number_of_parts() {
    let request = one_resource(&[b'x'; 10_000], 1000, 100);
    let done = cut_whole(Signal::Traces, &request);
    let sum: usize = done.iter().map(RequestPart::bytes).sum();
    assert!(done.len() > 50, "{}", done.len());
    assert!(sum < 20 * request.len(), "{sum} of {}", request.len());
}

#[test]
fn fields_out_of_order_are_copied_only_with_memory() {
    let unknown = field(9, b"unknown");
    let span = [field(2, &field(5, b"span")), unknown].concat();
    let request = field(1, &field(2, &span.repeat(100)));
    let mut whole = RequestPart::whole(Signal::Traces, request.clone().into());
    assert!(whole.split(&mut |_| false).is_none());
    let mut asked = 0;
    let mut grant = |bytes| {
        asked += bytes;
        true
    };
    let half = whole.split(&mut grant).unwrap();
    assert_eq!((whole.items(), half.items()), (50, 50));
    assert!(asked > 0 && asked < request.len());
}

/// The work is in proportion to the bytes and to the number of halvings.
#[test]
fn many_items_are_cut_in_reasonable_time() {
    let request = field(1, &field(2, &field(2, &[]).repeat(1 << 16)));
    let begin = std::time::Instant::now();
    let mut waiting = vec![RequestPart::whole(Signal::Traces, request.into())];
    let mut parts = 0;
    while let Some(mut part) = waiting.pop() {
        match part.split(&mut anything) {
            Some(half) => waiting.extend([half, part]),
            None => parts += 1,
        }
        assert!(waiting.len() < 64);
    }
    assert_eq!(parts, 1 << 16);
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}
