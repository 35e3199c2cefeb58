//! A disk that neither works nor fails: it does not answer, and goes on later.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::timeout;

use super::disk::{failing, logged, run, text};
use super::{Directory, UNAVAILABLE, arrived, away, balanced, kept, names, padded, send};
use crate::support::agent::{Agent, Setup, get};
use crate::support::client::{self, Grpc};
use crate::support::sink::Sink;
use crate::support::{eventually, skip_unless_root};

/// What a request may take while the disk hangs: the second that the agent waits for it, and a slow machine.
const SOON: Duration = Duration::from_mins(1);

/// A file system on a device of its own, for as long as the test runs.
struct Ext4(Directory);

/// Until it is dropped, every write waits.
struct Frozen(PathBuf);

impl Ext4 {
    fn new() -> Self {
        let directory = Directory::new();
        std::fs::create_dir(&directory.0).unwrap();
        let image = directory.0.with_extension("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(64 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", text(&image)]);
        run("mount", &["-o", "loop", text(&image), text(&directory.0)]);
        // The device keeps it.
        std::fs::remove_file(image).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        &self.0.0
    }

    fn freeze(&self) -> Frozen {
        run("fsfreeze", &["-f", text(self.path())]);
        Frozen(self.path().to_owned())
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .args(["-l", text(self.path())])
            .status();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run("fsfreeze", &["-u", text(&self.0)]);
    }
}

/// Requests of 100 kB: more than a batch in flight and what stays in memory beside it.
const BACKLOG: usize = 80;

/// Sends requests of one span, of 100 kB each.
async fn send_padded(agent: &Agent, name: &str, count: usize) {
    let mut grpc = Grpc::connect(agent.port()).await;
    for number in 0..count {
        let message = padded(&format!("{name}-{number}"), 100_000);
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        assert_eq!(answer.status, 0);
    }
}

fn fsync(upstream: std::net::SocketAddr, directory: &Path) -> Setup {
    Setup::grpc(upstream).storage(directory, "create_directory: true, fsync: true")
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.unwrap()
}

async fn in_use(agent: &Agent) {
    eventually("the disk is used", || !failing(agent)).await;
}

#[tokio::test]
async fn hanging_disk_is_like_a_failing_one_until_it_answers() {
    if !skip_unless_root("a hanging disk") {
        return;
    }
    for setup in [kept, fsync] {
        let disk = Ext4::new();
        let sink = away().await;
        let agent = setup(sink.address, disk.path()).start();
        send(&agent, "before", 3).await;
        let frozen = disk.freeze();
        soon(send(&agent, "meanwhile", 20)).await;
        assert!(failing(&agent));
        let stalled = agent.metric("otelagent_storage_failing", "reason=\"stalled\"");
        assert_eq!(stalled, 1, "only traces were sent");
        assert_eq!(get(agent.health, "/live").0, 200);
        assert_eq!(agent.books("spans"), 0);
        logged(&agent, "stalled").await;
        agent.hang_up();
        agent.until_logged("configuration read").await;
        drop(frozen);
        in_use(&agent).await;
        agent.until_logged("the queue is on disk again").await;
        send(&agent, "later", 5).await;
        drop(agent);
        let sink = Sink::grpc().await;
        let agent = kept(sink.address, disk.path()).start();
        arrived(&sink, 28).await;
        let expected = [
            names("before", 3),
            names("meanwhile", 20),
            names("later", 5),
        ];
        assert_eq!(sink.spans(), expected.concat());
        assert_eq!(agent.metric("otelagent_recovered_spans_total", ""), 28);
        balanced(&agent).await;
    }
}

#[tokio::test]
async fn telemetry_passes_a_hanging_disk_and_is_not_sent_again() {
    if !skip_unless_root("a hanging disk") {
        return;
    }
    let disk = Ext4::new();
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, disk.path()).start();
    send(&agent, "before", 3).await;
    arrived(&sink, 3).await;
    let frozen = disk.freeze();
    soon(send(&agent, "meanwhile", 20)).await;
    arrived(&sink, 23).await;
    assert_eq!(agent.books("spans"), 0);
    drop(frozen);
    in_use(&agent).await;
    send(&agent, "later", 5).await;
    arrived(&sink, 28).await;
    eventually("nothing is left on disk", || disk.0.segments().is_empty()).await;
    assert_eq!(sink.spans().len(), 28);
    balanced(&agent).await;
}

#[tokio::test]
async fn requests_in_memory_leave_while_a_disk_with_a_backlog_hangs() {
    if !skip_unless_root("a hanging disk") {
        return;
    }
    let disk = Ext4::new();
    let sink = away().await;
    let agent = kept(sink.address, disk.path()).start();
    send_padded(&agent, "backlog", BACKLOG).await;
    let frozen = disk.freeze();
    // Several at once: these wait for the disk for a second, and the later ones find it hanging.
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..5 {
        let (port, name) = (agent.port(), format!("early{number}"));
        clients.spawn(async move {
            let mut grpc = Grpc::connect(port).await;
            let answer = soon(grpc.call(client::TRACES, &padded(&name, 10_000))).await;
            assert_eq!(answer.unwrap().status, 0);
        });
    }
    clients.join_all().await;
    soon(send(&agent, "meanwhile", 20)).await;
    assert!(failing(&agent));
    sink.always(None);
    arrived(&sink, BACKLOG + 25).await;
    assert_eq!(agent.books("spans"), 0);
    // And so does what comes now.
    soon(send(&agent, "later", 5)).await;
    arrived(&sink, BACKLOG + 30).await;
    assert!(failing(&agent), "the disk still hangs");
    drop(frozen);
    in_use(&agent).await;
    send(&agent, "after", 5).await;
    arrived(&sink, BACKLOG + 35).await;
    eventually("nothing is left on disk", || disk.0.segments().is_empty()).await;
    let mut distinct = sink.spans();
    distinct.sort();
    distinct.dedup();
    let all = BACKLOG + 35;
    assert_eq!((distinct.len(), sink.spans().len()), (all, all));
    balanced(&agent).await;
}

