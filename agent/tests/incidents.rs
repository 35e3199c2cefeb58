//! Upstreams that are there and half broken: slow, picky, exhausted, mute.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;

use crate::support::agent::{Agent, Setup, temporary};
use crate::support::client::{self, Grpc};
use crate::support::sink::{Reply, Sink, Speaks, TOO_LARGE};
use crate::support::slow::SlowSink;
use crate::support::telemetry::spans;
use crate::support::{eventually, eventually_answers};

const LOST: &str = "otelagent_lost_spans_total";
const SENT: &str = "otelcol_exporter_sent_spans_total";
const FAILED: &str = "otelagent_exporter_failed_attempts_total";
const KINDS: [(&str, Speaks); 2] = [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)];

async fn sink(speaks: Speaks) -> Sink {
    Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await
}

fn to(kind: &str, upstream: SocketAddr) -> Setup {
    Setup::to_with_timeout(kind, upstream, "30s")
        .retry("initial_interval: 20ms, max_interval: 200ms")
}

async fn send_all(agent: &Agent, messages: impl IntoIterator<Item = Vec<u8>>) {
    let mut grpc = Grpc::connect(agent.port()).await;
    for message in messages {
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        assert_eq!(answer.status, 0);
    }
}

/// Sends these to an agent that waits for all of them and makes them one batch, however long that takes.
async fn send_together(setup: Setup, messages: impl IntoIterator<Item = Vec<u8>>) -> Agent {
    let messages: Vec<_> = messages.into_iter().collect();
    let bytes: usize = messages.iter().map(Vec::len).sum();
    let batch = format!("flush_timeout: 3600s, sizer: bytes, min_size: {bytes}, max_size: 3145728");
    let agent = setup.batch(&batch).start();
    send_all(&agent, messages).await;
    agent
}

/// One span each.
fn requests(name: &str, count: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |number| spans(&format!("{name}{number}"), 1).encode_to_vec())
}

fn change(agent: &Agent, file: &Path, setup: &Setup) {
    std::fs::write(file, setup.yaml()).unwrap();
    agent.hang_up();
}

/// A `google.rpc.Status` with a `RetryInfo` of the largest number of seconds.
fn absurd_retry_info() -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(bytes.len() as u64, &mut out);
        out.extend(bytes);
        out
    };
    let mut duration = vec![0x08];
    prost::encoding::encode_varint(i64::MAX.cast_unsigned(), &mut duration);
    let any = [
        field(0x0a, b"type.googleapis.com/google.rpc.RetryInfo"),
        field(0x12, &field(0x0a, &duration)),
    ]
    .concat();
    field(0x1a, &any)
}

