//! What is decided about a request where it arrives, so that it does no harm to others later: ids, strings,
//! unknown fields.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Status, span::Event, span::Link};
use prost::Message;

use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::sink::{Received, Sink};
use crate::support::telemetry::{logs, metrics, resource, spans, text};

const INVALID_ARGUMENT: u32 = 3;
const JSON: (&str, &str) = ("content-type", "application/json");

async fn agent() -> (Sink, Agent) {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    (sink, agent)
}

/// A field with a length; `bytes` are fewer than 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    [&[number << 3 | 2, length], bytes].concat()
}

#[tokio::test]
async fn request_with_a_bad_id_is_refused_and_its_neighbours_are_delivered() {
    let (sink, agent) = agent().await;
    let mut bad = spans("bad", 1);
    bad.resource_spans[0].scope_spans[0].spans[0].trace_id = vec![1; 8];
    let message = "malformed request: traceId has 8 bytes, but must have 16 or none";
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut http = Http::connect(agent.port()).await;
    for number in 0..5 {
        let good = spans(&format!("good{number}"), 1).encode_to_vec();
        let answer = grpc.call(client::TRACES, &good).await.unwrap();
        assert_eq!(answer.status, 0);
        let answer = grpc.call(client::TRACES, &bad.encode_to_vec()).await;
        assert_eq!(answer.unwrap().status, INVALID_ARGUMENT);
        let answer = http.post("/v1/traces", &[], &bad.encode_to_vec()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 400);
        assert!(String::from_utf8_lossy(&answer.body).contains(message));
    }
    let json = serde_json::to_vec(&bad).unwrap();
    let answer = http.post("/v1/traces", &[JSON], &json).await.unwrap();
    assert_eq!(answer.status, 400);
    let body = String::from_utf8_lossy(&answer.body);
    assert!(body.contains("spans[0].traceId: has 8 bytes"), "{body}");
    eventually("the others are delivered", || sink.spans().len() == 5).await;
    assert!(sink.spans().iter().all(|span| span.starts_with("good")));
    let refused = agent.metric("otelagent_refused_requests_total", "malformed");
    assert_eq!(refused, 11);
}

#[tokio::test]
async fn strings_that_are_not_utf_8_are_repaired_and_counted() {
    let (sink, agent) = agent().await;
    let replace = |mut bytes: Vec<u8>| {
        while let Some(at) = bytes.windows(2).position(|window| window == b"XX") {
            bytes[at..at + 2].copy_from_slice(b"\xff\xfe");
        }
        bytes
    };
    let repaired = || agent.metric("otelagent_repaired_strings_total", "");
    let mut http = Http::connect(agent.port()).await;
    let protobuf = replace(spans("protobufXX", 3).encode_to_vec());
    let answer = http.post("/v1/traces", &[], &protobuf).await.unwrap();
    assert_eq!((answer.status, repaired()), (200, 3));
    let json = replace(serde_json::to_vec(&spans("jsonXX", 2)).unwrap());
    let answer = http.post("/v1/traces", &[JSON], &json).await.unwrap();
    assert_eq!((answer.status, repaired()), (200, 5));
    let mut grpc = Grpc::connect(agent.port()).await;
    let good = spans("grün", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &good).await.unwrap().status, 0);
    eventually("all are delivered", || sink.spans().len() == 6).await;
    let mut names = sink.spans();
    names.sort();
    let expected = [
        "grün-0",
        "json??-0",
        "json??-1",
        "protobuf??-0",
        "protobuf??-1",
        "protobuf??-2",
    ];
    assert_eq!(names, expected);
    assert_eq!((repaired(), agent.books("spans")), (5, 0));
}

const URL: &str = "https://XX/schema";

fn bad_attribute() -> KeyValue {
    text("keyXX", "valueXX")
}

fn bad_scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "scopeXX".into(),
        version: "1.XX".into(),
        attributes: vec![bad_attribute()],
        ..InstrumentationScope::default()
    }
}

fn bad_resource() -> Resource {
    resource(&[("resourceXX", "ofXX")])
}

fn bad_traces() -> ExportTraceServiceRequest {
    let mut traces = spans("spanXX", 1);
    let entry = &mut traces.resource_spans[0];
    (entry.resource, entry.schema_url) = (Some(bad_resource()), URL.into());
    let scope = &mut entry.scope_spans[0];
    (scope.scope, scope.schema_url) = (Some(bad_scope()), URL.into());
    let span = &mut scope.spans[0];
    span.attributes = vec![bad_attribute()];
    span.trace_state = "stateXX".into();
    span.status = Some(Status {
        message: "messageXX".into(),
        code: 77,
    });
    span.kind = 99;
    span.events = vec![Event {
        name: "eventXX".into(),
        attributes: vec![bad_attribute()],
        ..Event::default()
    }];
    span.links = vec![Link {
        trace_state: "linkXX".into(),
        attributes: vec![bad_attribute()],
        ..Link::default()
    }];
    traces
}

fn bad_metrics() -> ExportMetricsServiceRequest {
    let mut points = metrics("metricXX", 1);
    let entry = &mut points.resource_metrics[0];
    (entry.resource, entry.schema_url) = (Some(bad_resource()), URL.into());
    let scope = &mut entry.scope_metrics[0];
    (scope.scope, scope.schema_url) = (Some(bad_scope()), URL.into());
    let metric = &mut scope.metrics[0];
    (metric.description, metric.unit) = ("descriptionXX".into(), "unitXX".into());
    metric.metadata = vec![bad_attribute()];
    if let Some(Data::Gauge(gauge)) = &mut metric.data {
        gauge.data_points[0].attributes = vec![bad_attribute()];
        gauge.data_points[0].exemplars = vec![Exemplar {
            filtered_attributes: vec![bad_attribute()],
            ..Exemplar::default()
        }];
    }
    points
}

