//! The queue on disk: acknowledged telemetry survives the end of the process.

mod compression;
mod damage;
mod disk;
mod memory;
mod slots;
mod stalled;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::Message;

use crate::support::agent::{Agent, Setup, temporary};
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink, Speaks, TOO_LARGE};
use crate::support::telemetry::spans;

const UNAVAILABLE: u32 = 14;

/// A directory for queues, removed when the test ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(temporary("queue"))
    }

    /// Every file below it that ends in `suffix`.
    fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.0.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.to_string_lossy().ends_with(suffix) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// All segments, compressed ones too.
    fn segments(&self) -> Vec<PathBuf> {
        [self.files(".v1"), self.files(".v2")].concat()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn kept(upstream: SocketAddr, directory: &Path) -> Setup {
    Setup::grpc(upstream).storage(directory, "create_directory: true")
}

/// An upstream that is there and takes nothing.
async fn away() -> Sink {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    sink
}

/// Sends requests of one span called `name-number`, each acknowledged.
async fn send(agent: &Agent, name: &str, count: usize) {
    let mut grpc = Grpc::connect(agent.port()).await;
    for number in 0..count {
        let message = spans(&format!("{name}-{number}"), 1).encode_to_vec();
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        assert_eq!(answer.status, 0);
    }
}

fn names(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name}-{number}-0"))
        .collect()
}

async fn balanced(agent: &Agent) {
    eventually("the books balance", || agent.books("spans") == 0).await;
}

async fn arrived(sink: &Sink, count: usize) {
    let what = format!("{count} spans arrive");
    eventually(&what, || sink.spans().len() >= count).await;
}

/// A request of one span, so many bytes larger than it need be.
fn padded(name: &str, padding: usize) -> Vec<u8> {
    let mut request = spans(name, 1);
    request.resource_spans[0].schema_url = "x".repeat(padding);
    request.encode_to_vec()
}

/// Sends until the agent is gone; the names of acknowledged spans, counted as they come.
/// A refused client waits this long.
const REFUSED: Duration = Duration::from_millis(20);

async fn load(
    client: String,
    port: SocketAddr,
    padding: usize,
    count: Arc<AtomicU64>,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut grpc = Grpc::connect(port).await;
    for sequence in 0.. {
        let name = format!("{client}-{sequence}");
        let message = padded(&name, padding);
        match grpc.call(client::TRACES, &message).await {
            Ok(answer) if answer.status == 0 => {
                acknowledged.push(format!("{name}-0"));
                count.fetch_add(1, Ordering::Relaxed);
            }
            // Refused and not taken; SDKs come again, too.
            Ok(answer) if answer.status == 14 => tokio::time::sleep(REFUSED).await,
            _ => break,
        }
    }
    acknowledged
}

/// Each round ends after up to `most` acknowledgements.
async fn killed_under_load(
    setup: impl Fn(SocketAddr, &Path) -> Setup,
    padding: usize,
    rounds: u64,
    most: u64,
) {
    let directory = Directory::new();
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Slow(Duration::from_millis(20))));
    let setup = setup(sink.address, &directory.0);
    let mut acknowledged = HashSet::new();
    let count = Arc::new(AtomicU64::new(0));
    for round in 0..rounds {
        let agent = setup.start();
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..6 {
            let name = format!("round{round}-client{number}");
            clients.spawn(load(name, agent.port(), padding, Arc::clone(&count)));
        }
        // Anywhere from the first acknowledgement to several batches later.
        let enough = count.load(Ordering::Relaxed) + fastrand::u64(1..most);
        eventually("requests are acknowledged", || {
            count.load(Ordering::Relaxed) >= enough
        })
        .await;
        // Killed: nothing is flushed, nothing is closed.
        drop(agent);
        while let Some(names) = clients.join_next().await {
            acknowledged.extend(names.unwrap());
        }
    }
    sink.always(None);
    let agent = setup.start();
    let missing = || {
        let arrived: HashSet<_> = sink.spans().into_iter().collect();
        acknowledged.difference(&arrived).count()
    };
    eventually("everything acknowledged arrives", || missing() == 0).await;
    assert_eq!(acknowledged.len() as u64, count.load(Ordering::Relaxed));
    balanced(&agent).await;
    assert_eq!(
        agent.metric("otelagent_storage_damaged_records_total", ""),
        0
    );
}

