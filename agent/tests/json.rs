//! OTLP/JSON through the real agent: answers, refusals, memory, and what arrives upstream.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;

use crate::support::agent::Setup;
use crate::support::client::{self, Grpc, Http, HttpAnswer};
use crate::support::eventually;
use crate::support::sink::Sink;
use crate::support::telemetry::{logs, metrics, spans};

const JSON: (&str, &str) = ("content-type", "application/json");

fn assert_success(answer: &HttpAnswer) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.body, b"{}");
}

/// A request whose protobuf form is four times as long: two bytes of text become eight.
fn zeros(count: usize) -> String {
    let zeros = vec!["0"; count].join(",");
    format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"bucketCounts":[{zeros}]}}]}}}}]}}]}}]}}"#
    )
}

/// The message of a refusal.
fn refusal(answer: &HttpAnswer) -> (u16, String) {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    (answer.status, body["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_signal_arrives_as_protobuf_on_every_port() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let (traces, points, records) = (spans("span", 3), metrics("metric", 2), logs("log", 4));
    for port in &agent.ports {
        let mut http = Http::connect(*port).await;
        for (path, body) in [
            ("/v1/traces", serde_json::to_vec(&traces).unwrap()),
            ("/v1/metrics", serde_json::to_vec(&points).unwrap()),
            ("/v1/logs", serde_json::to_vec(&records).unwrap()),
        ] {
            assert_success(&http.post(path, &[JSON], &body).await.unwrap());
        }
    }
    eventually("everything is delivered", || {
        agent.metric("otelcol_exporter_sent_spans_total", "") == 6
            && agent.metric("otelcol_exporter_sent_metric_points_total", "") == 4
            && agent.metric("otelcol_exporter_sent_log_records_total", "") == 8
    })
    .await;
    for request in sink.taken() {
        let bytes = request.message.as_slice();
        match request.path.as_str() {
            client::TRACES => {
                let request = ExportTraceServiceRequest::decode(bytes).unwrap();
                assert_eq!(request.resource_spans[0], traces.resource_spans[0]);
            }
            client::METRICS => {
                let request = ExportMetricsServiceRequest::decode(bytes).unwrap();
                assert_eq!(request.resource_metrics[0], points.resource_metrics[0]);
            }
            client::LOGS => {
                let request = ExportLogsServiceRequest::decode(bytes).unwrap();
                assert_eq!(request.resource_logs[0], records.resource_logs[0]);
            }
            other => panic!("{other}"),
        }
    }
    for items in ["spans", "metric_points", "log_records"] {
        assert_eq!(agent.books(items), 0);
    }
}

#[tokio::test]
async fn json_may_be_compressed_and_its_content_type_may_have_parameters() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let mut http = Http::connect(agent.port()).await;
    let body = serde_json::to_vec(&spans("span", 50)).unwrap();
    for (encoding, body) in [
        ("gzip", client::gzip(&body)),
        ("zstd", zstd::encode_all(body.as_slice(), 3).unwrap()),
        ("identity", body.clone()),
    ] {
        let headers = [
            ("content-type", "Application/JSON ; charset=utf-8"),
            ("content-encoding", encoding),
        ];
        assert_success(&http.post("/v1/traces", &headers, &body).await.unwrap());
    }
    eventually("all are delivered", || sink.spans().len() == 150).await;
}

#[tokio::test]
async fn json_and_protobuf_share_batches_and_resource_edits() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address)
        .processors(
            "resource: {attributes: [{key: host.name, value: here, action: insert}]}",
            "resource",
        )
        .batch("flush_timeout: 10s, sizer: bytes, min_size: 1000, max_size: 100000");
    let agent = setup.start();
    let mut http = Http::connect(agent.port()).await;
    let body = serde_json::to_vec(&spans("json", 1)).unwrap();
    assert_success(&http.post("/v1/traces", &[JSON], &body).await.unwrap());
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("protobuf", 20).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    eventually("both are delivered", || sink.spans().len() == 21).await;
    let request = sink.taken().remove(0).message;
    let request = ExportTraceServiceRequest::decode(request.as_slice()).unwrap();
    assert_eq!(request.resource_spans.len(), 2);
    for entry in request.resource_spans {
        let attributes = entry.resource.unwrap().attributes;
        assert!(
            attributes
                .iter()
                .any(|attribute| attribute.key == "host.name")
        );
    }
}

