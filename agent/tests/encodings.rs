//! Upstreams that do not take the configured compression: the agent uses another, and nobody loses anything by it.

use prost::Message;

use crate::support::agent::{Agent, Setup, temporary};
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink, Speaks};
use crate::support::telemetry::spans;

const KINDS: [(&str, Speaks); 2] = [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)];
const LOST: &str = "otelagent_lost_spans_total";
const FELL_BACK: &str =
    "the upstream does not take the configured compression; another is used for now";

fn to(kind: &str, sink: &Sink, compression: &str) -> Setup {
    Setup::to_with_timeout(kind, sink.address, "5s")
        .exporter(&format!("compression: {compression}"))
        .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
}

async fn send(agent: &Agent, name: &str) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans(name, 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
}

/// The encodings of all requests, in order.
fn encodings(sink: &Sink) -> Vec<String> {
    let received = sink.received();
    let encodings = received.iter().map(|request| {
        let headers = &request.headers;
        let encoding = headers
            .get("grpc-encoding")
            .or(headers.get("content-encoding"));
        encoding
            .map_or("none", |value| value.to_str().unwrap())
            .to_owned()
    });
    encodings.collect()
}

/// Sends four requests, of which the first is tried in `refused` and all arrive in `taken`.
async fn falls_back(kind: &str, sink: &Sink, refused: &str, taken: &str) {
    let agent = to(kind, sink, refused).start();
    for number in 1..=4 {
        send(&agent, "span").await;
        eventually("it arrives", || sink.spans().len() == number).await;
    }
    assert_eq!(encodings(sink), [refused, taken, taken, taken, taken]);
    let failed = "otelagent_exporter_failed_attempts_total";
    for nothing in [LOST, failed] {
        assert_eq!(agent.metric(nothing, ""), 0, "{nothing}");
    }
    assert_eq!(agent.books("spans"), 0);
    let lines = agent.until_logged(FELL_BACK).await;
    assert_eq!(
        (lines.len(), lines[0]["encoding"].as_str()),
        (1, Some(taken))
    );
}

#[tokio::test]
async fn gzip_is_sent_where_grpc_does_not_know_zstd() {
    for (code, message) in [
        (
            12,
            "grpc: Decompressor is not installed for grpc-encoding \"zstd\"",
        ),
        (
            13,
            "grpc: Decompressor is not installed for grpc-encoding \"zstd\"",
        ),
        (
            12,
            "Content is compressed with `zstd` which isn't supported",
        ),
        (12, "Can't find decompressor for zstd"),
    ] {
        let sink = Sink::grpc().await;
        sink.does_not_know("zstd", Reply::Says(code, message));
        falls_back("otlp_grpc", &sink, "zstd", "gzip").await;
    }
}

#[tokio::test]
async fn gzip_is_sent_where_http_does_not_know_zstd() {
    for reply in [
        Reply::Http(415, Vec::new()),
        // The collector with `compression_algorithms`.
        Reply::Text(400, "unsupported Content-Encoding: zstd\n"),
        // Servers that do not look at the encoding.
        Reply::Text(400, "proto: illegal wireType 7\n"),
        Reply::Http(500, Vec::new()),
    ] {
        let sink = Sink::http().await;
        sink.does_not_know("zstd", reply);
        falls_back("otlp_http", &sink, "zstd", "gzip").await;
    }
}

#[tokio::test]
async fn plain_requests_are_sent_where_gzip_is_not_known() {
    let sink = Sink::grpc().await;
    let message = "grpc: Decompressor is not installed for grpc-encoding \"gzip\"";
    sink.does_not_know("gzip", Reply::Says(12, message));
    falls_back("otlp_grpc", &sink, "gzip", "none").await;
    let sink = Sink::http().await;
    sink.does_not_know("gzip", Reply::Http(415, Vec::new()));
    falls_back("otlp_http", &sink, "gzip", "none").await;
}

#[tokio::test]
async fn bad_data_is_no_reason_to_leave_zstd() {
    for (kind, speaks) in KINDS {
        let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
        let reply = match speaks {
            Speaks::Grpc => Reply::Says(3, "unmarshal: invalid"),
            Speaks::Http => Reply::Text(400, "unmarshal: invalid"),
        };
        sink.dislikes("poison", reply);
        let agent = to(kind, &sink, "zstd").start();
        for (round, name) in ["poison", "good", "poison", "good"].iter().enumerate() {
            send(&agent, name).await;
            eventually("it is settled", || {
                agent.metric(LOST, "") + sink.spans().len() as u64 == round as u64 + 1
            })
            .await;
        }
        // Only the first is tried again: zstd was never taken before.
        let expected = ["zstd", "gzip", "zstd", "zstd", "zstd"];
        assert_eq!(encodings(&sink), expected);
        assert_eq!(agent.metric(LOST, "reason=\"permanent\""), 2);
        assert!(agent.logged(FELL_BACK).is_empty());
    }
}

#[tokio::test]
async fn changed_configuration_tries_zstd_again() {
    let sink = Sink::http().await;
    sink.does_not_know("zstd", Reply::Http(415, Vec::new()));
    let setup = to("otlp_http", &sink, "zstd");
    let file = temporary("config.yaml");
    std::fs::write(&file, setup.yaml()).unwrap();
    let agent = setup.start_from(&file);
    send(&agent, "span").await;
    eventually("it arrives", || sink.spans().len() == 1).await;
    sink.does_not_know("zstd", Reply::Take(Vec::new()));
    let changed = to("otlp_http", &sink, "zstd").exporter("headers: {x-new: a}");
    std::fs::write(&file, changed.yaml()).unwrap();
    agent.hang_up();
    eventually("it is read", || {
        agent.metric("otelagent_config_reloads_total", "applied") == 1
    })
    .await;
    send(&agent, "span").await;
    eventually("it arrives", || sink.spans().len() == 2).await;
    assert_eq!(encodings(&sink), ["zstd", "gzip", "zstd"]);
    std::fs::remove_file(file).unwrap();
}