#[tokio::test]
async fn absurd_wait_is_bounded_logged_and_ended_by_a_new_endpoint() {
    let after = |text: &str| Reply::Http(503, vec![("retry-after", text.to_owned())]);
    for (kind, speaks, reply) in [
        ("otlp_http", Speaks::Http, after("18446744073709551615")),
        (
            "otlp_http",
            Speaks::Http,
            after("99999999999999999999999999"),
        ),
        (
            "otlp_http",
            Speaks::Http,
            after("Fri, 31 Dec 9999 23:59:59 GMT"),
        ),
        (
            "otlp_grpc",
            Speaks::Grpc,
            Reply::Grpc(14, Some(absurd_retry_info())),
        ),
        ("otlp_http", Speaks::Http, after("86400")),
    ] {
        let (upstream, other) = (sink(speaks).await, sink(speaks).await);
        upstream.always(Some(reply.clone()));
        let file = temporary("absurd.yaml");
        let setup = to(kind, upstream.address).batch("flush_timeout: 1ms");
        std::fs::write(&file, setup.yaml()).unwrap();
        let agent = setup.start_from(&file);
        send_all(&agent, requests("span", 10)).await;
        let told = "the upstream asks for too long a wait, in seconds";
        eventually("the bound is logged", || !agent.logged(told).is_empty()).await;
        assert_eq!(agent.logged(told)[0]["granted"], 300, "{reply:?}");
        send_all(&agent, requests("later", 1)).await;
        assert_eq!(upstream.received().len(), 1, "everything waits");
        change(&agent, &file, &to(kind, other.address));
        eventually("what waits leaves for the other", || {
            other.spans().len() == 11
        })
        .await;
        assert_eq!(agent.metric(LOST, ""), 0);
        assert_eq!(agent.books("spans"), 0);
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn one_disliked_request_is_lost_alone_by_few_calls() {
    for (kind, speaks, reply) in [
        ("otlp_http", Speaks::Http, Reply::Http(400, Vec::new())),
        ("otlp_http", Speaks::Http, Reply::Http(422, Vec::new())),
        ("otlp_grpc", Speaks::Grpc, Reply::Grpc(3, None)),
        ("otlp_grpc", Speaks::Grpc, Reply::Grpc(13, None)),
    ] {
        let upstream = sink(speaks).await;
        upstream.dislikes("poison", reply.clone());
        let good = requests("good", 100).enumerate();
        let all = good.flat_map(|(number, good)| {
            let bad = (number == 41).then(|| spans("poison", 1).encode_to_vec());
            bad.into_iter().chain([good])
        });
        let agent = send_together(to(kind, upstream.address), all).await;
        eventually("all are settled", || {
            agent.metric("otelagent_queue_spans", "") == 0
        })
        .await;
        assert_eq!(upstream.spans().len(), 100, "{reply:?}");
        assert_eq!(agent.metric(LOST, "reason=\"permanent\""), 1);
        assert_eq!(agent.metric(LOST, ""), 1);
        let refused = upstream.received().len() - upstream.taken().len();
        let calls = upstream.received().len();
        // 2 · log2(101) + 4
        assert!(calls <= 17 && refused <= 8, "{calls} calls");
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn upstream_to_which_everything_is_too_large_gets_few_calls() {
    for (kind, speaks, reply) in [
        ("otlp_http", Speaks::Http, Reply::Http(413, Vec::new())),
        ("otlp_grpc", Speaks::Grpc, Reply::Says(8, TOO_LARGE)),
        ("otlp_grpc", Speaks::Grpc, Reply::Http(413, Vec::new())),
    ] {
        let upstream = sink(speaks).await;
        upstream.always(Some(reply));
        let setup = to(kind, upstream.address);
        let agent = send_together(setup, requests("span", 200)).await;
        eventually("all are settled", || {
            agent.metric(LOST, "reason=\"too_large\"") == 200
        })
        .await;
        let calls = upstream.received().len();
        assert!(calls <= 24, "{calls} calls");
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn size_limit_that_is_told_as_a_bad_request_is_understood() {
    let upstream = Sink::http().await;
    upstream.script([Reply::Text(400, "http: request body too large\n")]);
    let setup = to("otlp_http", upstream.address);
    let agent = send_together(setup, requests("span", 2)).await;
    eventually("all arrive", || upstream.spans().len() == 2).await;
    assert_eq!(agent.metric(LOST, ""), 0);
    let cut = agent.until_logged("sending a batch in halves").await;
    assert_eq!(cut.len(), 1);
}

#[tokio::test]
async fn later_batches_are_cut_to_the_size_that_passes() {
    for (kind, speaks) in KINDS {
        let upstream = sink(speaks).await;
        upstream.largest(200_000);
        let agent = to(kind, upstream.address)
            .batch("flush_timeout: 1s, sizer: bytes, min_size: 700000, max_size: 700000")
            .start();
        let message = spans("span", 100).encode_to_vec();
        send_all(&agent, (0..300).map(|_| message.clone())).await;
        eventually("all arrive", || upstream.spans().len() == 30_000).await;
        let refused = upstream.received().len() - upstream.taken().len();
        assert!(refused <= 6, "{refused} refusals");
        assert_eq!(agent.metric(LOST, ""), 0);
    }
}

#[tokio::test]
async fn rate_limit_is_answered_with_patience_and_delivered_later() {
    let limited = "RATE_LIMITED: ingestion rate limit exceeded";
    for (kind, speaks, reply) in [
        ("otlp_grpc", Speaks::Grpc, Reply::Says(8, limited)),
        ("otlp_http", Speaks::Http, Reply::Http(429, Vec::new())),
    ] {
        let upstream = sink(speaks).await;
        upstream.always(Some(reply));
        let setup = to(kind, upstream.address);
        let agent = send_together(setup, requests("span", 200)).await;
        eventually("some attempts fail", || agent.metric(FAILED, "") >= 4).await;
        assert_eq!(agent.metric(LOST, ""), 0);
        upstream.always(None);
        eventually("all arrive", || upstream.spans().len() == 200).await;
        assert_eq!(agent.metric(LOST, ""), 0);
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn wrong_way_holds_the_queue_with_one_probe_and_says_so() {
    let http = [401, 403, 404, 405, 501].map(|status| {
        let reply = Reply::Http(status, Vec::new());
        ("otlp_http", Speaks::Http, reply)
    });
    let grpc = [7, 12, 16].map(|code| ("otlp_grpc", Speaks::Grpc, Reply::Grpc(code, None)));
    for (kind, speaks, reply) in http.into_iter().chain(grpc) {
        let upstream = sink(speaks).await;
        upstream.always(Some(reply.clone()));
        // Every request is a batch of its own.
        let agent = to(kind, upstream.address)
            .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
            .retry("initial_interval: 10ms, max_interval: 100ms, randomization_factor: 0")
            .start();
        let begin = Instant::now();
        send_all(&agent, requests("span", 300)).await;
        let told = "the upstream refuses this agent: check endpoint, protocol and credentials";
        eventually("it is said", || !agent.logged(told).is_empty()).await;
        assert_eq!(agent.logged(told)[0]["level"], "ERROR");
        eventually("some probes fail", || agent.metric(FAILED, "") >= 5).await;
        let probes = upstream.received().len();
        let most = begin.elapsed().as_millis() / 100 + 1;
        assert!(probes as u128 <= most, "{probes} probes, {reply:?}");
        assert_eq!(agent.metric(LOST, ""), 0);
        upstream.always(None);
        eventually("all arrive", || upstream.spans().len() == 300).await;
        assert_eq!(agent.metric(LOST, ""), 0);
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn without_hold_the_wrong_way_loses_as_the_specification_wants() {
    let limited = Reply::Says(8, "RATE_LIMITED");
    for (kind, speaks, reply) in [
        ("otlp_http", Speaks::Http, Reply::Http(401, Vec::new())),
        ("otlp_grpc", Speaks::Grpc, Reply::Grpc(16, None)),
        ("otlp_grpc", Speaks::Grpc, limited),
    ] {
        let upstream = sink(speaks).await;
        upstream.always(Some(reply));
        let agent = to(kind, upstream.address)
            .retry("initial_interval: 1h, max_interval: 1h, hold: false")
            .batch("flush_timeout: 1ms")
            .start();
        send_all(&agent, requests("span", 20)).await;
        eventually("all are lost", || {
            agent.metric(LOST, "reason=\"permanent\"") == 20
        })
        .await;
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn max_wait_is_the_longest_wait_that_is_granted() {
    let upstream = Sink::http().await;
    upstream.script([Reply::Http(503, vec![("retry-after", "86400".to_owned())])]);
    let agent = to("otlp_http", upstream.address)
        .retry("initial_interval: 10ms, max_wait: 1s")
        .start();
    let begin = Instant::now();
    send_all(&agent, requests("span", 1)).await;
    eventually("it arrives", || upstream.spans().len() == 1).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn requests_that_are_never_taken_do_not_stop_the_others() {
    let http = |status| {
        let reply = Reply::Http(status, Vec::new());
        ("otlp_http", Speaks::Http, reply)
    };
    let grpc = |code| ("otlp_grpc", Speaks::Grpc, Reply::Grpc(code, None));
    // 403 and 7 by a firewall that looks at the data.
    for (kind, speaks, reply) in [
        http(429),
        http(503),
        http(403),
        http(520),
        grpc(8),
        grpc(14),
        grpc(7),
    ] {
        let upstream = sink(speaks).await;
        upstream.dislikes("poison", reply.clone());
        let agent = to(kind, upstream.address)
            .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
            .retry("initial_interval: 10ms, max_interval: 30ms")
            .start();
        send_all(&agent, requests("poison", 10)).await;
        send_all(&agent, requests("good", 100)).await;
        eventually("the others arrive", || upstream.spans().len() == 100).await;
        assert_eq!(agent.metric(LOST, "reason=\"permanent\""), 0, "{reply:?}");
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn upstream_that_always_answers_after_the_time_limit_is_given_more() {
    for (kind, speaks) in KINDS {
        let upstream = sink(speaks).await;
        upstream.always(Some(Reply::Slow(Duration::from_secs(9))));
        let agent = Setup::to_with_timeout(kind, upstream.address, "6s")
            .retry("initial_interval: 20ms, max_interval: 50ms")
            .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
            .start();
        send_all(&agent, requests("span", 2)).await;
        eventually("all are delivered", || agent.metric(SENT, "") == 2).await;
        // 6, 6, and then 12 seconds or more.
        let failed = agent.metric(FAILED, "");
        assert!(failed <= 4, "{failed} attempts for nothing");
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn thin_link_is_drained_at_its_speed_after_an_outage() {
    /// One byte per microsecond.
    const RATE: usize = 1_000_000;
    for kind in ["otlp_http", "otlp_grpc"] {
        // Nobody is there while the backlog grows.
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        let agent = Setup::to_with_timeout(kind, address, "5s")
            .exporter("compression: none")
            .batch("flush_timeout: 1s, sizer: bytes, min_size: 1000000, max_size: 1000000")
            .retry("initial_interval: 100ms, max_interval: 300ms")
            .start();
        let message = spans("span", 200).encode_to_vec();
        let count = 8_000_000 / message.len();
        send_all(&agent, (0..count).map(|_| message.clone())).await;
        let all = count * message.len();
        let begin = Instant::now();
        let slow = if kind == "otlp_http" {
            SlowSink::http(address, RATE)
        } else {
            SlowSink::grpc(address, RATE)
        };
        let delivered = || agent.metric(SENT, "") == count as u64 * 200;
        eventually("all is delivered", delivered).await;
        let took = begin.elapsed();
        let link = Duration::from_micros(u64::try_from(all).unwrap());
        let read = slow.read();
        println!("{kind}: {took:?} for a link of {link:?}; {read} bytes read of {all}");
        // The simulation demands 1.3; this machine may be busy.
        assert!(took <= link * 10, "{took:?} of {link:?}");
        assert!(read <= all + all / 20 + 100_000, "{read} bytes for {all}");
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn calls_without_an_answer_leave_the_connection_to_others() {
    let upstream = Sink::grpc().await;
    // Longer than a busy machine takes for the calls that are answered: one of those that fails is sent again.
    let agent = Setup::to_with_timeout("otlp_grpc", upstream.address, "10s")
        .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
        .retry("initial_interval: 10ms, max_interval: 20ms")
        .start();
    upstream.dislikes("mute", Reply::Silence);
    send_all(&agent, requests("before", 20)).await;
    eventually("the connection is used", || agent.metric(SENT, "") == 20).await;
    send_all(&agent, [spans("mute", 1).encode_to_vec()]).await;
    eventually_answers("the call without an answer fails", async || {
        send_all(&agent, requests("beside", 1)).await;
        agent.metric(FAILED, "") >= 1
    })
    .await;
    send_all(&agent, requests("after", 20)).await;
    eventually("others go on", || {
        agent.metric(SENT, "") + 1 == agent.metric("otelcol_receiver_accepted_spans_total", "")
    })
    .await;
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn mute_upstream_gets_everything_once_it_speaks() {
    for (kind, speaks) in KINDS {
        let upstream = sink(speaks).await;
        upstream.dislikes("span", Reply::Silence);
        let agent = Setup::to_with_timeout(kind, upstream.address, "200ms")
            .retry("initial_interval: 20ms, max_interval: 50ms")
            .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
            .start();
        send_all(&agent, requests("span", 50)).await;
        eventually("some attempts fail", || agent.metric(FAILED, "") >= 5).await;
        assert!(agent.metric("otelcol_exporter_in_flight_requests", "traces") <= 1);
        upstream.dislikes("nothing", Reply::Silence);
        eventually("all are delivered", || agent.metric(SENT, "") == 50).await;
        assert_eq!(agent.metric(LOST, ""), 0);
        assert_eq!(agent.books("spans"), 0);
    }
}
