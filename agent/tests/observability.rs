//! Metrics under the collector's names with balanced counters, health with delivery, and few log lines.

use std::time::{Duration, Instant};

use prost::Message;

use crate::support::agent::{Agent, Setup, get};
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink};
use crate::support::telemetry::spans;

const UNAVAILABLE: u32 = 14;

async fn send(agent: &Agent, name: &str, count: usize) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans(name, count).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
}

/// Names and labels that dashboards of the collector use, with the value after three spans by gRPC and
/// one by HTTP in two batches, a request that is no telemetry and one on an unknown path.
const SERIES: &[(&str, u64)] = &[
    (
        "otelcol_receiver_accepted_spans{receiver=\"otlp\",transport=\"grpc\"}",
        3,
    ),
    (
        "otelcol_receiver_accepted_spans{receiver=\"otlp\",transport=\"http\"}",
        1,
    ),
    (
        "otelcol_receiver_refused_spans{receiver=\"otlp\",transport=\"grpc\"}",
        0,
    ),
    (
        "otelcol_receiver_failed_spans{receiver=\"otlp\",transport=\"grpc\"}",
        0,
    ),
    (
        "otelcol_receiver_accepted_metric_points{receiver=\"otlp\",transport=\"grpc\"}",
        0,
    ),
    (
        "otelcol_receiver_accepted_log_records{receiver=\"otlp\",transport=\"grpc\"}",
        0,
    ),
    (
        "otelcol_receiver_requests{outcome=\"success\",receiver=\"otlp\",transport=\"grpc\"}",
        1,
    ),
    (
        "otelcol_receiver_requests{outcome=\"success\",receiver=\"otlp\",transport=\"http\"}",
        1,
    ),
    (
        "otelcol_receiver_requests{outcome=\"refused\",receiver=\"otlp\",transport=\"http\"}",
        2,
    ),
    ("otelcol_exporter_sent_spans{exporter=\"otlp_grpc\"}", 4),
    (
        "otelcol_exporter_send_failed_spans{exporter=\"otlp_grpc\"}",
        0,
    ),
    (
        "otelcol_exporter_enqueue_failed_spans{exporter=\"otlp_grpc\"}",
        0,
    ),
    (
        "otelcol_exporter_queue_size{data_type=\"traces\",exporter=\"otlp_grpc\"}",
        0,
    ),
    (
        "otelcol_exporter_queue_capacity{data_type=\"traces\",exporter=\"otlp_grpc\"}",
        64 << 20,
    ),
    (
        "otelcol_exporter_in_flight_requests{data_type=\"traces\",exporter=\"otlp_grpc\"}",
        0,
    ),
    (
        "otelcol_exporter_queue_batch_send_size_count{data_type=\"traces\",exporter=\"otlp_grpc\"}",
        2,
    ),
    (
        "otelcol_exporter_queue_batch_send_size_sum{data_type=\"traces\",exporter=\"otlp_grpc\"}",
        4,
    ),
    (
        "otelcol_exporter_queue_batch_send_size_bucket{data_type=\"traces\",exporter=\"otlp_grpc\",le=\"10\"}",
        2,
    ),
    (
        "otelcol_exporter_queue_batch_send_size_bytes_bucket{data_type=\"traces\",exporter=\"otlp_grpc\",le=\"+Inf\"}",
        2,
    ),
    (
        "otelcol_processor_incoming_items{otel_signal=\"traces\",processor=\"memory_limiter\"}",
        4,
    ),
    (
        "otelcol_processor_outgoing_items{otel_signal=\"traces\",processor=\"memory_limiter\"}",
        4,
    ),
    (
        "otelcol_processor_memory_limiter_accepted_spans{processor=\"memory_limiter\"}",
        4,
    ),
    (
        "otelcol_processor_memory_limiter_refused_spans{processor=\"memory_limiter\"}",
        0,
    ),
    (
        "otelagent_refused_requests{reason=\"malformed\",transport=\"http\"}",
        1,
    ),
    (
        "otelagent_refused_requests{reason=\"unsupported\",transport=\"http\"}",
        1,
    ),
    ("otelagent_books_imbalance{signal=\"traces\"}", 0),
    ("otelagent_connections", 3),
    ("otelagent_accept_errors", 0),
    ("otelagent_config_reloads{result=\"applied\"}", 0),
];

