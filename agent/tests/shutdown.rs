//! Start and end of the agent: acknowledged telemetry is delivered or reported as lost.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prost::Message;

use crate::support::agent::{Setup, get, temporary};
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink};
use crate::support::telemetry::spans;

const UNAVAILABLE: u32 = 14;

#[tokio::test]
async fn sigterm_under_load_loses_nothing_acknowledged() {
    for round in 0..5 {
        let sink = Sink::grpc().await;
        sink.script(vec![Reply::Slow(Duration::from_millis(50)); 3]);
        let agent = Setup::grpc(sink.address).start();
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (ports, stop) = (agent.ports.clone(), Arc::clone(&stop));
            clients.spawn(load(number, ports, stop));
        }
        eventually("the load is under way", || {
            agent.metric("otelcol_receiver_accepted_spans_total", "") > 200
        })
        .await;
        tokio::time::sleep(Duration::from_millis(37 * round)).await;
        agent.terminate();
        let (code, log) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        let mut acknowledged = HashSet::new();
        while let Some(names) = clients.join_next().await {
            acknowledged.extend(names.unwrap());
        }
        let arrived: HashSet<_> = sink.spans().into_iter().collect();
        let missing: Vec<_> = acknowledged.difference(&arrived).collect();
        assert!(acknowledged.len() > 100, "{} spans", acknowledged.len());
        assert!(
            missing.is_empty(),
            "{} of {} missing",
            missing.len(),
            acknowledged.len()
        );
        assert_eq!(code, 0);
        let done = log.iter().find(|line| line["message"] == "done").unwrap();
        assert_eq!(done["lost"], 0);
        assert_eq!(done["accepted"], done["delivered"]);
    }
}

/// Sends until stopped or refused; returns the names of acknowledged spans. Even clients use gRPC on one
/// connection, odd ones HTTP on many.
async fn load(
    number: usize,
    ports: Vec<std::net::SocketAddr>,
    stop: Arc<AtomicBool>,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut grpc = Grpc::connect(ports[0]).await;
    for sequence in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("client{number}-{sequence}");
        let message = spans(&name, 1).encode_to_vec();
        let taken = if number.is_multiple_of(2) {
            grpc.call(client::TRACES, &message)
                .await
                .is_ok_and(|answer| answer.status == 0)
        } else {
            let Some(mut http) = Http::try_connect(ports[1]).await else {
                break;
            };
            http.post("/v1/traces", &[], &message)
                .await
                .is_some_and(|answer| answer.status == 200)
        };
        if !taken {
            break;
        }
        acknowledged.push(format!("{name}-0"));
    }
    acknowledged
}

#[tokio::test]
async fn request_in_flight_is_answered_and_its_connection_closed() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let body = spans("span", 1).encode_to_vec();
    let mut other = Http::connect(agent.port()).await;
    other.post("/v1/traces", &[], &body).await.unwrap();
    let mut http = Http::connect(agent.port()).await;
    http.begin("/v1/traces", body.len()).await;
    agent.terminate();
    eventually("it drains", || !agent.logged("draining").is_empty()).await;
    assert_eq!(get(agent.health, "/ready").0, 503);
    // Connections are asked to end a moment after the drain has begun; once another one has ended, all know.
    assert!(other.read().await.is_none());
    http.write(&body).await;
    let answer = http.read().await.unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    assert_eq!(sink.spans(), ["span-0", "span-0"]);
}

#[tokio::test]
async fn shutdown_flushes_partial_batches_at_once() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .batch("flush_timeout: 1h, sizer: bytes, min_size: 3145728, max_size: 3145728")
        .env("OTELAGENT_SHUTDOWN_GRACE", "120")
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    grpc.call(client::TRACES, &spans("span", 3).encode_to_vec())
        .await
        .unwrap();
    let started = Instant::now();
    agent.terminate();
    let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert!(
        started.elapsed() < Duration::from_mins(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!((code, sink.spans().len()), (0, 3));
}

#[tokio::test]
async fn upstream_back_within_the_grace_period_gets_everything() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    let agent = Setup::grpc(sink.address)
        .retry("initial_interval: 1h, max_interval: 1h")
        .env("OTELAGENT_SHUTDOWN_GRACE", "60")
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    grpc.call(client::TRACES, &spans("span", 3).encode_to_vec())
        .await
        .unwrap();
    eventually("an attempt fails", || !sink.received().is_empty()).await;
    agent.terminate();
    tokio::time::sleep(Duration::from_millis(700)).await;
    sink.always(None);
    let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!((code, sink.spans().len()), (0, 3));
}