#[tokio::test]
async fn empty_document_succeeds_without_being_sent() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let mut http = Http::connect(agent.port()).await;
    for body in ["{}", r#"{"resourceSpans":[{"scopeSpans":[]}]}"#] {
        let answer = http.post("/v1/traces", &[JSON], body.as_bytes()).await;
        assert_success(&answer.unwrap());
    }
    let body = serde_json::to_vec(&spans("span", 1)).unwrap();
    assert_success(&http.post("/v1/traces", &[JSON], &body).await.unwrap());
    eventually("the span is delivered", || sink.spans().len() == 1).await;
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test]
async fn refusal_names_the_position_of_the_mistake() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let mut http = Http::connect(agent.port()).await;
    let good = serde_json::to_string(&spans("span", 3)).unwrap();
    let bad = good.replacen("\"spanId\":\"09", "\"spanId\":\"0x", 2);
    let answer = http.post("/v1/traces", &[JSON], bad.as_bytes()).await;
    let message = "malformed request: resourceSpans[0].scopeSpans[0].spans[0].spanId: expected hexadecimal digits";
    assert_eq!(refusal(&answer.unwrap()), (400, message.to_owned()));
    let answer = http.post("/v1/traces", &[JSON], b"").await.unwrap();
    assert_eq!(refusal(&answer).0, 400, "nothing is no document");
    let answer = http.post("/v1/traces", &[JSON], good.as_bytes()).await;
    assert_success(&answer.unwrap());
    assert_eq!(
        agent.metric("otelagent_refused_requests_total", "malformed"),
        2
    );
}

#[tokio::test]
async fn limits_apply_to_the_document_and_its_protobuf_form() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address)
        .receiver("http: {endpoint: '127.0.0.1:0', max_request_body_size: 10000}");
    let agent = setup.start();
    let mut http = Http::connect(agent.port()).await;
    let large = zeros(5000);
    let becomes_large = zeros(2000);
    assert!(becomes_large.len() < 10_000);
    let gzip = ("content-encoding", "gzip");
    for (headers, body) in [
        (&[JSON, gzip][..], client::gzip(large.as_bytes())),
        (&[JSON, gzip], client::gzip(becomes_large.as_bytes())),
        (&[JSON], becomes_large.into_bytes()),
    ] {
        let answer = http.post("/v1/metrics", headers, &body).await.unwrap();
        let message = "the request is larger than 10000 bytes";
        assert_eq!(refusal(&answer), (413, message.to_owned()));
    }
    let answer = http
        .post("/v1/metrics", &[JSON], zeros(1000).as_bytes())
        .await;
    assert_success(&answer.unwrap());
}

#[tokio::test]
async fn protobuf_form_counts_against_the_memory_limit() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address).processors(
        "memory_limiter: {check_interval: 1s, limit_mib: 6, spike_limit_mib: 1}",
        "memory_limiter",
    );
    let agent = setup.start();
    let mut http = Http::connect(agent.port()).await;
    // 1.6 MB of text become 6.4 MB.
    let body = zeros(800_000);
    let answer = http
        .post("/v1/metrics", &[JSON], body.as_bytes())
        .await
        .unwrap();
    assert_eq!(
        refusal(&answer),
        (503, "the memory limit is reached".to_owned())
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    let answer = http
        .post("/v1/metrics", &[JSON], zeros(1000).as_bytes())
        .await;
    assert_success(&answer.unwrap());
}