fn bad_logs() -> ExportLogsServiceRequest {
    let mut records = logs("bodyXX", 1);
    let entry = &mut records.resource_logs[0];
    (entry.resource, entry.schema_url) = (Some(bad_resource()), URL.into());
    let scope = &mut entry.scope_logs[0];
    (scope.scope, scope.schema_url) = (Some(bad_scope()), URL.into());
    let record = &mut scope.log_records[0];
    record.severity_text = "severityXX".into();
    record.severity_number = 1234;
    record.event_name = "nameXX".into();
    record.attributes = vec![bad_attribute()];
    records
}

/// Requests with `XX` in every string that is not an id: the path, protobuf, JSON.
fn full_of_strings() -> [(&'static str, Vec<u8>, Vec<u8>); 3] {
    let (traces, metrics, logs) = (bad_traces(), bad_metrics(), bad_logs());
    let json = |value: serde_json::Result<Vec<u8>>| value.unwrap();
    let of_traces = json(serde_json::to_vec(&traces));
    let of_metrics = json(serde_json::to_vec(&metrics));
    let of_logs = json(serde_json::to_vec(&logs));
    [
        ("/v1/traces", traces.encode_to_vec(), of_traces),
        ("/v1/metrics", metrics.encode_to_vec(), of_metrics),
        ("/v1/logs", logs.encode_to_vec(), of_logs),
    ]
}

/// The number of places, each of which becomes `with`.
fn replace(bytes: &mut [u8], with: [u8; 2]) -> u64 {
    let mut places = 0;
    while let Some(at) = bytes.windows(2).position(|window| window == b"XX") {
        bytes[at..at + 2].copy_from_slice(&with);
        places += 1;
    }
    places
}

/// Unknown values of enumerations are no fault either.
#[tokio::test]
async fn bad_strings_are_repaired_wherever_they_are() {
    let (sink, agent) = agent().await;
    let mut http = Http::connect(agent.port()).await;
    let mut repaired = 0;
    let mut all = 0;
    for (path, protobuf, json) in full_of_strings() {
        let size = protobuf.len();
        let strings = replace(&mut protobuf.clone(), *b"??");
        assert!(strings > 10);
        for (mut body, kind) in [(protobuf, "application/x-protobuf"), (json, JSON.1)] {
            assert_eq!(replace(&mut body, *b"\xff\xfe"), strings, "{path} {kind}");
            let answer = http.post(path, &[("content-type", kind)], &body).await;
            let answer = answer.unwrap();
            let why = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, 200, "{path} {kind}: {why}");
            repaired += strings;
            let counted = agent.metric("otelagent_repaired_strings_total", "");
            assert_eq!(counted, repaired, "{path} {kind}");
            all += size;
        }
    }
    let arrived = || -> usize { sink.taken().iter().map(|taken| taken.message.len()).sum() };
    eventually("all arrive", || arrived() == all).await;
    let mended = |taken: &Received| {
        let pairs = taken.message.windows(2);
        pairs.filter(|pair| *pair == b"??").count() as u64
    };
    let found: u64 = sink.taken().iter().map(mended).sum();
    assert_eq!(found, repaired);
}

#[tokio::test]
async fn requests_with_unknown_fields_of_their_own_are_sent_alone() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .batch("flush_timeout: 500ms, sizer: bytes, min_size: 3145728, max_size: 3145728")
        .start();
    let unknown = field(9, b"for all entries");
    let mut grpc = Grpc::connect(agent.port()).await;
    for number in 0..9 {
        let mut request = spans(&format!("span{number}"), 1).encode_to_vec();
        if number % 3 == 2 {
            request.extend_from_slice(&unknown);
        }
        let answer = grpc.call(client::TRACES, &request).await.unwrap();
        assert_eq!(answer.status, 0);
    }
    // It carries nothing that is known.
    assert_eq!(grpc.call(client::TRACES, &unknown).await.unwrap().status, 0);
    eventually("all are delivered", || {
        sink.spans().len() == 9 && sink.taken().iter().any(|taken| taken.message == unknown)
    })
    .await;
    let with_unknown: Vec<_> = sink
        .taken()
        .into_iter()
        .filter(|taken| taken.message.ends_with(&unknown) && taken.message != unknown)
        .collect();
    assert_eq!(with_unknown.len(), 3);
    for taken in with_unknown {
        let request = ExportTraceServiceRequest::decode(taken.message.as_slice()).unwrap();
        assert_eq!(request.resource_spans.len(), 1);
    }
    assert_eq!(agent.books("spans"), 0);
}

#[tokio::test]
async fn metrics_of_unknown_types_are_passed_on() {
    let (sink, agent) = agent().await;
    let metric = [field(1, b"newer"), field(14, b"points")].concat();
    let request = field(1, &field(2, &field(2, &metric)));
    let mut http = Http::connect(agent.port()).await;
    let answer = http.post("/v1/metrics", &[], &request).await.unwrap();
    assert_eq!(answer.status, 200);
    eventually("it is delivered", || sink.taken().len() == 1).await;
    assert_eq!(sink.taken()[0].message, request);
    let sent = || agent.metric("otelcol_exporter_sent_metric_points_total", "");
    eventually("it is counted", || sent() == 1).await;
    for (path, others) in [
        ("/v1/metrics", metrics("known", 2).encode_to_vec()),
        ("/v1/logs", logs("log", 1).encode_to_vec()),
    ] {
        let answer = http.post(path, &[], &others).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    eventually("known ones are counted as before", || sent() == 3).await;
    assert_eq!(agent.books("metric_points"), 0);
}
