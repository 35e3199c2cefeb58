//! A disk that is full, read-only or removed, and works again later.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Directory, UNAVAILABLE, arrived, away, balanced, kept, names, padded, send};
use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc};
use crate::support::sink::Sink;
use crate::support::{eventually, skip_unless_root};

/// A file system in memory, for as long as the test runs.
struct Tmpfs(Directory);

pub(super) fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

impl Tmpfs {
    fn new(size: &str) -> Self {
        let directory = Directory::new();
        std::fs::create_dir(&directory.0).unwrap();
        let options = format!("size={size}");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "tmpfs", text(&directory.0)],
        );
        Self(directory)
    }

    fn path(&self) -> &PathBuf {
        &self.0.0
    }

    fn remount(&self, options: &str) {
        run(
            "mount",
            &["-o", &format!("remount,{options}"), text(self.path())],
        );
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .args(["-l", text(self.path())])
            .status();
    }
}

/// Removes a directory in which the agent may be making a file.
fn remove(path: &Path) {
    while let Err(error) = std::fs::remove_dir_all(path) {
        assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty);
    }
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(super) fn failing(agent: &Agent) -> bool {
    agent.metric("otelagent_storage_failing", "traces") == 1
}

const IN_MEMORY: &str = "the queue cannot be kept on disk and continues in memory";

/// The agent has said so once, for this reason.
pub(super) async fn logged(agent: &Agent, reason: &str) {
    let lines = || {
        let mut lines = agent.logged(IN_MEMORY);
        lines.retain(|line| line["signal"] == "traces");
        lines
    };
    eventually("it is logged", || !lines().is_empty()).await;
    assert_eq!((lines().len(), &lines()[0]["reason"]), (1, &reason.into()));
}

#[tokio::test]
async fn full_disk_is_reported_and_the_queue_continues_in_memory() {
    if !skip_unless_root("a full disk") {
        return;
    }
    let disk = Tmpfs::new("1m");
    let sink = away().await;
    let agent = kept(sink.address, disk.path()).start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = padded("span", 50_000);
    for _ in 0..60 {
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        assert_eq!(answer.status, 0);
    }
    assert!(failing(&agent));
    assert_eq!(agent.books("spans"), 0);
    logged(&agent, "full").await;
    // Space is freed, and what was in memory only goes to disk.
    disk.remount("size=64m");
    eventually("the disk is used again", || !failing(&agent)).await;
    eventually("it is logged", || {
        agent.logged("the queue is on disk again").len() == 1
    })
    .await;
    drop(agent);
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, disk.path()).start();
    arrived(&sink, 60).await;
    balanced(&agent).await;
    assert_eq!(agent.metric("otelagent_recovered_spans_total", ""), 60);
}

#[tokio::test]
async fn full_disk_and_memory_refuse_retryably_without_loss() {
    if !skip_unless_root("a full disk and full memory") {
        return;
    }
    let disk = Tmpfs::new("1m");
    let sink = away().await;
    let agent = kept(sink.address, disk.path())
        .processors(
            "memory_limiter: {check_interval: 1s, limit_mib: 4}",
            "memory_limiter",
        )
        .sending_queue("num_consumers: 1")
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut taken = 0;
    loop {
        let message = padded(&format!("span-{taken}"), 20_000);
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        if answer.status == UNAVAILABLE {
            break;
        }
        assert_eq!(answer.status, 0);
        taken += 1;
        assert!(taken < 1000);
    }
    assert!(failing(&agent));
    sink.always(None);
    arrived(&sink, taken).await;
    assert_eq!(sink.spans(), names("span", taken), "oldest first");
    balanced(&agent).await;
    eventually("the disk is used again", || !failing(&agent)).await;
}

#[tokio::test]
async fn requests_accepted_during_a_read_only_disk_reach_it_later() {
    if !skip_unless_root("a read-only disk") {
        return;
    }
    let disk = Tmpfs::new("8m");
    let sink = away().await;
    let agent = kept(sink.address, disk.path()).start();
    disk.remount("ro");
    send(&agent, "span", 10).await;
    assert!(failing(&agent));
    logged(&agent, "read_only").await;
    disk.remount("rw");
    eventually("the disk is used again", || !failing(&agent)).await;
    send(&agent, "later", 5).await;
    drop(agent);
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, disk.path()).start();
    arrived(&sink, 15).await;
    assert_eq!(
        sink.spans(),
        [names("span", 10), names("later", 5)].concat()
    );
    balanced(&agent).await;
}

#[tokio::test]
async fn removed_directory_is_recreated_and_filled_from_memory() {
    for below in ["", "slot-0", "slot-0/otlp_grpc.traces"] {
        let directory = Directory::new();
        let sink = away().await;
        let agent = kept(sink.address, &directory.0).start();
        send(&agent, "span", 10).await;
        assert_eq!(directory.segments().len(), 1);
        remove(&directory.0.join(below));
        send(&agent, "meanwhile", 2).await;
        eventually("the queue is on disk again", || {
            !directory.segments().is_empty() && !failing(&agent)
        })
        .await;
        logged(&agent, "vanished").await;
        send(&agent, "later", 5).await;
        assert_eq!(agent.books("spans"), 0);
        drop(agent);
        let sink = Sink::grpc().await;
        let agent = kept(sink.address, &directory.0).start();
        arrived(&sink, 17).await;
        let expected = [names("span", 10), names("meanwhile", 2), names("later", 5)].concat();
        assert_eq!(sink.spans(), expected);
        balanced(&agent).await;
    }
}

#[tokio::test]
async fn requests_only_on_a_removed_disk_count_as_lost() {
    let directory = Directory::new();
    let sink = away().await;
    let agent = kept(sink.address, &directory.0)
        .processors(
            "memory_limiter: {check_interval: 1s, limit_mib: 4}",
            "memory_limiter",
        )
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = padded("span", 50_000);
    for _ in 0..100 {
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        assert_eq!(answer.status, 0);
    }
    remove(&directory.0);
    let lost = || agent.metric("otelagent_lost_spans_total", "reason=\"storage\"");
    eventually("it is noticed", || lost() > 0).await;
    assert_eq!(agent.books("spans"), 0);
    sink.always(None);
    eventually("the rest arrives", || {
        agent.metric("otelcol_exporter_sent_spans_total", "") + lost() == 100
    })
    .await;
    balanced(&agent).await;
}

#[tokio::test]
async fn agent_starts_in_memory_and_uses_a_late_directory() {
    let directory = Directory::new();
    let sink = away().await;
    let agent = Setup::grpc(sink.address)
        .storage(&directory.0, "create_directory: false")
        .start();
    send(&agent, "span", 3).await;
    assert!(failing(&agent));
    logged(&agent, "missing").await;
    std::fs::create_dir(&directory.0).unwrap();
    eventually("the disk is used", || !failing(&agent)).await;
    drop(agent);
    let sink = Sink::grpc().await;
    let _agent = kept(sink.address, &directory.0).start();
    arrived(&sink, 3).await;
}
