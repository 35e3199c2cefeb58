//! Refusals: which requests are refused, and whether the client may retry.

use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, timeout};
use tonic::metadata::MetadataMap;

use crate::support::agent::{Agent, Setup, get};
use crate::support::client::{self, Grpc, GrpcAnswer, Http, HttpAnswer};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink};
use crate::support::telemetry::spans;

const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;

/// `google.rpc.Status`, with its details as raw `Any`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

fn details(answer: &GrpcAnswer) -> Vec<String> {
    let metadata = MetadataMap::from_headers(answer.headers.clone());
    let Some(details) = metadata.get_bin("grpc-status-details-bin") else {
        return Vec::new();
    };
    let bytes = details.to_bytes().unwrap();
    let status = Status::decode(bytes).unwrap();
    assert_eq!(u32::try_from(status.code).unwrap(), answer.status);
    status.details.into_iter().map(|any| any.type_url).collect()
}

fn asks_to_retry(answer: &GrpcAnswer) -> bool {
    details(answer)
        .iter()
        .any(|kind| kind.ends_with("google.rpc.RetryInfo"))
}

/// The status in the body of an HTTP refusal.
fn http_status(answer: &HttpAnswer) -> Status {
    assert_eq!(
        answer.header("content-type"),
        Some("application/x-protobuf")
    );
    Status::decode(answer.body.as_slice()).unwrap()
}

async fn agent() -> (Sink, Agent) {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    (sink, agent)
}

#[tokio::test]
async fn malformed_requests_are_refused_for_good_in_both_protocols() {
    let (_sink, agent) = agent().await;
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut http = Http::connect(agent.port()).await;
    let truncated = &spans("span", 1).encode_to_vec()[..20];
    for message in [&b"abc"[..], truncated] {
        let answer = grpc.call(client::TRACES, message).await.unwrap();
        assert_eq!(answer.status, INVALID_ARGUMENT);
        assert_eq!(answer.http_status, 200);
        assert_eq!(
            details(&answer),
            ["type.googleapis.com/google.rpc.BadRequest"]
        );
        let answer = http.post("/v1/traces", &[], message).await.unwrap();
        assert_eq!(answer.status, 400);
        assert_eq!(http_status(&answer).code, 3);
    }
    let refused = agent.metric("otelagent_refused_requests_total", "reason=\"malformed\"");
    assert_eq!(refused, 4);
}

#[tokio::test]
async fn deep_nesting_is_refused_without_a_crash() {
    let (_sink, agent) = agent().await;
    let mut grpc = Grpc::connect(agent.port()).await;
    // AnyValue in ArrayValue in AnyValue …
    let mut value = vec![0x10, 1];
    for _ in 0..100_000 {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(value.len() as u64, &mut outer);
        outer.append(&mut value);
        value = vec![0x2a];
        prost::encoding::encode_varint(outer.len() as u64, &mut value);
        value.append(&mut outer);
        if value.len() > 100_000 {
            break;
        }
    }
    for tag in [0x12, 0x0a, 0x0a, 0x0a] {
        let mut outer = vec![tag];
        prost::encoding::encode_varint(value.len() as u64, &mut outer);
        outer.append(&mut value);
        value = outer;
    }
    let answer = grpc.call(client::TRACES, &value).await.unwrap();
    assert_eq!(answer.status, INVALID_ARGUMENT);
    let ok = grpc
        .call(client::TRACES, &spans("span", 1).encode_to_vec())
        .await
        .unwrap();
    assert_eq!(ok.status, 0);
}

#[tokio::test]
async fn json_request_gets_a_json_refusal() {
    let (_sink, agent) = agent().await;
    let mut http = Http::connect(agent.port()).await;
    let answer = http
        .post("/v2/traces", &[("content-type", "application/json")], b"{}")
        .await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status["message"], "unknown path or method");
}

