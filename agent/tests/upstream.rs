//! The upstream: renewed connections, requests it cannot accept whole, and signals that must not wait for one
//! another.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::support::agent::{Agent, Setup, get};
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink, Speaks};
use crate::support::telemetry::{logs, spans};

const UNAVAILABLE: u32 = 14;
const KINDS: [(&str, Speaks); 2] = [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)];

/// Every request leaves by itself, and one that had to wait would wait forever.
fn impatient(kind: &str, upstream: SocketAddr) -> Setup {
    Setup::to_with_timeout(kind, upstream, "30s")
        .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
        .retry("initial_interval: 1h, max_interval: 1h")
}

async fn take(agent: &Agent, path: &str, message: &impl Message) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let answer = grpc.call(path, &message.encode_to_vec()).await.unwrap();
    assert_eq!(answer.status, 0);
}

/// Clients that send until they are stopped, and the names they got acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(agent: &Agent) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..4).map(|client| {
            let (port, stop) = (agent.port(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut grpc = Grpc::connect(port).await;
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("{client}-{}", acknowledged.len());
                    let message = spans(&name, 1).encode_to_vec();
                    let answer = grpc.call(client::TRACES, &message).await.unwrap();
                    assert_eq!(answer.status, 0);
                    acknowledged.push(format!("{name}-0"));
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                acknowledged
            })
        });
        Self {
            clients: clients.collect(),
            stop,
        }
    }

    async fn stop(self) -> HashSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut names = HashSet::new();
        for client in self.clients {
            names.extend(client.await.unwrap());
        }
        names
    }
}

/// A port that several listen on, as several replicas answer for one name.
fn shared(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(128).unwrap()
}

#[tokio::test]
async fn connections_are_renewed_under_load_across_replicas_without_loss() {
    for (kind, speaks) in KINDS {
        let first = Sink::on(shared("127.0.0.1:0".parse().unwrap()), speaks, None);
        let second = Sink::on(shared(first.address), speaks, None);
        let agent = impatient(kind, first.address)
            .env("OTELAGENT_UPSTREAM_CONNECTION_AGE", "1")
            .start();
        let load = Load::start(&agent);
        eventually("both have connections made anew", || {
            let counts = (first.connections(), second.connections());
            counts.0 > 0 && counts.1 > 0 && counts.0 + counts.1 > 3
        })
        .await;
        let acknowledged = load.stop().await;
        eventually("all arrive", || {
            first.spans().len() + second.spans().len() >= acknowledged.len()
        })
        .await;
        assert!(!first.spans().is_empty() && !second.spans().is_empty());
        let arrived: Vec<_> = [first.spans(), second.spans()].concat();
        assert_eq!(arrived.len(), acknowledged.len(), "nothing is sent twice");
        assert_eq!(arrived.into_iter().collect::<HashSet<_>>(), acknowledged);
        assert_eq!(
            agent.metric("otelagent_exporter_failed_attempts_total", ""),
            0
        );
    }
}

#[tokio::test]
async fn upstream_goaway_costs_no_request_and_no_wait() {
    for (kind, speaks) in KINDS {
        let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
        let agent = impatient(kind, sink.address).start();
        let load = Load::start(&agent);
        for round in 1..=5 {
            sink.script(vec![Reply::Slow(Duration::from_millis(30)); 5]);
            let before = (sink.connections(), sink.spans().len());
            eventually("requests flow", || sink.spans().len() > before.1 + 20).await;
            sink.leave();
            eventually(&format!("a new connection, round {round}"), || {
                sink.connections() > before.0
            })
            .await;
        }
        let acknowledged = load.stop().await;
        eventually("all arrive", || sink.spans().len() >= acknowledged.len()).await;
        let arrived: HashSet<_> = sink.spans().into_iter().collect();
        assert_eq!(arrived, acknowledged);
        assert_eq!(
            agent.metric("otelagent_exporter_failed_attempts_total", ""),
            0
        );
    }
}

#[tokio::test]
async fn oversized_request_is_sent_in_fragments_losing_only_oversized_items() {
    for (kind, speaks) in KINDS {
        let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
        sink.largest(3000);
        let agent = Setup::to_with_timeout(kind, sink.address, "5s")
            .retry("initial_interval: 5ms, max_interval: 20ms")
            .start();
        let mut request = ExportTraceServiceRequest::default();
        let mut expected = Vec::new();
        for entry in 0..9 {
            // The fifth is larger than the upstream takes, but for one of its spans not because of a single one.
            let count = if entry == 4 { 60 } else { 3 };
            let mut part = spans(&format!("entry{entry}"), count);
            if entry == 4 {
                let spans = &mut part.resource_spans[0].scope_spans[0].spans;
                spans[30].trace_state = "x".repeat(3000);
            }
            request.resource_spans.extend(part.resource_spans);
            let names = (0..count).map(|span| format!("entry{entry}-{span}"));
            expected.extend(names.filter(|name| name != "entry4-30"));
        }
        expected.sort();
        take(&agent, client::TRACES, &request).await;
        eventually("the rest arrives", || sink.spans().len() == expected.len()).await;
        let mut arrived = sink.spans();
        arrived.sort();
        assert_eq!(arrived, expected, "nothing twice");
        assert!(sink.taken().iter().all(|taken| taken.message.len() <= 3000));
        eventually("the loss is counted", || {
            agent.metric("otelagent_lost_spans_total", "reason=\"too_large\"") == 1
        })
        .await;
        assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 1);
        assert_eq!(agent.metric("otelcol_exporter_sent_spans_total", ""), 83);
        assert_eq!(agent.books("spans"), 0);
        eventually("nothing is held", || {
            agent.metric("otelagent_memory_held_bytes", "") == 0
        })
        .await;
        let logged = agent.until_logged("sending a batch in halves").await;
        assert_eq!(logged.len(), 1, "folded");
    }
}