fn rounds() -> u64 {
    std::env::var("OTELAGENT_KILLS").map_or(8, |rounds| rounds.parse().unwrap())
}

#[tokio::test]
async fn killed_agent_delivers_everything_it_acknowledged() {
    killed_under_load(kept, 0, rounds(), 400).await;
}

#[tokio::test]
async fn killed_agent_with_short_memory_delivers_from_disk() {
    let small = |upstream, directory: &Path| {
        kept(upstream, directory)
            .processors(
                "memory_limiter: {check_interval: 1s, limit_mib: 4}",
                "memory_limiter",
            )
            .sending_queue("num_consumers: 1")
    };
    killed_under_load(small, 30_000, rounds() / 2, 200).await;
}

#[tokio::test]
async fn killed_agent_with_fsync_delivers_everything_it_acknowledged() {
    let safe = |upstream, directory: &Path| {
        Setup::grpc(upstream).storage(directory, "create_directory: true, fsync: true")
    };
    killed_under_load(safe, 0, rounds() / 2, 40).await;
}

#[tokio::test]
async fn records_of_an_earlier_process_go_first_as_recovered() {
    let directory = Directory::new();
    let gone = away().await;
    let agent = kept(gone.address, &directory.0).start();
    send(&agent, "early", 30).await;
    drop(agent);
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, &directory.0).start();
    send(&agent, "late", 10).await;
    arrived(&sink, 40).await;
    let expected = [names("early", 30), names("late", 10)].concat();
    assert_eq!(sink.spans(), expected);
    assert_eq!(agent.metric("otelagent_recovered_spans_total", ""), 30);
    assert_eq!(
        agent.metric("otelcol_receiver_accepted_spans_total", ""),
        10
    );
    balanced(&agent).await;
    eventually("nothing is left on disk", || {
        directory.segments().is_empty()
    })
    .await;
}

#[tokio::test]
async fn delivered_requests_are_not_resent_after_a_crash() {
    let directory = Directory::new();
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, &directory.0).start();
    send(&agent, "first", 20).await;
    arrived(&sink, 20).await;
    eventually("it is settled", || {
        agent.metric("otelagent_queue_spans", "") == 0
    })
    .await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    send(&agent, "second", 5).await;
    drop(agent);
    let later = Sink::grpc().await;
    let agent = kept(later.address, &directory.0).start();
    arrived(&later, 5).await;
    balanced(&agent).await;
    assert_eq!(later.spans(), names("second", 5));
}

#[tokio::test]
async fn split_batch_leaves_the_disk_when_both_halves_settle() {
    const RESOURCE_EXHAUSTED: u32 = 8;
    let directory = Directory::new();
    let sink = away().await;
    // A batch is eight requests, never fewer.
    let eight = 8 * spans("span-0", 1).encoded_len();
    let setup = kept(sink.address, &directory.0).batch(&format!(
        "flush_timeout: 1h, sizer: bytes, min_size: {eight}, max_size: {eight}"
    ));
    let agent = setup.start();
    send(&agent, "span", 8).await;
    sink.script([
        Reply::Says(RESOURCE_EXHAUSTED, TOO_LARGE),
        Reply::Take(Vec::new()),
    ]);
    eventually("one half is delivered", || {
        let sent = agent.metric("otelcol_exporter_sent_spans_total", "");
        (1..8).contains(&sent)
    })
    .await;
    drop(agent);
    sink.always(None);
    let agent = setup.start();
    let distinct = || sink.spans().into_iter().collect::<HashSet<_>>().len();
    eventually("everything is delivered", || distinct() == 8).await;
    balanced(&agent).await;
    sink.script([Reply::Says(RESOURCE_EXHAUSTED, TOO_LARGE)]);
    send(&agent, "more", 8).await;
    eventually("nothing is left on disk", || {
        distinct() == 16 && directory.segments().is_empty()
    })
    .await;
}