#[tokio::test]
async fn undeliverable_telemetry_is_reported_as_lost() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Silence));
    let agent = Setup::grpc(sink.address)
        .exporter("sending_queue: {num_consumers: 1, batch: {flush_timeout: 1ms, sizer: bytes, min_size: 1000, max_size: 1000}}")
        .env("OTELAGENT_SHUTDOWN_GRACE", "1")
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    for _ in 0..5 {
        grpc.call(client::TRACES, &spans("span", 10).encode_to_vec())
            .await
            .unwrap();
    }
    let started = Instant::now();
    agent.terminate();
    let (code, log) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert!(
        started.elapsed() < Duration::from_mins(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(code, 0);
    let lost = log
        .iter()
        .find(|line| line["message"] == "telemetry lost")
        .unwrap();
    assert_eq!(
        (&lost["reason"], &lost["items"]),
        (&"shutdown".into(), &50.into())
    );
}

#[tokio::test]
async fn health_socket_distinguishes_agents_on_a_shared_port() {
    let sink = Sink::grpc().await;
    let sockets = [temporary("a.sock"), temporary("b.sock")];
    let with = |setup: Setup, socket: &std::path::Path| {
        setup
            .env("OTELAGENT_REUSE_PORT", "x.node")
            .env("OTELAGENT_HEALTH_SOCKET", socket.to_str().unwrap())
    };
    let first = with(Setup::grpc(sink.address), &sockets[0]).start();
    let port = first.ports[0].port();
    let same = format!("grpc: {{endpoint: '127.0.0.1:{port}'}}");
    let second = with(Setup::grpc(sink.address).receiver(&same), &sockets[1]).start();
    assert_eq!(second.ports[0].port(), port);
    let ready = |socket: &std::path::Path| {
        Command::new(crate::program())
            .arg("ready")
            .env("OTELAGENT_HEALTH_SOCKET", socket)
            .output()
            .unwrap()
            .status
    };
    assert!(ready(&sockets[0]).success() && ready(&sockets[1]).success());
    first.terminate();
    let _ = tokio::task::spawn_blocking(|| first.wait()).await.unwrap();
    assert!(!ready(&sockets[0]).success());
    assert!(ready(&sockets[1]).success());
    let mut grpc = Grpc::connect(second.port()).await;
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    for socket in sockets {
        let _ = std::fs::remove_file(socket);
    }
}

#[test]
fn invalid_configuration_fails_the_start_with_every_problem() {
    let file = temporary("bad.yaml");
    let yaml = Setup::grpc("127.0.0.1:1".parse().unwrap()).yaml();
    std::fs::write(
        &file,
        yaml.replace("timeout: 30s", "timeout: 5 parsecs, colour: red"),
    )
    .unwrap();
    for arguments in [["check"], ["--config"]] {
        let output = Command::new(crate::program())
            .args(arguments)
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(output.status.signal(), None);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("exporters.otlp_grpc.timeout: `5 parsecs` is not a duration"));
        assert!(errors.contains("exporters.otlp_grpc.colour: is not supported here"));
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn check_prints_the_effective_configuration_without_secrets() {
    let file = temporary("good.yaml");
    let yaml = Setup::grpc("127.0.0.1:1".parse().unwrap())
        .exporter("headers: {authorization: '${env:TEST_TOKEN}'}")
        .yaml();
    std::fs::write(&file, yaml).unwrap();
    let output = Command::new(crate::program())
        .arg("check")
        .arg(&file)
        .env("TEST_TOKEN", "Bearer secret")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("header authorization"));
    assert!(
        text.contains("or 300s where the upstream asks for more"),
        "{text}"
    );
    assert!(
        text.contains("waits while the upstream refuses the agent"),
        "{text}"
    );
    assert!(!text.contains("secret"));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn port_in_use_is_named_in_the_last_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let file = temporary("taken.yaml");
    let yaml = Setup::grpc("127.0.0.1:1".parse().unwrap())
        .receiver(&format!("grpc: {{endpoint: '{address}'}}"))
        .yaml();
    std::fs::write(&file, yaml).unwrap();
    let output = Command::new(crate::program())
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["reason"], "bind");
    assert!(
        last["message"]
            .as_str()
            .unwrap()
            .contains(&address.to_string())
    );
    std::fs::remove_file(file).unwrap();
}
