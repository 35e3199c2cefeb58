//! Connections that are opened and not used, used slowly, or never ended.

use std::collections::HashSet;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use prost::Message;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{
    LIMIT_MIB, agent, agent_that_keeps_all, assert_grown_by_its_share, assert_others_are_served,
    assert_unharmed,
};
use crate::support::agent::Agent;
use crate::support::client::{self, Grpc, Http};
use crate::support::raw::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, Raw, export_headers, frame,
};
use crate::support::telemetry::spans;
use crate::support::{PATIENCE, eventually};

/// The limit and a tenth, and what a debug build has anyway.
const MOST_KIB: u64 = LIMIT_MIB * 1024 * 11 / 10 + 10 * 1024;

/// The share of connections in the limit, a quarter, and what a debug build and the heaps of its threads have anyway.
const CONNECTIONS_KIB: u64 = LIMIT_MIB * 1024 / 4 + 18 * 1024;

/// Files that these tests may have open together, beside what they have anyway. Raised once, so that
/// agents which are started later have it too.
static FILES: LazyLock<(usize, Semaphore)> = LazyLock::new(|| {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut numbers = files
        .unwrap()
        .split_whitespace()
        .filter_map(|word| word.parse::<usize>().ok());
    let (soft, hard) = (
        numbers.next().unwrap(),
        numbers.next().unwrap_or(usize::MAX),
    );
    let wanted = hard.min(20_000);
    if soft < wanted {
        let raised = format!("--nofile={wanted}:{hard}");
        let pid = std::process::id().to_string();
        let done = Command::new("prlimit")
            .args(["--pid", &pid, &raised])
            .status();
        assert!(done.unwrap().success(), "{raised}");
    }
    let all = wanted.saturating_sub(1000);
    (all, Semaphore::new(all))
});

/// As many connections as the limit of open files allows, at most `wanted`. They are this test's for as
/// long as it keeps what comes with them.
pub(super) async fn affordable(wanted: usize) -> (usize, SemaphorePermit<'static>) {
    let (all, free) = &*FILES;
    let many = wanted.min(*all);
    let permit = free.acquire_many(u32::try_from(many).unwrap());
    (many, permit.await.unwrap())
}

const EXPORT: &[u8] = b"POST /v1/traces HTTP/1.1\r\nhost: a\r\n\
    content-type: application/x-protobuf\r\ncontent-length: ";

#[tokio::test]
async fn ten_thousand_silent_connections_cost_two_kilobytes_each() {
    let (many, _files) = affordable(10_000).await;
    let (_sink, agent) = agent().await;
    // The share of connections and a fifth, beside what this build on this machine has anyway.
    assert_unharmed(&agent, CONNECTIONS_KIB).await;
    let most = agent.peak() + LIMIT_MIB * 1024 / 4 * 6 / 5;
    let mut silent = Vec::new();
    for _ in 0..many {
        silent.push(Raw::connect(agent.port()).await);
    }
    let accepted = || agent.metric("otelagent_connections_total", "");
    eventually("all are accepted", || accepted() >= many as u64).await;
    // A new client is served the first time it comes.
    let mut honest = Vec::new();
    for _ in 0..3 {
        let mut http = Http::connect(agent.port()).await;
        let answer = http.post("/v1/traces", &[], b"").await.unwrap();
        assert_eq!(answer.status, 200);
        let mut grpc = Grpc::connect(agent.port()).await;
        let answer = grpc.call(client::TRACES, &[]).await.unwrap();
        assert_eq!(answer.status, 0);
        honest.push((http, grpc));
    }
    // One with many calls at once may have to come again, since they are paid for as they come.
    let begun = std::time::Instant::now();
    while !are_calls_answered(&agent, 20).await {
        assert!(begun.elapsed() < PATIENCE, "never answered");
    }
    assert_unharmed(&agent, most).await;
}

/// Whether calls that are all begun before the first ends are all answered.
async fn are_calls_answered(agent: &Agent, many: u32) -> bool {
    let mut raw = Raw::open(agent.port(), &[]).await;
    let streams = (0..many).map(|number| 2 * number + 1);
    let begun = streams
        .clone()
        .flat_map(|stream| frame(HEADERS, END_HEADERS, stream, &export_headers()));
    let ended = streams
        .clone()
        .flat_map(|stream| frame(DATA, END_STREAM, stream, &[0; 5]));
    if !raw.write(&begun.chain(ended).collect::<Vec<_>>()).await {
        return false;
    }
    let mut unanswered: HashSet<_> = streams.collect();
    while !unanswered.is_empty() {
        let Some(frame) = raw.read().await else {
            return false;
        };
        if frame.kind == HEADERS {
            unanswered.remove(&frame.stream);
        }
    }
    true
}

