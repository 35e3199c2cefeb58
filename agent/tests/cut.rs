//! Requests of one process that are larger than the upstream takes: cut between their items, and nothing is lost but
//! an item that is too large by itself.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

use crate::support::agent::{Agent, Setup, temporary};
use crate::support::client::Http;
use crate::support::eventually;
use crate::support::sink::{Reply, Sink, Speaks, TOO_LARGE};
use crate::support::telemetry::{logs, metrics, spans, text};

const KINDS: [(&str, Speaks); 2] = [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)];

/// What a gRPC server takes unless it is told otherwise.
const USUAL: usize = 4 * 1024 * 1024;

const TOO_LARGE_REASON: &str = "reason=\"too_large\"";

async fn sink(speaks: Speaks) -> Sink {
    Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await
}

fn to(kind: &str, sink: &Sink) -> Setup {
    Setup::to_with_timeout(kind, sink.address, "5s")
        .retry("initial_interval: 5ms, max_interval: 20ms")
}

/// Spans of one process of this many bytes each.
fn large(count: usize, bytes: usize) -> ExportTraceServiceRequest {
    let mut request = spans("span", count);
    let entry = &mut request.resource_spans[0];
    entry.schema_url = "https://opentelemetry.io/schemas/1.30.0".into();
    for (number, span) in entry.scope_spans[0].spans.iter_mut().enumerate() {
        let value = number.to_string().repeat(bytes);
        let value = value.get(..bytes).unwrap();
        span.attributes.push(text("message", value));
    }
    request
}

async fn post(agent: &Agent, path: &str, request: &impl Message) {
    let mut http = Http::connect(agent.port()).await;
    let answer = http.post(path, &[], &request.encode_to_vec()).await;
    assert_eq!(answer.unwrap().status, 200);
}

fn names(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name}-{number}"))
        .collect()
}

/// What arrived in order of the first span's number, joined again.
fn joined(sink: &Sink) -> ExportTraceServiceRequest {
    let decode = |message: &Vec<u8>| ExportTraceServiceRequest::decode(message.as_slice()).unwrap();
    let taken = sink.taken();
    let mut parts: Vec<_> = taken.iter().map(|taken| decode(&taken.message)).collect();
    let first = |part: &ExportTraceServiceRequest| {
        let name = &part.resource_spans[0].scope_spans[0].spans[0].name;
        name.rsplit_once('-').unwrap().1.parse::<usize>().unwrap()
    };
    parts.sort_by_key(first);
    let mut parts = parts.into_iter();
    let mut whole = parts.next().unwrap();
    for part in parts {
        let [entry] = part.resource_spans.as_slice() else {
            panic!("one resource");
        };
        let into = &mut whole.resource_spans[0];
        assert_eq!(
            (&entry.resource, &entry.schema_url),
            (&into.resource, &into.schema_url)
        );
        assert_eq!(entry.scope_spans[0].scope, into.scope_spans[0].scope);
        let spans = entry.scope_spans[0].spans.iter().cloned();
        into.scope_spans[0].spans.extend(spans);
    }
    whole
}

#[tokio::test]
async fn large_request_of_one_process_is_cut_between_spans() {
    for (kind, speaks) in KINDS {
        let sink = sink(speaks).await;
        sink.largest(USUAL);
        let agent = to(kind, &sink).start();
        let request = large(1000, 5000);
        assert!(request.encoded_len() > USUAL);
        post(&agent, "/v1/traces", &request).await;
        eventually("all arrive", || sink.spans().len() >= 1000).await;
        assert!(joined(&sink) == request, "the same request");
        let refused = sink.received().len() - sink.taken().len();
        assert!(refused <= 2, "{refused} refusals");
        assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 0);
        let sent = || agent.metric("otelcol_exporter_sent_spans_total", "");
        eventually("all are counted", || sent() == 1000).await;
        assert_eq!(agent.books("spans"), 0);
        let held = || agent.metric("otelagent_memory_held_bytes", "");
        eventually("nothing is held", || held() == 0).await;
        assert_eq!(agent.metric("otelcol_exporter_queue_size", ""), 0);
    }
}

#[tokio::test]
async fn large_requests_of_metrics_and_logs_are_cut_too() {
    for (kind, speaks) in KINDS {
        let sink = sink(speaks).await;
        sink.largest(3000);
        let agent = to(kind, &sink).start();
        // One metric with many points, so it is cut in itself.
        let mut request = metrics("points", 2000);
        let metric = &mut request.resource_metrics[0].scope_metrics[0].metrics[0];
        metric.unit = "By".into();
        metric.description = "many".into();
        post(&agent, "/v1/metrics", &request).await;
        post(&agent, "/v1/logs", &logs("log", 500)).await;
        let sent = |items: &str| agent.metric(&format!("otelcol_exporter_sent_{items}_total"), "");
        eventually("all points are delivered", || sent("metric_points") == 2000).await;
        eventually("all logs are delivered", || sent("log_records") == 500).await;
        let (mut points, mut records) = (0, 0);
        for taken in sink.taken() {
            let message = taken.message.as_slice();
            assert!(message.len() <= 3000);
            if taken.path.to_lowercase().contains("metric") {
                let part = ExportMetricsServiceRequest::decode(message).unwrap();
                let metric = &part.resource_metrics[0].scope_metrics[0].metrics[0];
                assert_eq!(
                    (&*metric.name, &*metric.unit, &*metric.description),
                    ("points", "By", "many")
                );
                let Some(Data::Gauge(gauge)) = &metric.data else {
                    panic!("a gauge");
                };
                points += gauge.data_points.len();
            } else {
                let part = ExportLogsServiceRequest::decode(message).unwrap();
                records += part.resource_logs[0].scope_logs[0].log_records.len();
            }
        }
        assert_eq!((points, records), (2000, 500));
        for items in ["metric_points", "log_records"] {
            assert_eq!(
                agent.metric(&format!("otelagent_lost_{items}_total"), ""),
                0
            );
            assert_eq!(agent.books(items), 0);
        }
    }
}

