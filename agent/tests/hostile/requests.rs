//! Requests that are larger than they look, or far too many.

use prost::Message;
use tokio::task::JoinSet;

use super::{LIMIT_MIB, agent, assert_others_are_served, assert_unharmed};
use crate::support::agent::Setup;
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink};
use crate::support::telemetry::spans;

const MIB: usize = 1024 * 1024;

const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;

/// The limit and a tenth, and what a debug build has anyway.
const MOST_KIB: u64 = LIMIT_MIB * 1024 * 11 / 10 + 10 * 1024;

#[tokio::test]
async fn concurrent_decompression_bombs_stay_within_the_memory_limit() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .receiver(
            "grpc: {endpoint: '127.0.0.1:0'}, \
             http: {endpoint: '127.0.0.1:0', max_request_body_size: 4194304}",
        )
        .start();
    let zeroes = vec![0; MIB];
    let bombs = [
        ("gzip", client::gzip(&zeroes).repeat(64)),
        (
            "zstd",
            zstd::encode_all(zeroes.as_slice(), 1).unwrap().repeat(64),
        ),
    ];
    let mut calls = JoinSet::new();
    for number in 0..24 {
        let (encoding, bomb) = bombs[number % 2].clone();
        let port = agent.port();
        calls.spawn(async move {
            if number < 12 {
                let mut http = Http::connect(port).await;
                let headers = [("content-encoding", encoding)];
                let answer = http.post("/v1/traces", &headers, &bomb).await.unwrap();
                assert!([413, 503].contains(&answer.status), "{}", answer.status);
            } else {
                let mut grpc = Grpc::connect(port).await;
                let (headers, framed) = ([("grpc-encoding", encoding)], client::frame(1, &bomb));
                let answer = grpc.framed(client::TRACES, &headers, framed).await.unwrap();
                assert!([RESOURCE_EXHAUSTED, UNAVAILABLE].contains(&answer.status));
            }
        });
    }
    assert_others_are_served(&agent).await;
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    assert_unharmed(&agent, MOST_KIB).await;
}

#[tokio::test]
async fn nested_bomb_is_decompressed_only_once() {
    let (_sink, agent) = agent().await;
    let inner = client::gzip(&vec![0; MIB]).repeat(512);
    let outer = client::gzip(&inner);
    let mut http = Http::connect(agent.port()).await;
    let once = [("content-encoding", "gzip")];
    let answer = http.post("/v1/traces", &once, &outer).await.unwrap();
    assert_eq!(answer.status, 400, "what is inside is no request");
    let twice = [("content-encoding", "gzip, gzip")];
    let answer = http.post("/v1/traces", &twice, &outer).await.unwrap();
    assert_eq!(answer.status, 415);
    let mut grpc = Grpc::connect(agent.port()).await;
    let framed = client::frame(1, &outer);
    let headers = [("grpc-encoding", "gzip")];
    let answer = grpc.framed(client::TRACES, &headers, framed).await.unwrap();
    assert_eq!(answer.status, INVALID_ARGUMENT);
    assert_unharmed(&agent, 40 * 1024).await;
}

#[tokio::test]
async fn zstd_frame_with_huge_size_or_window_reserves_nothing() {
    let (_sink, agent) = agent().await;
    // Magic; a content size of 8 bytes in one segment, 1 TiB; then nothing. The window is as large.
    let mut promise = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    promise.extend((1_u64 << 40).to_le_bytes());
    // Magic; a window descriptor of 2 GiB; an empty last block.
    let window = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    let mut http = Http::connect(agent.port()).await;
    for body in [&promise, &window] {
        let headers = [("content-encoding", "zstd")];
        let answer = http.post("/v1/traces", &headers, body).await.unwrap();
        assert_eq!(answer.status, 400);
    }
    assert_unharmed(&agent, 24 * 1024).await;
}

/// One span that is `size` bytes with everything around it.
fn request_of(size: usize) -> Vec<u8> {
    let overhead = spans("", 1).encode_to_vec().len() + 12;
    let mut request = spans("", 1);
    let span = &mut request.resource_spans[0].scope_spans[0].spans[0];
    span.name = "x".repeat(size - overhead);
    while request.encoded_len() < size {
        request.resource_spans[0].scope_spans[0].spans[0]
            .name
            .push('x');
    }
    assert_eq!(request.encoded_len(), size);
    request.encode_to_vec()
}

#[tokio::test]
async fn request_of_64_mib_is_accepted_up_to_the_limit() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    let limiter = "memory_limiter: {check_interval: 1s, limit_mib: 256, spike_limit_mib: 10}";
    let agent = Setup::grpc(sink.address)
        .receiver(
            "grpc: {endpoint: '127.0.0.1:0', max_recv_msg_size_mib: 64}, \
             http: {endpoint: '127.0.0.1:0', max_request_body_size: 67108864}",
        )
        .processors(limiter, "memory_limiter")
        .exporter("compression: none, sending_queue: {sizer: bytes, queue_size: 200000000}")
        .start();
    let (fits, over) = (request_of(64 * MIB), request_of(64 * MIB + 1));
    let mut grpc = Grpc::connect(agent.port()).await;
    let answer = grpc.call(client::TRACES, &over).await.unwrap();
    assert_eq!(answer.status, RESOURCE_EXHAUSTED);
    assert_eq!(grpc.call(client::TRACES, &fits).await.unwrap().status, 0);
    let mut http = Http::connect(agent.port()).await;
    let answer = http.post("/v1/traces", &[], &over).await.unwrap();
    assert_eq!(answer.status, 413);
    let mut http = Http::connect(agent.port()).await;
    let answer = http.post("/v1/traces", &[], &fits).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_unharmed(&agent, 256 * 1024 * 11 / 10 + 10 * 1024).await;
}