#[tokio::test]
async fn idle_connections_are_evicted_for_new_ones() {
    let (_sink, agent) = agent().await;
    let began = Instant::now();
    let mut idle = Vec::new();
    let mut waiting = Vec::new();
    let (many, _files) = affordable(2000).await;
    for number in 0..many {
        if number % 2 == 0 {
            let mut http = Http::connect(agent.port()).await;
            let answer = http.post("/v1/traces", &[], b"").await.unwrap();
            assert_eq!(answer.status, 200);
            idle.push(http);
        } else {
            waiting.push(Raw::open(agent.port(), &[]).await);
        }
    }
    assert_others_are_served(&agent).await;
    assert_unharmed(&agent, CONNECTIONS_KIB).await;
    let logged = "too many connections; closing the idlest";
    let lines = agent.until_logged(logged).await.len() as u64;
    let minutes = began.elapsed().as_secs() / 60;
    assert!(lines <= 1 + minutes, "{lines} in {minutes} minutes");
    // The first of them had to go, and got a refusal before.
    assert!(idle[0].read().await.is_none());
    assert!(waiting[0].read_until(GOAWAY, 0).await.is_some());
}

/// Starts a request on each of many connections and never ends it.
async fn unfinished(agent: &Agent, many: usize) -> Vec<Http> {
    let mut slow = Vec::new();
    for _ in 0..many {
        let mut http = Http::connect(agent.port()).await;
        http.write(&[EXPORT, b"1000000\r\n\r\n", &[0; 900]].concat())
            .await;
        slow.push(http);
    }
    slow
}

#[tokio::test]
async fn trickling_bodies_do_not_keep_others_out() {
    let (_sink, agent) = agent().await;
    let mut slow = Vec::new();
    let (_, _files) = affordable(1600).await;
    for _ in 0..4 {
        slow.extend(unfinished(&agent, 400).await);
        for http in &mut slow {
            // Those that had to make way are closed by now.
            let _ = http.try_write(b"x").await;
        }
        assert_others_are_served(&agent).await;
    }
    assert_unharmed(&agent, MOST_KIB).await;
}

#[tokio::test]
async fn unfinished_handshakes_headers_and_bodies_are_ended() {
    let (_sink, agent) = agent().await;
    let limit = Duration::from_secs(45);
    let mut body = Http::connect(agent.port()).await;
    body.write(&[EXPORT, b"10\r\n\r\nabc"].concat()).await;
    let mut preface = Http::connect(agent.port()).await;
    preface.write(b"PRI * HTTP/2.0\r\n").await;
    let mut call = Raw::open(agent.port(), &[]).await;
    let begun = frame(HEADERS, END_HEADERS, 1, &export_headers());
    assert!(call.write(&begun).await);
    let trickle = async {
        let mut bytes = 0;
        // One byte of a message every half second is not progress.
        while call.write(&frame(DATA, 0, 1, &[0])).await {
            if let Ok(answer) = timeout(limit / 90, call.read_until(HEADERS, 1)).await {
                return answer.is_some();
            }
            bytes += 1;
            assert!(bytes < 90, "still open");
        }
        false
    };
    let (body, preface, call) = tokio::join!(
        timeout(limit, body.read()),
        timeout(limit, preface.read()),
        trickle,
    );
    assert_eq!(body.unwrap().unwrap().status, 503);
    assert!(preface.unwrap().is_none());
    assert!(call, "the call is answered");
    assert_unharmed(&agent, CONNECTIONS_KIB).await;
}

#[tokio::test]
async fn unfinished_calls_do_not_use_up_the_memory() {
    let (_sink, agent) = agent().await;
    let mut held = Vec::new();
    for _ in 0..60 {
        let mut raw = Raw::open(agent.port(), &[]).await;
        let mut calls = Vec::new();
        for number in 0..256 {
            calls.extend(frame(
                HEADERS,
                END_HEADERS,
                2 * number + 1,
                &export_headers(),
            ));
        }
        calls.extend(frame(PING, 0, 0, b"all read"));
        let _ = raw.write(&calls).await;
        // Read by the agent as far as it wants to, or closed.
        let _ = raw.read_until(PING, 0).await;
        held.push(raw);
    }
    assert_unharmed(&agent, MOST_KIB).await;
}

/// 256 KiB: the window of one call.
const WINDOW: usize = 256 * 1024;

#[tokio::test]
async fn hundreds_of_full_windows_stay_within_the_memory_limit() {
    let (_sink, agent) = agent().await;
    let mut calls = Vec::new();
    for number in 0..4 {
        let stream = 2 * number + 1;
        calls.extend(frame(HEADERS, END_HEADERS, stream, &export_headers()));
        let mut data = vec![0, 0, 0x3f, 0, 0];
        data.resize(WINDOW - 1024, 0);
        for part in data.chunks(16 * 1024) {
            calls.extend(frame(DATA, 0, stream, part));
        }
    }
    let mut writers = JoinSet::new();
    let (many, _files) = affordable(400).await;
    for _ in 0..many {
        let (port, calls) = (agent.port(), calls.clone());
        writers.spawn(async move {
            let mut raw = Raw::open(port, &[]).await;
            let _ = raw.write_within(Duration::from_secs(2), &calls).await;
            raw
        });
    }
    let held = writers.join_all().await;
    assert_eq!(held.len(), many);
    assert_unharmed(&agent, MOST_KIB).await;
}

