//! Fair shares: a flood by one sender costs the others nothing, and connections are refused no more than they must be.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use prost::Message;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::agent::{Agent, Setup, temporary};
use crate::support::client::{Grpc, Http, TRACES};
use crate::support::raw::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Raw, export_headers, frame,
};
use crate::support::sink::{Reply, Sink};
use crate::support::slow::SlowSink;
use crate::support::telemetry::spans;
use crate::support::{PATIENCE, eventually};

const REFUSED: &str = "otelagent_sender_refused_requests_total";
const SENDER_HELD: &str = "otelagent_sender_held_bytes";
const FLOOD: [u8; 4] = [127, 0, 0, 2];

fn setup(setup: Setup, mib: usize) -> Setup {
    let limiter = format!("memory_limiter: {{check_interval: 1s, limit_mib: {mib}}}");
    setup.processors(&limiter, "memory_limiter")
}

/// Sends as much as it can from six connections.
fn flood(agent: &Agent) -> JoinSet<()> {
    let message = spans("flood", 1000).encode_to_vec();
    let mut clients = JoinSet::new();
    for _ in 0..6 {
        let (port, message) = (agent.port(), message.clone());
        clients.spawn(async move {
            loop {
                let mut http = Http::connect_from(FLOOD, port).await;
                while http.post("/v1/traces", &[], &message).await.is_some() {}
            }
        });
    }
    clients
}

