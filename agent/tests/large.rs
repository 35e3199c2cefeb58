//! Large requests: they are worked on beside the small ones, and leave nothing behind.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::sink::Sink;
use crate::support::telemetry::spans;

const MIB: usize = 1024 * 1024;
const ACCEPTED: &str = "otelcol_receiver_accepted_spans_total";
const HELD: &str = "otelagent_memory_held_bytes";

/// An agent that takes 20 MiB from everybody.
async fn agent() -> (Sink, Agent) {
    let sink = Sink::grpc().await;
    let limiter = "memory_limiter: {check_interval: 1s, limit_mib: 128}";
    let agent = Setup::grpc(sink.address)
        .receiver(
            "grpc: {endpoint: '127.0.0.1:0', max_recv_msg_size_mib: 20}, \
             http: {endpoint: '127.0.0.1:0'}",
        )
        .processors(limiter, "memory_limiter")
        .start();
    (sink, agent)
}

/// Equal spans as so much JSON, and their number.
fn json(size: usize) -> (Vec<u8>, u64) {
    let mut one = serde_json::to_value(spans("large", 1)).unwrap();
    let span = one["resourceSpans"][0]["scopeSpans"][0]["spans"][0].take();
    let span = format!("{span},");
    let count = size / span.len();
    let mut json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":["#.to_vec();
    json.extend(span.as_bytes().repeat(count));
    json.pop();
    json.extend(b"]}]}]}");
    (json, count as u64)
}

/// Equal spans as so much protobuf, and their number.
fn protobuf(size: usize) -> (Vec<u8>, u64) {
    let mut request = spans("large", 1);
    let one = request.encoded_len();
    let scope = &mut request.resource_spans[0].scope_spans[0];
    scope.spans = vec![scope.spans[0].clone(); size / one];
    let count = scope.spans.len() as u64;
    (request.encode_to_vec(), count)
}