#[tokio::test]
async fn proxy_answer_without_grpc_is_classified_by_http_status() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .retry("initial_interval: 1ms, max_interval: 1ms")
        .start();
    let (mut taken, mut lost) = (0, 0);
    for status in [429, 502, 503, 504, 200, 401, 403, 404, 400, 500, 413] {
        sink.script([Reply::Http(status, Vec::new())]);
        take(&agent, client::TRACES, &spans("span", 1)).await;
        // Of the data it has read nothing.
        if status == 413 {
            lost += 1;
        } else {
            taken += 1;
        }
        eventually(&format!("status {status} is settled"), || {
            sink.spans().len() == taken && agent.metric("otelagent_lost_spans_total", "") == lost
        })
        .await;
    }
}

#[tokio::test]
async fn settled_fragments_stay_settled_when_the_rest_fails() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .retry("initial_interval: 20ms, max_interval: 20ms, max_elapsed_time: 5m")
        .start();
    let mut request = spans("good", 2);
    request
        .resource_spans
        .extend(spans("bad", 12).resource_spans);
    sink.largest(request.encoded_len() - 10);
    // Both together are too large; the second is refused for good.
    sink.dislikes("bad-11", Reply::Grpc(3, None));
    take(&agent, client::TRACES, &request).await;
    eventually("both pieces are settled", || {
        agent.metric("otelagent_queue_spans", "") == 0
    })
    .await;
    assert_eq!(agent.metric("otelcol_exporter_sent_spans_total", ""), 2);
    assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 12);
    assert_eq!(agent.books("spans"), 0);
}

#[tokio::test]
async fn throttled_signal_waits_alone_for_the_requested_time() {
    let sink = Sink::grpc().await;
    sink.always_at(client::TRACES, Reply::Grpc(UNAVAILABLE, None));
    let agent = impatient("otlp_grpc", sink.address).start();
    take(&agent, client::TRACES, &spans("span", 1)).await;
    eventually("traces are refused", || sink.received().len() == 1).await;
    for number in 0..20 {
        take(&agent, client::LOGS, &logs("log", 1)).await;
        eventually("the log arrives", || sink.taken().len() == number + 1).await;
    }
    let refused = sink.received().len() - sink.taken().len();
    assert_eq!(refused, 1, "another signal's success is no reason to hurry");
    assert!(sink.taken().iter().all(|taken| taken.path == client::LOGS));
    let health = get(agent.health, "/").1;
    assert!(health.contains("\"state\":\"failing\""), "{health}");
    assert_eq!(agent.metric("otelagent_queue_spans", ""), 1);
}

#[tokio::test]
async fn dead_upstream_with_full_memory_does_not_stop_others() {
    let sink = Sink::http().await;
    let setup = Setup::to_with_timeout("otlp_grpc", "127.0.0.1:1".parse().unwrap(), "5s")
        .processors(
            "memory_limiter: {check_interval: 1s, limit_mib: 8}",
            "memory_limiter",
        );
    let alive = format!(
        "exporters: {{otlp_http: {{endpoint: 'http://{}', sending_queue: {{batch: \
         {{flush_timeout: 1ms}}}}}}, ",
        sink.address
    );
    let yaml = setup.yaml().replacen("exporters: {", &alive, 1);
    let (before, after) = yaml.rsplit_once("exporters: [otlp_grpc]").unwrap();
    let agent = setup.start_with(&format!("{before}exporters: [otlp_http]{after}"));
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("span", 500).encode_to_vec();
    let mut accepted = 0;
    while grpc.call(client::TRACES, &message).await.unwrap().status == 0 {
        accepted += 1;
    }
    assert!(
        accepted * message.len() > 3 << 20,
        "most of the memory is used"
    );
    let log = logs("log", 1000);
    for number in 0..5 {
        take(&agent, client::LOGS, &log).await;
        eventually("the logs arrive", || sink.taken().len() == number + 1).await;
    }
    assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 0);
    assert_eq!(agent.books("spans"), 0);
    assert_eq!(agent.books("log_records"), 0);
}

#[tokio::test]
async fn compressors_are_reused_for_large_and_small_batches() {
    for compression in ["gzip", "zstd"] {
        let sink = Sink::grpc().await;
        let agent = impatient("otlp_grpc", sink.address)
            .exporter(&format!("compression: {compression}"))
            .start();
        for (sent, count) in [1, 20_000, 3, 9000, 2, 1].into_iter().enumerate() {
            let mut request = spans("span", count);
            // Bytes that do not compress, so that the output needs several pieces, too.
            for span in &mut request.resource_spans[0].scope_spans[0].spans {
                span.trace_id = (0..16).map(|_| fastrand::u8(..)).collect();
                span.span_id = (0..8).map(|_| fastrand::u8(..)).collect();
            }
            let message = request.encode_to_vec();
            take(&agent, client::TRACES, &request).await;
            eventually("it arrives", || sink.taken().len() == sent + 1).await;
            assert!(
                sink.taken().last().unwrap().message == message,
                "{count} spans"
            );
        }
    }
}

#[tokio::test]
async fn success_whose_body_never_ends_is_a_success() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
                let _ = stream.write_all(head).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    let agent = Setup::to_with_timeout("otlp_http", address, "5s").start();
    for sent in 1..=3 {
        take(&agent, client::TRACES, &spans("span", 1)).await;
        eventually("it is delivered", || {
            agent.metric("otelcol_exporter_sent_spans_total", "") == sent
        })
        .await;
    }
    let failed = agent.metric("otelagent_exporter_failed_attempts_total", "");
    assert_eq!(failed, 0);
}