#[tokio::test]
async fn only_an_item_that_is_too_large_by_itself_is_lost() {
    for (kind, speaks) in KINDS {
        let sink = sink(speaks).await;
        sink.largest(100_000);
        let agent = to(kind, &sink).start();
        let mut request = spans("span", 500);
        let all = &mut request.resource_spans[0].scope_spans[0].spans;
        for number in [0, 77, 78, 499] {
            all[number]
                .attributes
                .push(text("message", &"x".repeat(120_000)));
        }
        post(&agent, "/v1/traces", &request).await;
        let lost = || agent.metric("otelagent_lost_spans_total", TOO_LARGE_REASON);
        eventually("four are lost", || lost() == 4).await;
        eventually("the others arrive", || sink.spans().len() >= 496).await;
        let mut expected = names("span", 500);
        for number in [499, 78, 77, 0] {
            expected.remove(number);
        }
        let mut arrived = sink.spans();
        arrived.sort();
        expected.sort();
        assert_eq!(arrived, expected, "nothing twice");
        assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 4);
        assert_eq!(agent.books("spans"), 0);
        let calls = sink.received().len();
        assert!(calls < 80, "{calls} calls");
    }
}

#[tokio::test]
async fn upstream_that_takes_no_item_gets_few_calls() {
    for (kind, speaks, bytes) in [
        ("otlp_grpc", Speaks::Grpc, 10),
        ("otlp_http", Speaks::Http, 10),
        // Larger than what is refused for other reasons than its size.
        ("otlp_http", Speaks::Http, 100_000),
    ] {
        let sink = sink(speaks).await;
        let reply = match speaks {
            Speaks::Grpc => Reply::Says(8, TOO_LARGE),
            Speaks::Http => Reply::Http(413, Vec::new()),
        };
        sink.always(Some(reply));
        let agent = to(kind, &sink).start();
        post(&agent, "/v1/traces", &large(200, bytes)).await;
        let lost = || agent.metric("otelagent_lost_spans_total", TOO_LARGE_REASON);
        eventually("all are lost", || lost() == 200).await;
        let calls = sink.received().len();
        assert!(calls <= 40, "{calls} calls");
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn large_request_on_disk_is_cut_and_survives_a_kill_in_between() {
    for (kind, speaks) in KINDS {
        let sink = sink(speaks).await;
        sink.largest(USUAL);
        let directory = temporary("queue");
        let setup = to(kind, &sink).storage(&directory, "create_directory: true");
        let agent = setup.start();
        // The first part is taken, and then nothing.
        let refusal = match speaks {
            Speaks::Grpc => Reply::Grpc(14, None),
            Speaks::Http => Reply::Http(503, Vec::new()),
        };
        sink.script([Reply::Take(Vec::new()), Reply::Take(Vec::new())]);
        sink.always(Some(refusal));
        let request = large(1000, 5000);
        post(&agent, "/v1/traces", &request).await;
        let sent = |agent: &Agent| agent.metric("otelcol_exporter_sent_spans_total", "");
        eventually("a part is delivered", || sent(&agent) > 0).await;
        assert!(sent(&agent) < 1000);
        assert_eq!(agent.books("spans"), 0);
        drop(agent);
        sink.always(None);
        let agent = setup.start();
        eventually("all is delivered", || sent(&agent) == 1000).await;
        let mut arrived = sink.spans();
        arrived.sort();
        arrived.dedup();
        assert_eq!(arrived.len(), 1000);
        assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 0);
        assert_eq!(agent.books("spans"), 0);
        let size = || agent.metric("otelcol_exporter_queue_size", "");
        eventually("nothing is left on disk", || size() == 0).await;
        drop(agent);
        let agent = setup.start();
        assert_eq!(agent.metric("otelagent_recovered_spans_total", ""), 0);
        assert_eq!(size_of(&agent), 0);
        drop(agent);
        let _ = std::fs::remove_dir_all(directory);
    }
}

fn size_of(agent: &Agent) -> u64 {
    agent.metric("otelcol_exporter_queue_size", "")
}

/// A part that is not delivered when the agent ends is lost, and only that part.
#[tokio::test]
async fn shutdown_counts_the_parts_that_are_not_delivered() {
    let sink = Sink::grpc().await;
    sink.largest(USUAL);
    let agent = to("otlp_grpc", &sink)
        .env("OTELAGENT_SHUTDOWN_GRACE", "1")
        .start();
    sink.script([Reply::Take(Vec::new()), Reply::Take(Vec::new())]);
    sink.always(Some(Reply::Grpc(14, None)));
    post(&agent, "/v1/traces", &large(1000, 5000)).await;
    let sent = || agent.metric("otelcol_exporter_sent_spans_total", "");
    eventually("a part is delivered", || sent() > 0).await;
    let delivered = sent();
    agent.terminate();
    let (code, log) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    let done = log.iter().find(|line| line["message"] == "done").unwrap();
    assert_eq!(done["lost"], 1000 - delivered);
}