#[tokio::test]
async fn wrong_methods_paths_and_content_types_get_distinct_answers() {
    let (_sink, agent) = agent().await;
    let mut http = Http::connect(agent.port()).await;
    http.write(b"GET /v1/traces HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    let answer = http.read().await.unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = http.post("/v1/unknown", &[], b"").await.unwrap();
    assert_eq!(answer.status, 404);
    let answer = http
        .post("/v1/traces", &[("content-type", "text/plain")], b"")
        .await
        .unwrap();
    assert_eq!(answer.status, 415);
    let mut grpc = Grpc::connect(agent.port()).await;
    let answer = grpc.call("/some.Service/Method", b"").await.unwrap();
    assert_eq!(answer.status, UNIMPLEMENTED);
}

#[tokio::test]
async fn unknown_encodings_are_refused_with_the_list_of_known_ones() {
    let (_sink, agent) = agent().await;
    let mut http = Http::connect(agent.port()).await;
    let answer = http
        .post("/v1/traces", &[("content-encoding", "br")], b"abc")
        .await
        .unwrap();
    assert_eq!(answer.status, 415);
    assert_eq!(
        answer.header("accept-encoding"),
        Some("gzip, zstd, deflate, identity")
    );
    let mut grpc = Grpc::connect(agent.port()).await;
    let framed = client::frame(1, b"abc");
    let answer = grpc
        .framed(client::TRACES, &[("grpc-encoding", "snappy")], framed)
        .await
        .unwrap();
    assert_eq!(answer.status, UNIMPLEMENTED);
    assert_eq!(
        answer.headers["grpc-accept-encoding"],
        "identity,gzip,zstd,deflate"
    );
}

#[tokio::test]
async fn broken_deflate_gets_a_client_error_and_a_bomb_stays_within_the_limit() {
    let (_sink, agent) = agent().await;
    let body = spans("span", 10).encode_to_vec();
    for whole in [client::zlib(&body), client::deflate(&body)] {
        let cut = &whole[..whole.len() - 3];
        let longer = [&whole[..], b"x"].concat();
        let twice = whole.repeat(2);
        for broken in [cut, &longer, &twice, b"x", b""] {
            let mut http = Http::connect(agent.port()).await;
            let headers = [("content-encoding", "deflate")];
            let answer = http.post("/v1/traces", &headers, broken).await;
            assert_eq!(answer.unwrap().status, 400);
        }
    }
    // 60 MiB of empty fields; the limit is 20.
    let bomb = vec![0_u8; 60 << 20];
    for bomb in [client::zlib(&bomb), client::deflate(&bomb)] {
        let before = agent.peak();
        let mut http = Http::connect(agent.port()).await;
        let headers = [("content-encoding", "deflate")];
        let answer = http.post("/v1/traces", &headers, &bomb).await;
        assert_eq!(answer.unwrap().status, 413);
        assert!(agent.peak() < before + 45 * 1024, "{} KiB", agent.peak());
    }
    assert_eq!(agent.metric("otelagent_memory_held_bytes", ""), 0);
}

#[tokio::test]
async fn other_protocols_than_grpc_are_told_apart_by_the_content_type() {
    let (_sink, agent) = agent().await;
    let message = spans("span", 1).encode_to_vec();
    let mut http = Http::connect(agent.port()).await;
    for kind in [
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpcx",
    ] {
        let headers = [("content-type", kind)];
        let answer = http.post("/v1/traces", &headers, &message).await.unwrap();
        assert_eq!(answer.status, 415, "{kind}");
        let body = String::from_utf8_lossy(&answer.body);
        assert!(body.contains("application/x-protobuf"), "{body}");
    }
    let mut grpc = Grpc::connect(agent.port()).await;
    for (kind, status) in [
        ("application/grpc", 0),
        ("application/grpc+proto", 0),
        ("Application/gRPC; charset=utf-8", 0),
        ("application/grpc+json", UNIMPLEMENTED),
    ] {
        let framed = client::frame(0, &message);
        let answer = grpc
            .framed(client::TRACES, &[("content-type", kind)], framed)
            .await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{kind}");
    }
}

#[tokio::test]
async fn call_that_ends_before_its_message_is_refused_for_good() {
    let (_sink, agent) = agent().await;
    let framed = client::frame(0, &spans("span", 1).encode_to_vec());
    let mut grpc = Grpc::connect(agent.port()).await;
    for cut in [0, 3, 5, framed.len() - 1] {
        let answer = grpc
            .framed(client::TRACES, &[], framed[..cut].to_vec())
            .await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, INTERNAL, "{cut} bytes");
        assert!(!answer.headers.contains_key("grpc-status-details-bin"));
    }
    let refused = agent.metric("otelagent_refused_requests_total", "malformed");
    assert_eq!(refused, 4);
}