#[tokio::test]
async fn short_connections_leave_no_memory_behind() {
    let (_sink, agent) = agent().await;
    let churn = async |many: usize| {
        for number in 0..many {
            match number % 4 {
                0 => drop(Raw::connect(agent.port()).await),
                1 => drop(Raw::open(agent.port(), &[]).await),
                2 => {
                    let mut raw = Raw::open(agent.port(), &[]).await;
                    let _ = raw
                        .write(&frame(HEADERS, END_HEADERS, 1, &export_headers()))
                        .await;
                }
                _ => drop(unfinished(&agent, 1).await),
            }
        }
        assert_others_are_served(&agent).await;
    };
    churn(1000).await;
    let early = agent.peak();
    churn(4000).await;
    let grown = agent.peak() - early;
    assert!(grown < 2048, "grew by {grown} KiB");
    assert!(agent.metric("otelagent_memory_held_bytes", "") < 1024 * 1024);
}

#[tokio::test]
async fn full_memory_refuses_with_a_status_on_many_connections() {
    let (_sink, agent) = agent_that_keeps_all().await;
    let message = spans("span", 500).encode_to_vec();
    let mut grpc = Grpc::connect(agent.port()).await;
    while grpc.call(client::TRACES, &message).await.unwrap().status == 0 {}
    let mut silent = Vec::new();
    let (many, _files) = affordable(2000).await;
    for _ in 0..many {
        silent.push(Raw::connect(agent.port()).await);
    }
    let mut late = Grpc::connect(agent.port()).await;
    let answer = late.call(client::TRACES, &message).await.unwrap();
    assert_eq!(answer.status, 14);
    let peak = agent.peak();
    assert!(peak < MOST_KIB + 4 * 1024, "{peak} KiB");
}

/// Whether the connections of some refused clients that try again and again, after longer than a slow sender has,
/// all stay open.
async fn refused_clients_keep_their_connections(agent: &Agent, message: &[u8]) -> bool {
    let mut patient = Vec::new();
    for _ in 0..5 {
        patient.push(Http::connect(agent.port()).await);
    }
    for _ in 0..3 {
        for http in &mut patient {
            let Some(answer) = http.post("/v1/traces", &[], message).await else {
                return false;
            };
            assert_eq!(
                (answer.status, answer.header("retry-after")),
                (503, Some("1"))
            );
        }
        sleep(Duration::from_millis(1200)).await;
    }
    true
}

#[tokio::test]
async fn refused_clients_that_wait_do_not_count_as_slow() {
    let (_sink, agent) = agent_that_keeps_all().await;
    let message = spans("span", 2500).encode_to_vec();
    let mut first = Http::connect(agent.port()).await;
    while first
        .post("/v1/traces", &[], &message)
        .await
        .unwrap()
        .status
        == 200
    {}
    // On a busy machine the agent may get a body late, and then its sender is slow. Clients that counted as slow
    // because they wait would lose a connection every time.
    let stay = async { while !refused_clients_keep_their_connections(&agent, &message).await {} };
    timeout(PATIENCE, stay).await.unwrap();
}

#[tokio::test]
async fn buffers_kept_after_large_bodies_are_counted() {
    let (_sink, agent) = agent().await;
    assert_unharmed(&agent, CONNECTIONS_KIB).await;
    let before = agent.rss();
    let message = spans("span", 2500).encode_to_vec();
    let mut kept = Vec::new();
    for _ in 0..300 {
        let mut http = Http::connect(agent.port()).await;
        let answer = http.post("/v1/traces", &[], &message).await.unwrap();
        assert!([200, 503].contains(&answer.status), "{}", answer.status);
        kept.push(http);
    }
    let delivered = || agent.metric("otelagent_memory_held_bytes", "") == 0;
    eventually("all is delivered", delivered).await;
    assert_eq!(agent.metric("otelagent_open_connections", ""), 300);
    // The way upstream keeps up to 8 MiB, and the allocator up to 15 of what large bodies needed. The bodies
    // together have 70.
    assert_grown_by_its_share(&agent, before, 8 + 16);
}

#[tokio::test]
async fn silent_connections_do_not_block_health_and_metrics() {
    let (_sink, agent) = agent().await;
    for (port, path) in [(agent.health, "/ready"), (agent.metrics, "/metrics")] {
        let mut held = Vec::new();
        for words in [&b""[..], b"GET / HT"].repeat(200) {
            let mut raw = Raw::connect(port).await;
            let _ = raw.write(words).await;
            held.push(raw);
        }
        let mut http = Http::connect(port).await;
        let asked = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        http.write(asked.as_bytes()).await;
        let answer = timeout(Duration::from_mins(1), http.read()).await;
        assert_eq!(answer.unwrap().unwrap().status, 200);
    }
    assert_unharmed(&agent, CONNECTIONS_KIB).await;
}