#[tokio::test]
async fn undelivered_requests_stay_on_disk_after_the_grace_period() {
    let directory = Directory::new();
    let gone = away().await;
    let agent = kept(gone.address, &directory.0)
        .env("OTELAGENT_SHUTDOWN_GRACE", "1")
        .start();
    send(&agent, "span", 12).await;
    agent.terminate();
    let (code, log) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    let done = log.iter().find(|line| line["message"] == "done").unwrap();
    assert_eq!(
        (&done["left_on_disk"], &done["lost"]),
        (&12.into(), &0.into())
    );
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, &directory.0).start();
    arrived(&sink, 12).await;
    balanced(&agent).await;
    assert_eq!(sink.spans(), names("span", 12));
}

#[tokio::test]
async fn long_outage_uses_disk_and_no_memory() {
    let directory = Directory::new();
    let sink = away().await;
    let agent = kept(sink.address, &directory.0)
        .processors(
            "memory_limiter: {check_interval: 1s, limit_mib: 16}",
            "memory_limiter",
        )
        .sending_queue("num_consumers: 1, queue_size: 268435456, sizer: bytes")
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut early = 0;
    for number in 0..400 {
        let message = padded(&format!("span-{number}"), 100_000);
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        assert_eq!(answer.status, 0, "{number}");
        if number == 200 {
            early = agent.rss();
        }
    }
    assert_eq!(agent.metric("otelagent_queue_spans", ""), 400);
    let memory = agent.metric("otelagent_memory_held_bytes", "");
    assert!(memory < 13 << 20, "{memory}");
    let late = agent.rss();
    assert!(late < early + (4 << 20), "{early} grows to {late}");
    assert_eq!(agent.books("spans"), 0);
    sink.always(None);
    eventually("everything arrives", || {
        agent.metric("otelcol_exporter_sent_spans_total", "") == 400
    })
    .await;
    assert_eq!(sink.spans(), names("span", 400), "oldest first");
    balanced(&agent).await;
    send(&agent, "after", 3).await;
    arrived(&sink, 403).await;
}

/// What an outage may take, in KiB: 8 MiB, and as much again for a debug build's allocations.
const EXTRA: u64 = 16 << 10;

#[tokio::test]
async fn outage_takes_little_memory_and_so_does_its_end() {
    for gone in [true, false] {
        let directory = Directory::new();
        let mut sink = Some(Sink::grpc().await);
        let address = sink.as_ref().unwrap().address;
        let agent = kept(address, &directory.0)
            .sending_queue("queue_size: 1073741824, sizer: bytes")
            .start();
        let mut grpc = Grpc::connect(agent.port()).await;
        let mut number = 0;
        let mut send = async |requests: usize| {
            for _ in 0..requests {
                let message = padded(&format!("span-{number}"), 100_000);
                let answer = grpc.call(client::TRACES, &message).await.unwrap();
                assert_eq!(answer.status, 0);
                number += 1;
            }
        };
        send(100).await;
        arrived(sink.as_ref().unwrap(), 100).await;
        let before = agent.peak();
        match &sink {
            Some(sink) if !gone => sink.always(Some(Reply::Grpc(UNAVAILABLE, None))),
            _ => sink = None,
        }
        send(400).await;
        let away = agent.peak();
        assert!(away < before + EXTRA, "{before} grows to {away}, away");
        let sink = match sink {
            Some(sink) => sink,
            None => Sink::at(address, Speaks::Grpc).await,
        };
        sink.always(None);
        let delivered = || agent.metric("otelcol_exporter_sent_spans_total", "");
        eventually("everything arrives", || delivered() == 500).await;
        let back = agent.peak();
        assert!(back < before + EXTRA, "{before} grows to {back}, back");
        let mut distinct = sink.spans();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), if gone { 400 } else { 500 });
        balanced(&agent).await;
        println!("outage: {before} KiB before, {away} away, {back} back");
    }
}

