//! A queue on disk needs little memory, so that a small limit refuses nobody while the upstream is away.

use prost::Message;

use super::{Directory, away, kept};
use crate::support::agent::Agent;
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::telemetry::{logs, metrics, spans};

/// Of which queues may have a half.
const LIMIT_MIB: u64 = 4;

/// Requests of each signal that an earlier process has left, 2.4 MB.
const LEFT: u64 = 300;

/// Those that come then.
const NEW: u64 = 100;

/// Enough for each signal to try as many batches as it may, and each of them several times.
const ATTEMPTS: u64 = 300;

/// Sends a request of each signal, so many times.
async fn send(agent: &Agent, times: u64) {
    let name = "n".repeat(8000);
    let messages = [
        (client::TRACES, spans(&name, 1).encode_to_vec()),
        (client::METRICS, metrics(&name, 1).encode_to_vec()),
        (client::LOGS, logs(&name, 1).encode_to_vec()),
    ];
    let mut grpc = Grpc::connect(agent.port()).await;
    for _ in 0..times {
        for (path, message) in &messages {
            let answer = grpc.call(path, message).await.unwrap();
            assert_eq!(answer.status, 0, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn small_memory_limit_refuses_nobody_while_the_upstream_is_away() {
    let directory = Directory::new();
    let sink = away().await;
    let setup = kept(sink.address, &directory.0).retry("initial_interval: 1ms, max_interval: 5ms");
    let agent = setup.start();
    send(&agent, LEFT).await;
    drop(agent);
    let limiter = format!("memory_limiter: {{check_interval: 1s, limit_mib: {LIMIT_MIB}}}");
    let agent = setup.processors(&limiter, "memory_limiter").start();
    let attempts = || agent.metric("otelagent_exporter_failed_attempts_total", "");
    eventually("it tries what it may", || attempts() > ATTEMPTS).await;
    send(&agent, NEW).await;
    let held = agent.metric("otelagent_memory_held_bytes", "");
    assert!(held < LIMIT_MIB << 20, "{held} bytes held");
    sink.always(None);
    for items in ["spans", "metric_points", "log_records"] {
        let sent = format!("otelcol_exporter_sent_{items}_total");
        let all = || agent.metric(&sent, "") == LEFT + NEW && agent.books(items) == 0;
        eventually(&format!("all {items} are delivered"), all).await;
    }
}