#[tokio::test]
async fn broken_compression_and_framing_get_a_client_error() {
    let (_sink, agent) = agent().await;
    let mut http = Http::connect(agent.port()).await;
    let answer = http
        .post("/v1/traces", &[("content-encoding", "gzip")], b"no gzip")
        .await;
    assert_eq!(answer.unwrap().status, 400);
    // For any value of the last four bytes, what comes out must be as long, and no longer than allowed.
    let honest = client::gzip(&spans("span", 10).encode_to_vec());
    let (rest, _) = honest.split_last_chunk::<4>().unwrap();
    for claimed in [0, 1, 100_000, u32::MAX] {
        let forged = [rest, &claimed.to_le_bytes()].concat();
        let answer = http
            .post("/v1/traces", &[("content-encoding", "gzip")], &forged)
            .await;
        assert_eq!(answer.unwrap().status, 400, "{claimed}");
    }
    let mut grpc = Grpc::connect(agent.port()).await;
    let gzip = [("grpc-encoding", "gzip")];
    let answer = grpc
        .framed(client::TRACES, &gzip, client::frame(1, b"no gzip"))
        .await
        .unwrap();
    assert_eq!(answer.status, INVALID_ARGUMENT);
    let mut two = client::frame(0, b"");
    two.extend(client::frame(0, b""));
    for (headers, framed) in [
        (&[][..], two),
        (&[][..], client::frame(1, b"")),
        (&gzip, client::frame(7, b"")),
    ] {
        let answer = grpc.framed(client::TRACES, headers, framed).await.unwrap();
        assert_eq!(answer.status, INTERNAL);
    }
}

#[tokio::test]
async fn oversized_requests_are_refused_before_and_after_decompression() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .receiver(
            "grpc: {endpoint: '127.0.0.1:0', max_recv_msg_size_mib: 1}, \
             http: {endpoint: '127.0.0.1:0', max_request_body_size: 100000}",
        )
        .start();
    let message = spans("span", 20_000).encode_to_vec();
    assert!(message.len() > 1024 * 1024);
    let gzip = [("grpc-encoding", "gzip")];
    for (headers, framed) in [
        (&[][..], client::frame(0, &message)),
        (&gzip, client::frame(1, &client::gzip(&message))),
    ] {
        let mut grpc = Grpc::connect(agent.port()).await;
        let answer = grpc.framed(client::TRACES, headers, framed).await.unwrap();
        assert_eq!(answer.status, RESOURCE_EXHAUSTED);
        assert!(!asks_to_retry(&answer), "a client would send it forever");
    }
    for (headers, body) in [
        (&[][..], message.clone()),
        (&[("content-encoding", "gzip")], client::gzip(&message)),
    ] {
        let mut http = Http::connect(agent.port()).await;
        let answer = http.post("/v1/traces", headers, &body).await.unwrap();
        assert_eq!(answer.status, 413);
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(http_status(&answer).code, 8);
    }
    let mut http = Http::connect(agent.port()).await;
    let mut chunked =
        b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n\
        transfer-encoding: chunked\r\n\r\n"
            .to_vec();
    chunked.extend(format!("{:x}\r\n", 150_000).into_bytes());
    chunked.extend(vec![0; 150_000]);
    http.write(&chunked).await;
    assert_eq!(
        http.read().await.unwrap().status,
        413,
        "no length was announced"
    );
}