#[tokio::test]
async fn metrics_have_the_collectors_names_with_and_without_suffixes() {
    for suffixed in [false, true] {
        let sink = Sink::grpc().await;
        let setup = Setup::grpc(sink.address);
        let plain = "without_type_suffix: true, without_units: true, port: 0";
        let mut yaml = setup.yaml();
        if !suffixed {
            yaml = yaml.replace("port: 0", plain);
        }
        let agent = setup.start_with(&yaml);
        send(&agent, "grpc", 3).await;
        eventually("it arrives", || sink.spans().len() == 3).await;
        let mut http = Http::connect(agent.port()).await;
        let message = spans("http", 1).encode_to_vec();
        for (path, body) in [
            ("/v1/traces", message.as_slice()),
            ("/v1/traces", b"nonsense"),
            ("/v1/spans", b""),
        ] {
            http.post(path, &[], body).await.unwrap();
        }
        drop(http);
        let total = if suffixed { "_total" } else { "" };
        let one_sent = format!("otelcol_exporter_sent_spans{total}");
        eventually("all is delivered", || agent.metric(&one_sent, "") == 4).await;
        // One more connection, of a client that stays.
        let _open = Grpc::connect(agent.port()).await;
        eventually("it is counted", || {
            agent.metric("otelagent_open_connections", "") == 1
        })
        .await;
        let metrics = agent.metrics();
        let text = get(agent.metrics, "/metrics").1;
        for (series, value) in SERIES {
            let (name, labels) = series.split_at(series.find('{').unwrap_or(series.len()));
            let counter = text.contains(&format!("# TYPE {name}_total counter"));
            let key = if suffixed && counter {
                format!("{name}_total{labels}")
            } else {
                (*series).to_owned()
            };
            assert_eq!(metrics.get(&key), Some(value), "{key} in\n{text}");
        }
        let (seconds, bytes) = if suffixed {
            ("_seconds", "_bytes")
        } else {
            ("", "")
        };
        for name in [
            format!("otelcol_process_uptime{seconds}{total}"),
            format!("otelcol_process_cpu_seconds{total}"),
            format!("otelcol_process_memory_rss{bytes}"),
            "otelcol_process_runtime_heap_alloc_bytes".to_owned(),
            "otelcol_process_runtime_total_sys_memory_bytes".to_owned(),
            format!("otelagent_config_last_success_timestamp{seconds}"),
        ] {
            assert!(metrics.contains_key(&name), "{name} in\n{text}");
        }
    }
}

#[tokio::test]
async fn metrics_have_help_and_escape_ids_of_components() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address);
    let yaml = setup.yaml().replace("otlp_grpc", r#"'otlp_grpc/a"b\c'"#);
    let agent = setup.start_with(&yaml);
    send(&agent, "span", 2).await;
    eventually("they arrive", || sink.spans().len() == 2).await;
    let text = get(agent.metrics, "/metrics").1;
    let series = r#"otelcol_exporter_sent_spans_total{exporter="otlp_grpc/a\"b\\c"} 2"#;
    let sent = || get(agent.metrics, "/metrics").1.contains(series);
    eventually("it is counted under that name", sent).await;
    let mut lines = text.lines().peekable();
    let mut families = 0;
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix("# HELP ") else {
            assert!(!line.starts_with("# TYPE "), "without help: {line}");
            continue;
        };
        let (name, meaning) = rest.split_once(' ').unwrap();
        assert!(!meaning.is_empty());
        let next = lines.next().unwrap();
        assert!(next.starts_with(&format!("# TYPE {name} ")), "{next}");
        families += 1;
    }
    assert!(families > 60, "{families}");
}

#[tokio::test]
async fn health_distinguishes_liveness_readiness_and_delivery() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    let agent = Setup::grpc(sink.address)
        .exporter("sending_queue: {sizer: bytes, queue_size: 1370, batch: {flush_timeout: 1ms}}")
        .start();
    let delivery = |query: &str| {
        let (status, body) = get(agent.health, &format!("/delivery{query}"));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status, body)
    };
    assert_eq!(delivery("").0, 200, "nothing to deliver is no failure");
    send(&agent, "span", 1).await;
    eventually("it fails", || {
        let (status, body) = delivery("?seconds=0");
        status == 503 && body["delivery"]["otlp_grpc"]["state"] == "failing"
    })
    .await;
    let (status, body) = delivery("?seconds=3600");
    assert_eq!(
        (status, &body["status"]),
        (200, &"delivering".into()),
        "not for an hour"
    );
    assert_eq!(body["delivery"]["otlp_grpc"]["state"], "failing");
    send(&agent, "span", 8).await;
    let (status, body) = delivery("?seconds=3600");
    let full = serde_json::json!(["the queue of traces is full"]);
    assert_eq!((status, &body["problems"]), (503, &full), "{body}");
    assert_eq!(get(agent.health, "/delivery?minutes=1").0, 400);
    assert_eq!(
        (get(agent.health, "/live").0, get(agent.health, "/ready").0),
        (200, 200)
    );
    sink.always(None);
    eventually("it works again", || delivery("?seconds=0").0 == 200).await;
}