#[tokio::test]
async fn requests_in_memory_leave_while_the_disk_does_not_answer_a_read() {
    let directory = Directory::new();
    let sink = away().await;
    let agent = kept(sink.address, &directory.0).start();
    send_padded(&agent, "backlog", BACKLOG).await;
    // Who opens a pipe to read waits for somebody who writes. What came last is only on disk.
    let segment = directory.files(".v1").pop().unwrap();
    let moved = segment.with_extension("moved");
    std::fs::rename(&segment, &moved).unwrap();
    run("mkfifo", &[text(&segment)]);
    sink.always(None);
    let stalled = || agent.metric("otelagent_storage_failing", "reason=\"stalled\"") == 1;
    eventually("the read is late", stalled).await;
    send(&agent, "meanwhile", 20).await;
    let has_all = || {
        let spans = sink.spans();
        names("meanwhile", 20)
            .iter()
            .all(|name| spans.contains(name))
    };
    eventually("what came meanwhile arrives", has_all).await;
    assert_eq!(agent.books("spans"), 0);
    // The read ends, and finds nothing.
    let pipe = segment.with_extension("pipe");
    std::fs::rename(&segment, &pipe).unwrap();
    std::fs::rename(&moved, &segment).unwrap();
    drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());
    in_use(&agent).await;
    let lost = || agent.metric("otelagent_lost_spans_total", "reason=\"storage\"");
    eventually("the loss is counted", || lost() > 0).await;
    let lost = usize::try_from(lost()).unwrap();
    arrived(&sink, BACKLOG + 20 - lost).await;
    balanced(&agent).await;
    let all = BACKLOG + 20 - lost;
    assert_eq!(sink.spans().len(), all, "nothing twice");
}

#[tokio::test]
async fn backlog_on_a_hanging_disk_is_bounded_in_memory_and_not_lost() {
    if !skip_unless_root("a hanging disk and full memory") {
        return;
    }
    let disk = Ext4::new();
    let sink = away().await;
    let agent = kept(sink.address, disk.path())
        .processors(
            "memory_limiter: {check_interval: 1s, limit_mib: 4}",
            "memory_limiter",
        )
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut taken = 0;
    let mut frozen = None;
    loop {
        let message = padded(&format!("span-{taken}"), 20_000);
        let answer = soon(grpc.call(client::TRACES, &message)).await.unwrap();
        match (answer.status, &frozen) {
            (UNAVAILABLE, Some(_)) => break,
            // Memory is short until more of it is on disk, of which nothing tells: the client comes again.
            (UNAVAILABLE, None) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            _ => {}
        }
        assert_eq!(answer.status, 0);
        taken += 1;
        assert!(taken < 1500, "memory has no bound");
        if taken == 500 {
            frozen = Some(disk.freeze());
        }
    }
    assert!(taken > 500);
    assert_eq!(agent.books("spans"), 0);
    drop(frozen);
    in_use(&agent).await;
    sink.always(None);
    arrived(&sink, taken).await;
    let mut distinct = sink.spans();
    distinct.sort();
    distinct.dedup();
    assert_eq!((distinct.len(), sink.spans().len()), (taken, taken));
    balanced(&agent).await;
}

#[tokio::test]
async fn agent_ends_in_time_although_the_disk_hangs() {
    if !skip_unless_root("a hanging disk") {
        return;
    }
    let disk = Ext4::new();
    let sink = away().await;
    let agent = kept(sink.address, disk.path())
        .env("OTELAGENT_SHUTDOWN_GRACE", "3")
        .start();
    send(&agent, "before", 3).await;
    let frozen = disk.freeze();
    soon(send(&agent, "meanwhile", 4)).await;
    agent.terminate();
    let done = soon(agent.until_logged("done")).await;
    let counts = (&done[0]["left_on_disk"], &done[0]["lost"]);
    assert_eq!(counts, (&3.into(), &4.into()));
    // The system ends a process only once the disk has answered.
    drop(frozen);
    let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
}

#[tokio::test]
async fn agent_starts_although_the_disk_hangs() {
    if !skip_unless_root("a hanging disk") {
        return;
    }
    let disk = Ext4::new();
    let gone = away().await;
    let agent = kept(gone.address, disk.path()).start();
    send(&agent, "early", 3).await;
    drop(agent);
    let sink = Sink::grpc().await;
    let frozen = disk.freeze();
    // It waits for the start.
    let agent = kept(sink.address, disk.path()).start();
    soon(send(&agent, "meanwhile", 4)).await;
    assert!(failing(&agent));
    logged(&agent, "stalled").await;
    arrived(&sink, 4).await;
    drop(frozen);
    in_use(&agent).await;
    arrived(&sink, 7).await;
    assert_eq!(agent.metric("otelagent_recovered_spans_total", ""), 3);
    balanced(&agent).await;
}