/// A neighbour that sends now and then for a while. Returns how many of its requests were refused, and the latency that
/// 99 of 100 stay below.
async fn neighbour(agent: &Agent, time: Duration) -> (usize, Duration) {
    let message = spans("quiet", 10).encode_to_vec();
    let mut http = Http::connect(agent.port()).await;
    let (mut refused, mut times) = (0, Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < time {
        let sent = Instant::now();
        let answer = http.post("/v1/traces", &[], &message).await.unwrap();
        times.push(sent.elapsed());
        refused += usize::from(answer.status != 200);
        sleep(Duration::from_millis(20)).await;
    }
    times.sort();
    (refused, times[times.len() * 99 / 100])
}

async fn assert_neighbour_is_served(agent: &Agent) {
    let (refused, alone) = neighbour(agent, Duration::from_secs(1)).await;
    assert_eq!(refused, 0);
    let flood = flood(agent);
    let flooded = || agent.metric(REFUSED, "127.0.0.2");
    eventually("the flood is refused", || flooded() > 10).await;
    let (refused, beside) = neighbour(agent, Duration::from_secs(5)).await;
    println!(
        "{refused} refused, 99 % within {beside:?}, alone {alone:?}; flood: {} refused, {} held",
        flooded(),
        agent.metric(SENDER_HELD, "127.0.0.2")
    );
    assert_eq!(refused, 0);
    assert_eq!(agent.metric(REFUSED, "local"), 0);
    drop(flood);
    assert_eq!(agent.books("spans"), 0);
}

fn slow() -> (SlowSink, std::net::SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    (SlowSink::http(address, 2_000_000), address)
}

#[tokio::test]
async fn flood_for_memory_costs_a_quiet_sender_nothing() {
    let (_slow, address) = slow();
    let agent = setup(Setup::http(address).exporter("compression: none"), 32).start();
    assert_neighbour_is_served(&agent).await;
}

#[tokio::test]
async fn flood_for_a_queue_costs_a_quiet_sender_nothing() {
    let (_slow, address) = slow();
    let agent = Setup::http(address)
        .exporter("compression: none")
        .sending_queue("sizer: bytes, queue_size: 8000000")
        .start();
    assert_neighbour_is_served(&agent).await;
}

#[tokio::test]
async fn flood_for_a_queue_on_disk_costs_a_quiet_sender_nothing() {
    let (_slow, address) = slow();
    let directory = temporary("shares");
    let agent = setup(Setup::http(address).exporter("compression: none"), 16)
        .sending_queue("sizer: bytes, queue_size: 20000000")
        .storage(&directory, "create_directory: true")
        .start();
    assert_neighbour_is_served(&agent).await;
    drop(agent);
    let _ = std::fs::remove_dir_all(directory);
}

#[tokio::test]
async fn sender_alone_uses_nearly_all_and_a_newcomer_still_gets_in() {
    let sink = Sink::http().await;
    sink.always(Some(Reply::Http(503, Vec::new())));
    let agent = setup(Setup::http(sink.address), 32).start();
    let message = spans("first", 1000).encode_to_vec();
    let mut first = Http::connect_from(FLOOD, agent.port()).await;
    let post = async |http: &mut Http, message: &[u8]| {
        http.post("/v1/traces", &[], message).await.unwrap().status
    };
    while post(&mut first, &message).await == 200 {}
    // Four fifths are for telemetry, of which an eighth is kept for each other signal.
    let held = agent.metric(SENDER_HELD, "127.0.0.2");
    assert!(held > 32 * 1024 * 1024 / 5 * 4 / 8 * 5, "{held} bytes held");
    let small = spans("later", 10).encode_to_vec();
    for last in 3..9 {
        let mut http = Http::connect_from([127, 0, 0, last], agent.port()).await;
        for _ in 0..10 {
            assert_eq!(post(&mut http, &small).await, 200);
        }
    }
    assert_eq!(post(&mut first, &message).await, 503);
    let held = |series: &HashMap<String, u64>| series.values().sum::<u64>();
    // Between two attempts there is nothing else; a body that is sent is nobody's.
    eventually("senders hold everything", || {
        let all = agent.metrics();
        let total = all.get("otelagent_memory_held_bytes").copied();
        let of_senders = all.into_iter();
        let of_senders = of_senders.filter(|(name, _)| name.starts_with(SENDER_HELD));
        let senders: HashMap<_, _> = of_senders.collect();
        assert_eq!(senders.len(), 7, "{senders:?}");
        total == Some(held(&senders))
    })
    .await;
}

#[tokio::test]
async fn metrics_name_ten_senders_at_most() {
    let sink = Sink::http().await;
    sink.always(Some(Reply::Http(503, Vec::new())));
    let agent = Setup::http(sink.address).start();
    for last in 2..40_u8 {
        let mut http = Http::connect_from([127, 0, 0, last], agent.port()).await;
        let message = spans("span", usize::from(last)).encode_to_vec();
        let answer = http.post("/v1/traces", &[], &message).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    let named: Vec<_> = agent
        .metrics()
        .into_keys()
        .filter(|name| name.starts_with(SENDER_HELD))
        .collect();
    assert_eq!(named.len(), 10, "{named:?}");
    assert!(named.contains(&format!("{SENDER_HELD}{{sender=\"127.0.0.39\"}}")));
}

/// The calls' headers, and their ends.
fn calls(numbers: std::ops::Range<u32>) -> (Vec<u8>, Vec<u8>) {
    let streams = numbers.map(|number| 2 * number + 1);
    let begin = |stream| frame(HEADERS, END_HEADERS, stream, &export_headers());
    let end = |stream| frame(DATA, END_STREAM, stream, &[0; 5]);
    (
        streams.clone().flat_map(begin).collect(),
        streams.flat_map(end).collect(),
    )
}

/// Reads until so many streams are answered; whether each call succeeded. A refusal has no message.
async fn answers(raw: &mut Raw, many: usize) -> HashMap<u32, bool> {
    let (mut answers, mut messages) = (HashMap::new(), HashSet::new());
    while answers.len() < many {
        let frame = raw.read().await.unwrap();
        assert!(
            frame.kind != GOAWAY,
            "the connection ends: {:?}",
            frame.payload
        );
        if frame.kind == DATA {
            messages.insert(frame.stream);
        } else if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
            answers.insert(frame.stream, messages.contains(&frame.stream));
        }
    }
    answers
}

#[tokio::test]
async fn calls_without_memory_are_refused_and_others_on_the_connection_answered() {
    let sink = Sink::grpc().await;
    let agent = setup(Setup::grpc(sink.address), 16).start();
    let mut raw = Raw::open(agent.port(), &[]).await;
    let mut busy = Vec::new();
    // The rest of the share of connections is in use.
    for _ in 0..156 {
        let mut http = Http::connect(agent.port()).await;
        let answer = http.post("/v1/traces", &[], b"").await.unwrap();
        assert_eq!(answer.status, 200);
        busy.push(http);
    }
    let (begin, end) = calls(0..20);
    assert!(raw.write(&begin).await);
    let early = answers(&mut raw, 18).await;
    assert!(early.values().all(|taken| !taken), "{early:?}");
    assert!(raw.write(&end).await);
    let late = answers(&mut raw, 2).await;
    assert_eq!(late, HashMap::from([(1, true), (3, true)]));
    // What was refused finds room when it comes again.
    let since = Instant::now();
    for round in 1.. {
        assert!(since.elapsed() < PATIENCE, "never answered");
        let (begin, end) = calls(round * 20..round * 20 + 9);
        assert!(raw.write(&[begin, end].concat()).await);
        if answers(&mut raw, 9).await.values().all(|taken| *taken) {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(agent.books("spans"), 0);
}

#[tokio::test]
async fn four_hundred_fifty_keep_alive_clients_fit_a_node() {
    let sink = Sink::grpc().await;
    let agent = setup(Setup::grpc(sink.address), 80).start();
    let mut clients = JoinSet::new();
    for number in 0..450_u64 {
        let port = agent.port();
        clients.spawn(async move {
            let message = spans("span", 1).encode_to_vec();
            sleep(Duration::from_millis(number * 4)).await;
            let mut http = Http::connect(port).await;
            for _ in 0..4 {
                let answer = http.post("/v1/traces", &[], &message).await;
                assert_eq!(answer.expect("not aborted").status, 200);
                sleep(Duration::from_secs(2)).await;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(agent.metric("otelagent_connections_total", ""), 450);
    let mut grpc = Grpc::connect(agent.port()).await;
    assert_eq!(grpc.call(TRACES, &[]).await.unwrap().status, 0);
}