#[tokio::test]
async fn flapping_upstream_does_not_fill_the_log() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .retry("initial_interval: 5ms, max_interval: 5ms")
        .exporter("sending_queue: {batch: {flush_timeout: 1ms}}")
        .start();
    for round in 0..20 {
        sink.script([Reply::Grpc(UNAVAILABLE, None)]);
        send(&agent, "span", 1).await;
        eventually("it arrives", || sink.spans().len() == round + 1).await;
    }
    let fails = "delivery fails; telemetry is kept and sent again";
    let fails = agent.until_logged(fails).await;
    let works = agent.until_logged("delivery works again").await;
    assert_eq!((fails.len(), works.len()), (1, 1));
    assert_eq!(
        agent.metric("otelagent_exporter_failed_attempts_total", ""),
        20
    );
}

#[tokio::test]
async fn aged_connection_ends_without_losing_a_request() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .receiver(
            "grpc: {endpoint: '127.0.0.1:0', keepalive: {server_parameters: {max_connection_age: 500ms}}}",
        )
        .start();
    let message = spans("span", 1).encode_to_vec();
    let mut http = Http::connect(agent.port()).await;
    let mut answers = 0;
    let started = Instant::now();
    let last = loop {
        let answer = http.post("/v1/traces", &[], &message).await.unwrap();
        assert_eq!(answer.status, 200);
        answers += 1;
        if answer.header("connection") == Some("close") {
            break answer;
        }
        assert!(started.elapsed() < Duration::from_mins(1), "it never ends");
    };
    assert_eq!(last.status, 200);
    assert!(started.elapsed() >= Duration::from_millis(400));
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut calls = 0;
    // An unprocessed call is distinguished from a lost one: it never left.
    let error = loop {
        match grpc.call(client::TRACES, &message).await {
            Ok(answer) => assert_eq!(answer.status, 0),
            Err(error) => break error,
        }
        calls += 1;
        assert!(started.elapsed() < Duration::from_mins(2), "it never ends");
    };
    assert!(error.is_canceled() || error.is_closed(), "{error:?}");
    eventually("all arrive", || sink.spans().len() == answers + calls).await;
}

#[tokio::test]
async fn debug_exporter_logs_counts_and_nop_drops() {
    let setup = Setup::grpc("127.0.0.1:1".parse().unwrap());
    let yaml = setup.yaml();
    for kind in ["debug", "nop"] {
        let (before, rest) = yaml.split_once("exporters: {").unwrap();
        let (_, after) = rest.split_once("\nextensions").unwrap();
        let yaml = format!("{before}exporters: {{{kind}: }}\nextensions{after}")
            .replace("exporters: [otlp_grpc]", &format!("exporters: [{kind}]"));
        let agent = setup.start_with(&yaml);
        send(&agent, "span", 5).await;
        let sent = "otelcol_exporter_sent_spans_total";
        eventually("it is settled", || agent.metric(sent, kind) == 5).await;
        let lines = || agent.logged("received");
        if kind == "debug" {
            // Counted first, and logged then.
            eventually("it is logged", || !lines().is_empty()).await;
            let lines = lines();
            assert_eq!(
                (&lines[0]["signal"], &lines[0]["items"]),
                (&"traces".into(), &5.into())
            );
        } else {
            assert!(lines().is_empty());
        }
    }
}

#[tokio::test]
async fn paths_and_endpoints_of_signals_follow_the_configuration() {
    let (traces, others) = (Sink::http().await, Sink::http().await);
    let agent = Setup::http(others.address)
        .exporter(&format!(
            "traces_endpoint: 'http://{}/in/traces/'",
            traces.address
        ))
        .receiver("http: {endpoint: '127.0.0.1:0', traces_url_path: /custom}")
        .start();
    let mut http = Http::connect(agent.port()).await;
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(
        http.post("/custom", &[], &message).await.unwrap().status,
        200
    );
    eventually("it arrives", || traces.spans() == ["span-0"]).await;
    assert_eq!(traces.received()[0].path, "/in/traces/");
    let logs = crate::support::telemetry::logs("log", 1).encode_to_vec();
    assert_eq!(http.post("/v1/logs", &[], &logs).await.unwrap().status, 200);
    eventually("it arrives", || !others.received().is_empty()).await;
    assert_eq!(others.received()[0].path, "/v1/logs");
    let body = get(agent.health, "/ready").1;
    assert!(body.contains("otlp_http (traces)"), "{body}");
}

#[tokio::test]
async fn user_agent_and_authority_are_sent_as_configured() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .exporter("user_agent: shop/1, authority: collector.example")
        .start();
    send(&agent, "span", 1).await;
    eventually("it arrives", || !sink.received().is_empty()).await;
    assert_eq!(sink.received()[0].headers["user-agent"], "shop/1");
}