#[tokio::test]
async fn decompression_bomb_stays_within_the_limit() {
    let (_sink, agent) = agent().await;
    let before = agent.resident();
    // Members and frames may be joined, which makes a bomb of 512 MiB quick to build.
    let mebibyte = vec![0; 1024 * 1024];
    let bomb = client::gzip(&mebibyte).repeat(512);
    assert!(bomb.len() < 1024 * 1024);
    let zstd_bomb = zstd::encode_all(mebibyte.as_slice(), 1)
        .unwrap()
        .repeat(512);
    for (encoding, body) in [("gzip", &bomb), ("zstd", &zstd_bomb)] {
        let mut http = Http::connect(agent.port()).await;
        let answer = http
            .post("/v1/traces", &[("content-encoding", encoding)], body)
            .await;
        assert_eq!(answer.unwrap().status, 413);
    }
    let mut grpc = Grpc::connect(agent.port()).await;
    let framed = client::frame(1, &bomb);
    let answer = grpc
        .framed(client::TRACES, &[("grpc-encoding", "gzip")], framed)
        .await
        .unwrap();
    assert_eq!(answer.status, RESOURCE_EXHAUSTED);
    let peak = agent.peak();
    assert!(
        peak - before < 60 * 1024,
        "grew from {before} to {peak} KiB"
    );
}

#[tokio::test]
async fn million_empty_spans_cost_only_their_bytes() {
    let (sink, agent) = agent().await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    let before = agent.resident();
    let empty = [0x12, 0x00].repeat(1024 * 1024);
    let mut scope = vec![0x12];
    prost::encoding::encode_varint(empty.len() as u64, &mut scope);
    scope.extend(empty);
    let mut request = vec![0x0a];
    prost::encoding::encode_varint(scope.len() as u64, &mut request);
    request.extend(scope);
    let mut grpc = Grpc::connect(agent.port()).await;
    let framed = client::frame(1, &client::gzip(&request));
    let answer = grpc
        .framed(client::TRACES, &[("grpc-encoding", "gzip")], framed)
        .await
        .unwrap();
    assert_eq!(answer.status, 0);
    assert_eq!(
        agent.metric("otelcol_receiver_accepted_spans_total", ""),
        1024 * 1024
    );
    let peak = agent.peak();
    assert!(
        peak - before < 20 * 1024,
        "grew from {before} to {peak} KiB"
    );
}

const SMALL_QUEUE: &str = "sending_queue: {sizer: bytes, queue_size: 20000, num_consumers: 1, \
    batch: {flush_timeout: 10ms, sizer: bytes, min_size: 10000, max_size: 10000}}";

#[tokio::test]
async fn full_queue_refuses_retryably_and_recovers_with_the_upstream() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    let agent = Setup::grpc(sink.address).exporter(SMALL_QUEUE).start();
    let message = spans("span", 10).encode_to_vec();
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut accepted = 0;
    let refusal = loop {
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        if answer.status != 0 {
            break answer;
        }
        accepted += 1;
    };
    assert!(accepted > 5);
    assert_eq!(refusal.status, UNAVAILABLE);
    assert!(asks_to_retry(&refusal));
    let mut http = Http::connect(agent.port()).await;
    let answer = http.post("/v1/traces", &[], &message).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(http_status(&answer).code, 14);
    assert_eq!(agent.books("spans"), 0);
    sink.always(None);
    eventually("the queue drains", || sink.spans().len() == accepted * 10).await;
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
}

#[tokio::test]
async fn full_queue_of_one_signal_does_not_stop_another() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    let agent = Setup::grpc(sink.address).exporter(SMALL_QUEUE).start();
    let message = spans("span", 100).encode_to_vec();
    let mut grpc = Grpc::connect(agent.port()).await;
    while grpc.call(client::TRACES, &message).await.unwrap().status == 0 {}
    let logs = crate::support::telemetry::logs("log", 1).encode_to_vec();
    assert_eq!(grpc.call(client::LOGS, &logs).await.unwrap().status, 0);
}

