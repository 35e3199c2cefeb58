//! What is decided about a request where it arrives, so that it does no harm to others later: ids, strings,
//! unknown fields.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::sink::Sink;
use crate::support::telemetry::{logs, metrics, spans};

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
