//! Damage on disk, and foreign files.

use std::path::Path;

use super::{Directory, arrived, away, balanced, kept, names, send};
use crate::support::eventually;
use crate::support::sink::Sink;

/// Leaves a queue of `count` requests behind.
async fn leave(directory: &Directory, count: usize) {
    let gone = away().await;
    let agent = kept(gone.address, &directory.0).start();
    send(&agent, "span", count).await;
}

/// Changes the only segment.
fn damage(directory: &Directory, change: impl FnOnce(&mut Vec<u8>)) {
    let segments = directory.segments();
    assert_eq!(segments.len(), 1);
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    change(&mut bytes);
    std::fs::write(&segments[0], bytes).unwrap();
}

/// Where the record with this text begins.
fn record(bytes: &[u8], text: &str) -> usize {
    let at = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).position(|w| w == text);
    let end = at(bytes, text.as_bytes()).unwrap();
    let before = &bytes[..end];
    before
        .windows(4)
        .rposition(|window| window == b"OTAR")
        .unwrap()
}

#[tokio::test]
async fn flipped_byte_costs_only_its_record() {
    // In the length, in the header's checksum, in the payload.
    for offset in [4, 30, 50] {
        let directory = Directory::new();
        leave(&directory, 20).await;
        damage(&directory, |bytes| {
            let at = record(bytes, "span-7-0") + offset;
            bytes[at] ^= 0x10;
        });
        let sink = Sink::grpc().await;
        let agent = kept(sink.address, &directory.0).start();
        arrived(&sink, 19).await;
        balanced(&agent).await;
        let mut expected = names("span", 20);
        expected.remove(7);
        assert_eq!(sink.spans(), expected);
        let count = |name| agent.metric(name, "traces");
        assert_eq!(count("otelagent_storage_damaged_records_total"), 1);
        assert!(count("otelagent_storage_damaged_bytes_total") > 32);
        eventually("it is logged", || {
            agent.logged("skipping damaged records on disk").len() == 1
        })
        .await;
    }
}

#[tokio::test]
async fn torn_tail_costs_only_the_unfinished_record() {
    let directory = Directory::new();
    leave(&directory, 10).await;
    damage(&directory, |bytes| bytes.truncate(bytes.len() - 5));
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, &directory.0).start();
    send(&agent, "new", 1).await;
    arrived(&sink, 10).await;
    assert_eq!(sink.spans(), [names("span", 9), names("new", 1)].concat());
    assert_eq!(
        agent.metric("otelagent_storage_damaged_records_total", ""),
        0
    );
}

#[tokio::test]
async fn lost_mark_costs_only_duplicates() {
    let directory = Directory::new();
    leave(&directory, 10).await;
    for mark in directory.files("/mark") {
        std::fs::write(mark, "nonsense").unwrap();
    }
    let sink = Sink::grpc().await;
    let _agent = kept(sink.address, &directory.0).start();
    arrived(&sink, 10).await;
    assert_eq!(sink.spans(), names("span", 10));
}

#[tokio::test]
async fn foreign_and_newer_files_are_left_alone_and_logged() {
    let directory = Directory::new();
    leave(&directory, 3).await;
    let lane = directory.segments()[0].parent().unwrap().to_owned();
    let write = |name: &str| std::fs::write(lane.join(name), "of the future").unwrap();
    write("0000000000000001-00000000.v3");
    write("notes.txt");
    let strange = lane.with_file_name("otlp_grpc%2fold.traces");
    std::fs::create_dir(&strange).unwrap();
    std::fs::copy(
        &directory.segments()[0],
        strange.join("0000000000000001-00000000.v1"),
    )
    .unwrap();
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, &directory.0).start();
    arrived(&sink, 3).await;
    let logged = "leaving files of a newer version or of others alone";
    let logged = agent.until_logged(logged).await;
    assert_eq!(logged.len(), 1);
    let files = logged[0]["files"].as_str().unwrap();
    assert!(
        files.contains(".v3") && files.contains("notes.txt"),
        "{files}"
    );
    let logged = "leaving a queue without a configured exporter alone";
    let logged = agent.until_logged(logged).await;
    assert_eq!(logged.len(), 1);
    drop(agent);
    let there = |path: &Path| assert!(path.exists(), "{}", path.display());
    there(&lane.join("0000000000000001-00000000.v3"));
    there(&lane.join("notes.txt"));
    there(&strange.join("0000000000000001-00000000.v1"));
}