#[tokio::test]
async fn memory_limit_holds_during_an_upstream_outage() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Silence));
    let agent = Setup::grpc(sink.address)
        .processors(
            "memory_limiter: {check_interval: 1s, limit_mib: 16}",
            "memory_limiter",
        )
        .start();
    let before = agent.resident();
    let message = spans("span", 500).encode_to_vec();
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut refused = 0;
    for _ in 0..2000 {
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        if answer.status != 0 {
            assert_eq!(answer.status, UNAVAILABLE);
            assert!(asks_to_retry(&answer));
            refused += 1;
        }
    }
    assert!(refused > 1000);
    let mut http = Http::connect(agent.port()).await;
    let answer = http.post("/v1/traces", &[], &message).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    let held = agent.metric("otelagent_memory_held_bytes", "");
    assert!(held <= 16 * 1024 * 1024, "{held} bytes held");
    let grown = agent.peak() - before;
    assert!(grown < 18 * 1024, "grew by {grown} KiB");
    assert_eq!(agent.books("spans"), 0);
}

#[tokio::test]
async fn incomplete_header_does_not_keep_a_connection() {
    let (_sink, agent) = agent().await;
    let mut http = Http::connect(agent.port()).await;
    http.write(b"POST /v1/traces HTTP/1.1\r\nhost: a\r\n").await;
    let started = Instant::now();
    let closed = timeout(Duration::from_mins(1), http.read()).await;
    assert!(closed.unwrap().is_none());
    assert!(started.elapsed() > Duration::from_secs(9));
}

#[tokio::test]
async fn silent_clients_are_disconnected_and_block_no_others() {
    let (_sink, agent) = agent().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(Http::connect(agent.port()).await);
    }
    let mut grpc = Grpc::connect(agent.port()).await;
    let answer = grpc
        .call(client::TRACES, &spans("span", 1).encode_to_vec())
        .await
        .unwrap();
    assert_eq!(answer.status, 0);
    let last = silent.last_mut().unwrap();
    assert!(
        timeout(Duration::from_mins(1), last.read())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn signal_without_a_pipeline_is_unimplemented() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address);
    let yaml = setup.yaml();
    let logs = yaml.find(", logs:").unwrap();
    let end = yaml[logs..].find("}\n").unwrap() + logs;
    let agent = setup.start_with(&format!("{}{}", &yaml[..logs], &yaml[end..]));
    let mut grpc = Grpc::connect(agent.port()).await;
    assert_eq!(
        grpc.call(client::LOGS, b"").await.unwrap().status,
        UNIMPLEMENTED
    );
    let mut http = Http::connect(agent.port()).await;
    assert_eq!(http.post("/v1/logs", &[], b"").await.unwrap().status, 404);
}

#[tokio::test]
async fn health_reports_readiness_and_delivery() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let state = |agent: &Agent| {
        let (status, body) = get(agent.health, "/ready");
        assert_eq!(status, 200);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["status"], "ready");
        body["delivery"]["otlp_grpc"]["state"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(state(&agent), "idle");
    let mut grpc = Grpc::connect(agent.port()).await;
    grpc.call(client::TRACES, &spans("span", 1).encode_to_vec())
        .await
        .unwrap();
    eventually("delivery works", || state(&agent) == "ok").await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    grpc.call(client::TRACES, &spans("span", 1).encode_to_vec())
        .await
        .unwrap();
    eventually("delivery fails", || state(&agent) == "failing").await;
    assert_eq!(get(agent.health, "/").0, 200);
    assert_eq!(get(agent.health, "/other").0, 404);
}

#[tokio::test]
async fn announced_lengths_reserve_no_memory() {
    let (_sink, agent) = agent().await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut http = Http::connect(agent.port()).await;
        http.begin("/v1/traces", 15_000_000).await;
        http.write(b"abc").await;
        slow.push(http);
    }
    assert!(agent.metric("otelagent_memory_held_bytes", "") < 1024 * 1024);
    let mut grpc = Grpc::connect(agent.port()).await;
    let answer = grpc
        .call(client::TRACES, &spans("span", 1).encode_to_vec())
        .await
        .unwrap();
    assert_eq!(answer.status, 0);
}