#[tokio::test]
async fn request_that_is_never_taken_does_not_stop_a_queue_on_disk() {
    let directory = Directory::new();
    let sink = Sink::grpc().await;
    let unavailable = Reply::Grpc(UNAVAILABLE, None);
    sink.always(Some(unavailable.clone()));
    sink.dislikes("poison", unavailable);
    let agent = kept(sink.address, &directory.0)
        .sending_queue("queue_size: 1073741824, sizer: bytes")
        .retry("initial_interval: 20ms, max_interval: 100ms")
        .start();
    // Batches of three megabytes, one of them with a request that is refused by itself.
    let mut grpc = Grpc::connect(agent.port()).await;
    let names = (0..120).map(|number| match number {
        12 => "poison".to_owned(),
        _ => format!("good-{number}"),
    });
    for name in names {
        let answer = grpc.call(client::TRACES, &padded(&name, 100_000)).await;
        assert_eq!(answer.unwrap().status, 0);
    }
    sink.always(None);
    // All but its batch.
    arrived(&sink, 80).await;
    for number in 0..60 {
        let message = padded(&format!("later-{number}"), 100_000);
        let answer = grpc.call(client::TRACES, &message).await;
        assert_eq!(answer.unwrap().status, 0);
    }
    let later = || {
        sink.spans()
            .into_iter()
            .filter(|name| name.starts_with("later"))
    };
    eventually("later ones arrive", || later().count() >= 60).await;
    balanced(&agent).await;
}

#[tokio::test]
async fn full_queue_refuses_retryably_and_recovers_with_the_upstream() {
    for limit in ["", ", max_size: 400000"] {
        let directory = Directory::new();
        let sink = away().await;
        let fields = format!("create_directory: true{limit}");
        let capacity = if limit.is_empty() { 300_000 } else { 1 << 30 };
        let agent = Setup::grpc(sink.address)
            .storage(&directory.0, &fields)
            .sending_queue(&format!("queue_size: {capacity}, sizer: bytes"))
            .start();
        let mut grpc = Grpc::connect(agent.port()).await;
        let message = spans("span", 100).encode_to_vec();
        let mut taken = 0;
        let refused = loop {
            let answer = grpc.call(client::TRACES, &message).await.unwrap();
            if answer.status != 0 {
                break answer;
            }
            taken += 1;
            assert!(taken < 100);
        };
        assert_eq!(refused.status, UNAVAILABLE);
        assert!(refused.headers.contains_key("grpc-status-details-bin"));
        let on_disk: u64 = directory
            .segments()
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .sum();
        assert!(on_disk <= 400_000, "{on_disk}");
        sink.always(None);
        eventually("the queue has space again", || {
            agent.metric("otelagent_queue_spans", "") == 0
        })
        .await;
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        assert_eq!(answer.status, 0);
        taken += 1;
        arrived(&sink, taken * 100).await;
        balanced(&agent).await;
    }
}

#[tokio::test]
async fn fsync_acknowledges_concurrent_requests_together() {
    let directory = Directory::new();
    let gone = away().await;
    let agent = Setup::grpc(gone.address)
        .storage(&directory.0, "create_directory: true, fsync: true")
        .start();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..50 {
        let port = agent.port();
        clients.spawn(async move {
            let mut grpc = Grpc::connect(port).await;
            for sequence in 0..4 {
                let message = spans(&format!("client{number}-{sequence}"), 1).encode_to_vec();
                let answer = grpc.call(client::TRACES, &message).await.unwrap();
                assert_eq!(answer.status, 0);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    drop(agent);
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, &directory.0).start();
    arrived(&sink, 200).await;
    let distinct: HashSet<_> = sink.spans().into_iter().collect();
    assert_eq!(distinct.len(), 200);
    balanced(&agent).await;
}

#[tokio::test]
async fn files_are_private_and_an_idle_agent_keeps_none() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    let sink = away().await;
    let fields = "create_directory: true, directory_permissions: '0700'";
    let agent = Setup::grpc(sink.address)
        .storage(&directory.0, fields)
        .start();
    send(&agent, "span", 2).await;
    let segments = directory.segments();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(segments.len(), 1);
    assert_eq!(mode(&segments[0]), 0o600);
    assert_eq!(mode(segments[0].parent().unwrap()), 0o700);
    sink.always(None);
    arrived(&sink, 2).await;
    eventually("nothing is left", || directory.segments().is_empty()).await;
}