fn zstd_of_unknown_size(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn http_head(encoding: &str, kind: &str, length: usize) -> String {
    format!(
        "POST /v1/traces HTTP/1.1\r\nhost: agent\r\ncontent-type: application/{kind}\r\n\
         content-encoding: {encoding}\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Sends small requests, one after the other, until `large` is answered; returns the number of their answers.
async fn answered_until<T>(agent: &Agent, large: impl Future<Output = T>) -> (usize, T) {
    let small = spans("small", 1).encode_to_vec();
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut answered = 0;
    let small = async {
        loop {
            let answer = grpc.call(client::TRACES, &small).await.unwrap();
            assert_eq!(answer.status, 0);
            answered += 1;
        }
    };
    let answer = tokio::select! {
        () = small => unreachable!(),
        answer = large => answer,
    };
    (answered, answer)
}

/// On one thread, few small requests are answered beside a large one: those that come between two reads of it.
const BESIDE: usize = 10;
/// An optimized agent is done with a large request in 50 ms, in which a busy machine may run something else.
const TRIES: u64 = 50;

#[tokio::test]
async fn small_requests_are_answered_while_a_large_one_is_worked_on() {
    let (_sink, agent) = agent().await;
    let (json, count) = json(19 * MIB);
    let (first, last) = json.split_at(json.len() / 2);
    let two_members = [client::gzip(first), client::gzip(last)].concat();
    let bodies = [
        ("gzip", client::gzip(&json)),
        // Their ends and their beginnings do not tell how large they are.
        ("gzip", two_members),
        ("zstd", zstd_of_unknown_size(&json)),
    ];
    let mut sent = 0;
    for (encoding, body) in bodies {
        assert!(body.len() < 200 * 1024, "{} bytes", body.len());
        let head = http_head(encoding, "json", body.len());
        let request = [head.as_bytes(), &body].concat();
        let begin = async || {
            let mut http = Http::connect(agent.port()).await;
            http.write(&request).await;
            http
        };
        let finish =
            async |mut http: Http| assert_eq!(http.read().await.unwrap().status, 200, "{encoding}");
        sent += count * worked_on_beside_others(&agent, begin, finish).await;
    }
    let (message, count) = protobuf(19 * MIB);
    let framed = client::frame(1, &client::gzip(&message));
    let begin = async || Grpc::connect(agent.port()).await;
    let finish = async |mut grpc: Grpc| {
        let gzip = [("grpc-encoding", "gzip")];
        let answer = grpc.framed(client::TRACES, &gzip, framed.clone()).await;
        assert_eq!(answer.unwrap().status, 0);
    };
    sent += count * worked_on_beside_others(&agent, begin, finish).await;
    assert!(agent.metric(ACCEPTED, "") > sent);
    assert_eq!(agent.books("spans"), 0);
}

/// Sends large requests until enough small ones were answered beside one of them; returns their number. Small ones
/// count from the end of `begin` to the end of `finish`.
async fn worked_on_beside_others<C>(
    agent: &Agent,
    begin: impl AsyncFn() -> C,
    finish: impl AsyncFn(C),
) -> u64 {
    let mut most = 0;
    for tries in 1..=TRIES {
        let client = begin().await;
        let (answered, ()) = answered_until(agent, finish(client)).await;
        if answered > BESIDE {
            return tries;
        }
        most = most.max(answered);
        eventually("the queue is empty", || {
            agent.metric(HELD, "") < 4 * MIB as u64
        })
        .await;
    }
    panic!("{most} answers beside a large request");
}

#[tokio::test]
async fn answers_on_one_connection_keep_their_order() {
    let (_sink, agent) = agent().await;
    let (mut json, _) = json(2 * MIB);
    json.pop();
    let large = client::gzip(&json);
    let small = client::gzip(&spans("small", 1).encode_to_vec());
    let mut pipelined = Vec::new();
    for (kind, body) in [("json", &large), ("x-protobuf", &small)] {
        pipelined.extend(http_head("gzip", kind, body.len()).into_bytes());
        pipelined.extend(body);
    }
    let mut stream = TcpStream::connect(agent.port()).await.unwrap();
    stream.write_all(&pipelined).await.unwrap();
    let mut answers = Vec::new();
    while !answers.windows(13).any(|part| part == b"HTTP/1.1 200 ") {
        assert!(stream.read_buf(&mut answers).await.unwrap() > 0);
    }
    assert!(answers.starts_with(b"HTTP/1.1 400 "));
}

#[tokio::test]
async fn large_requests_whose_clients_leave_give_back_their_memory() {
    let (_sink, agent) = agent().await;
    let (json, count) = json(4 * MIB);
    let body = client::gzip(&json);
    let request = [http_head("gzip", "json", body.len()).as_bytes(), &body].concat();
    for number in 0..30 {
        let mut http = Http::connect(agent.port()).await;
        http.write(&request).await;
        sleep(Duration::from_millis(number % 7)).await;
    }
    eventually("their memory is free", || agent.metric(HELD, "") == 0).await;
    let before = agent.metric(ACCEPTED, "");
    for _ in 0..3 {
        let mut http = Http::connect(agent.port()).await;
        http.write(&request).await;
        assert_eq!(http.read().await.unwrap().status, 200);
    }
    assert_eq!(agent.metric(ACCEPTED, ""), before + 3 * count);
    eventually("all is delivered", || agent.metric(HELD, "") == 0).await;
    assert_eq!(agent.books("spans"), 0);
    let peak = agent.peak();
    // The limit and a tenth, and what a debug build has anyway.
    assert!(peak < 151 * 1024, "{peak} KiB");
}

#[tokio::test]
async fn flood_of_large_requests_holds_up_no_other_sender() {
    const FLOOD: usize = 40;
    let (_sink, agent) = agent().await;
    let (json, _) = json(2 * MIB);
    let body = client::gzip(&json);
    let large = [http_head("gzip", "json", body.len()).as_bytes(), &body].concat();
    let answered = Arc::new(AtomicUsize::new(0));
    for _ in 0..FLOOD {
        let mut http = Http::connect_from([127, 0, 0, 2], agent.port()).await;
        http.write(&large).await;
        let answered = Arc::clone(&answered);
        tokio::spawn(async move {
            http.read().await.unwrap();
            answered.fetch_add(1, Ordering::Relaxed);
        });
    }
    let answered = || answered.load(Ordering::Relaxed);
    eventually("the flood is worked on", || answered() > 0).await;
    // As an exporter sends them that sends 512 spans at a time.
    let (usual, _) = protobuf(200 * 1024);
    let mut quiet = Http::connect_from([127, 0, 0, 3], agent.port()).await;
    let before = answered();
    for _ in 0..4 {
        let answer = quiet.post("/v1/traces", &[], &usual).await;
        assert_eq!(answer.unwrap().status, 200);
    }
    // The one in work and the next one, each time, and those whose answers were on their way.
    let passed = answered() - before;
    assert!(passed < FLOOD / 2, "{passed} of the flood came first");
}

#[tokio::test]
async fn large_request_in_work_at_sigterm_is_answered_and_settled() {
    let (_sink, agent) = agent().await;
    let (json, _) = json(2 * MIB);
    let body = client::gzip(&json);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut http = Http::connect(agent.port()).await;
        let head = http_head("gzip", "json", body.len());
        http.write(&[head.as_bytes(), &body].concat()).await;
        clients.spawn(async move { http.read().await.unwrap().status });
    }
    eventually("work has begun", || agent.metric(HELD, "") > 1_000_000).await;
    agent.terminate();
    for status in clients.join_all().await {
        assert!([200, 503].contains(&status), "{status}");
    }
    let (code, log) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    let done = log.iter().find(|line| line["message"] == "done").unwrap();
    assert_eq!(done["accepted"], done["delivered"]);
}
