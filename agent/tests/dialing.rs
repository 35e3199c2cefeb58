//! Connections to an upstream of which a part is away, mute or slow.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use prost::Message;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc};
use crate::support::pki::{Ca, Files};
use crate::support::sink::{Reply, Sink, Speaks};
use crate::support::telemetry::{metrics, spans};
use crate::support::{eventually, eventually_answers, skip_unless_root};

const KINDS: [(&str, Speaks); 2] = [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)];
const FAILED: &str = "otelagent_exporter_failed_attempts_total";

async fn send(agent: &Agent, path: &str, message: &impl Message) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = message.encode_to_vec();
    assert_eq!(grpc.call(path, &message).await.unwrap().status, 0);
}

/// To a name with two addresses, 127.0.0.1 and 127.0.0.2.
fn to_both(kind: &str, port: u16, limit: &str) -> Setup {
    let mut setup = Setup::to_with_timeout(kind, "127.0.0.1:1".parse().unwrap(), limit)
        .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
        .retry("initial_interval: 10ms, max_interval: 100ms");
    let endpoint = format!("http://replicas.test:{port}");
    setup.exporter = setup.exporter.replace("http://127.0.0.1:1", &endpoint);
    setup
}

const HOSTS: &str = "127.0.0.1 localhost\n127.0.0.1 replicas.test\n127.0.0.2 replicas.test\n";

/// A port that swallows whoever connects: its backlog is full.
async fn blackhole(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 100, "the backlog has no end");
    }
    (listener, waiting)
}

#[tokio::test]
async fn dead_address_beside_a_good_one_costs_less_than_a_second() {
    if !skip_unless_root("dead_address_beside_a_good_one_costs_less_than_a_second") {
        return;
    }
    for (kind, speaks) in KINDS {
        let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
        let port = sink.address.port();
        let _dead = blackhole(SocketAddr::from(([127, 0, 0, 2], port))).await;
        let agent = to_both(kind, port, "60s")
            .env("OTELAGENT_UPSTREAM_CONNECTION_AGE", "0")
            .start_with_hosts(HOSTS);
        for number in 1..=20 {
            let began = Instant::now();
            send(&agent, client::TRACES, &spans("span", 1)).await;
            eventually("it arrives", || sink.spans().len() == number).await;
            assert!(began.elapsed() < Duration::from_secs(30));
        }
        assert!(sink.connections() >= 20, "each has a connection of its own");
        assert_eq!(agent.metric(FAILED, ""), 0);
    }
}

#[tokio::test]
async fn mute_address_beside_a_good_one_is_avoided() {
    if !skip_unless_root("mute_address_beside_a_good_one_is_avoided") {
        return;
    }
    for (kind, speaks) in KINDS {
        let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
        let port = sink.address.port();
        let listener = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                open.push(listener.accept().await.unwrap());
            }
        });
        let agent = to_both(kind, port, "5s")
            .env("OTELAGENT_UPSTREAM_CONNECTION_AGE", "0")
            .start_with_hosts(HOSTS);
        for number in 1..=20 {
            send(&agent, client::TRACES, &spans("span", 1)).await;
            eventually("it arrives", || sink.spans().len() == number).await;
        }
        // The first one may have gone to the mute address; no other has.
        assert!(
            agent.metric(FAILED, "") <= 1,
            "{}",
            agent.metric(FAILED, "")
        );
        task.abort();
    }
}

#[tokio::test]
async fn time_limit_of_a_call_leaves_the_connection_to_others() {
    let sink = Sink::grpc().await;
    sink.always_at(client::METRICS, Reply::Silence);
    let agent = Setup::to_with_timeout("otlp_grpc", sink.address, "5s")
        .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
        .retry("initial_interval: 10ms, max_interval: 100ms")
        .start();
    send(&agent, client::TRACES, &spans("span", 1)).await;
    eventually("it arrives", || sink.spans().len() == 1).await;
    send(&agent, client::METRICS, &metrics("metric", 1)).await;
    let mut sent = 1;
    eventually_answers("calls of metrics time out", async || {
        send(&agent, client::TRACES, &spans("span", 1)).await;
        sent += 1;
        agent.metric(FAILED, "reason=\"timed_out\"") >= 3
    })
    .await;
    eventually("all arrive", || sink.spans().len() == sent).await;
    assert_eq!(sink.connections(), 1);
}

#[tokio::test]
async fn slow_handshake_outlives_the_calls_that_wait_for_it() {
    let ca = Ca::new();
    let files = Files::new();
    let tls = format!("ca_file: '{}'", files.write("ca.pem", &ca.pem()));
    for (kind, speaks) in KINDS {
        let sink = Sink::secure(speaks, ca.local().acceptor(&["h2", "http/1.1"], None)).await;
        let upstream = sink.address;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    // What is tested: a handshake that takes longer than the calls may.
                    sleep(Duration::from_secs(1)).await;
                    let mut far = TcpStream::connect(upstream).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        let mut setup =
            Setup::secure(kind, address, &tls).retry("initial_interval: 10ms, max_interval: 50ms");
        setup.exporter = setup.exporter.replace("timeout: 5s", "timeout: 300ms");
        let agent = setup.start();
        send(&agent, client::TRACES, &spans("span", 1)).await;
        eventually("it arrives", || !sink.spans().is_empty()).await;
        task.abort();
    }
}