#[tokio::test]
async fn requests_of_64_mib_are_refused_by_default() {
    let (_sink, agent) = agent().await;
    let large = request_of(64 * MIB);
    let mut calls = JoinSet::new();
    for number in 0..8 {
        let (port, large) = (agent.port(), large.clone());
        calls.spawn(async move {
            if number % 2 == 0 {
                let mut grpc = Grpc::connect(port).await;
                // The stream may be closed before all of it has been sent.
                if let Ok(answer) = grpc.call(client::TRACES, &large).await {
                    assert_eq!(answer.status, RESOURCE_EXHAUSTED);
                }
            } else {
                let mut http = Http::connect(port).await;
                if let Some(answer) = http.post("/v1/traces", &[], &large).await {
                    assert_eq!(answer.status, 413);
                }
            }
        });
    }
    assert_others_are_served(&agent).await;
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    assert_unharmed(&agent, 40 * 1024).await;
}

/// Of a million tiny requests these are enough to see that memory does not depend on their number.
const TINY: usize = 40_000;

#[tokio::test]
async fn endless_tiny_requests_leave_no_memory_behind() {
    let (sink, agent) = agent().await;
    let message = spans("s", 1).encode_to_vec();
    let hundred = client::hundred(&message);
    let mut http = Http::connect(agent.port()).await;
    let mut send = async |many: usize| {
        for _ in 0..many / 100 {
            http.write(&hundred).await;
            http.skip(100).await;
        }
        agent.peak()
    };
    let early = send(TINY / 4).await;
    let grown = send(TINY).await - early;
    let all = (TINY + TINY / 4) as u64;
    eventually("all are delivered", || {
        agent.metric("otelcol_exporter_sent_spans_total", "") == all
    })
    .await;
    // A leak of 100 bytes each would be four megabytes.
    assert!(grown < 3 * 1024, "grew by {grown} KiB");
    assert!(sink.received().len() < TINY / 10, "they leave together");
    assert_unharmed(&agent, 40 * 1024).await;
}

/// No status: 413 where attributes are added, else 200.
const GROWN: u16 = 0;

#[tokio::test]
async fn attribute_edits_do_not_multiply_empty_entries() {
    // Entries of nothing, and of an empty scope; of two MiB, and of nearly all that gRPC or HTTP takes.
    let span = client::gzip(&[0x0a, 0x04, 0x12, 0x02, 0x12, 0x00]);
    let nothing = client::gzip(&[0x0a, 0x00].repeat(64 * 1024));
    let scope = client::gzip(&[0x0a, 0x02, 0x12, 0x00].repeat(32 * 1024));
    let protobuf = |entries: &[u8], members| [&span[..], &entries.repeat(members)].concat();
    let json = |entry: &str, many| {
        let entries = format!("{entry},").repeat(many);
        format!(r#"{{"resourceSpans":[{entries}{{"scopeSpans":[{{"spans":[{{}}]}}]}}]}}"#)
            .into_bytes()
    };
    let (binary, text) = ("application/x-protobuf", "application/json");
    let scopes = r#"{"scopeSpans":[{}]}"#;
    // With the answers over HTTP and gRPC; [`GROWN`] is too large only where attributes are added.
    let bodies = [
        (binary, protobuf(&nothing, 16), 200, 0),
        (binary, protobuf(&nothing, 159), 200, RESOURCE_EXHAUSTED),
        (binary, protobuf(&scope, 159), 413, RESOURCE_EXHAUSTED),
        (binary, protobuf(&scope, 31), GROWN, RESOURCE_EXHAUSTED),
        (text, json("{}", 400_000), 200, 0),
        (text, json(scopes, 200_000), GROWN, 0),
    ];
    for action in ["insert", "update", "upsert", "delete"] {
        let sink = Sink::grpc().await;
        let edit = |key: &str| match action {
            "delete" => format!("{{key: {key}, action: delete}}"),
            action => format!("{{key: {key}, value: a-name-of-some-length, action: {action}}}"),
        };
        let edits = ["k8s.node.name", "host.name", "deployment.environment.name"].map(edit);
        let processors = format!(
            "memory_limiter: {{check_interval: 1s, limit_mib: {LIMIT_MIB}}}, \
             resource: {{attributes: [{}]}}",
            edits.join(", ")
        );
        let setup = Setup::grpc(sink.address).processors(&processors, "memory_limiter, resource");
        let agent = setup.start();
        let adds = action == "insert" || action == "upsert";
        for (kind, body, http_status, grpc_status) in &bodies {
            let encoding = if *kind == text { "identity" } else { "gzip" };
            let headers = [("content-encoding", encoding), ("content-type", kind)];
            let mut http = Http::connect(agent.port()).await;
            let answer = http.post("/v1/traces", &headers, body).await.unwrap();
            let expected = match *http_status {
                GROWN if adds => 413,
                GROWN => 200,
                status => status,
            };
            assert_eq!(answer.status, expected, "{action}");
            if *kind == binary {
                let mut grpc = Grpc::connect(agent.port()).await;
                let (headers, framed) = ([("grpc-encoding", "gzip")], client::frame(1, body));
                let answer = grpc.framed(client::TRACES, &headers, framed).await.unwrap();
                assert_eq!(answer.status, *grpc_status, "{action}");
            }
        }
        assert_unharmed(&agent, MOST_KIB).await;
    }
}
