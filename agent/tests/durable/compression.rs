//! Segments that wait on disk are compressed.

use std::path::{Path, PathBuf};

use super::{Directory, UNAVAILABLE, arrived, away, balanced, kept, names, padded};
use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc};
use crate::support::sink::Sink;
use crate::support::{eventually, eventually_answers};

/// The bytes of a request, nearly all of which can be compressed.
const REQUEST: usize = 50_000;

/// A queue of 64 segments.
const CAPACITY: usize = 4 << 20;

fn queue(upstream: std::net::SocketAddr, directory: &Path) -> Setup {
    kept(upstream, directory).sending_queue(&format!(
        "num_consumers: 1, sizer: bytes, queue_size: {CAPACITY}"
    ))
}

/// Sends requests of one span each, and comes again while the queue is full.
async fn send(agent: &Agent, name: &str, count: usize) {
    let mut grpc = Grpc::connect(agent.port()).await;
    for number in 0..count {
        let message = padded(&format!("{name}-{number}"), REQUEST);
        eventually_answers("the request is taken", async || {
            let answer = grpc.call(client::TRACES, &message).await.unwrap();
            assert!([0, UNAVAILABLE].contains(&answer.status), "{answer:?}");
            answer.status == 0
        })
        .await;
    }
}

fn compressed(directory: &Directory) -> Vec<PathBuf> {
    directory.files(".v2")
}

#[tokio::test]
async fn queue_takes_more_than_its_size_because_what_waits_is_compressed() {
    let directory = Directory::new();
    let sink = away().await;
    let agent = queue(sink.address, &directory.0).start();
    // Three times what fits as it is; it ends only because there is ever more room.
    let count = 3 * CAPACITY / REQUEST;
    send(&agent, "span", count).await;
    let size = agent.metric("otelcol_exporter_queue_size", "traces");
    assert!(size <= CAPACITY as u64, "{size}");
    assert!(!compressed(&directory).is_empty());
    assert_eq!(agent.books("spans"), 0);
    drop(agent);
    // Another process sends all of it, oldest first.
    let sink = Sink::grpc().await;
    let agent = queue(sink.address, &directory.0).start();
    arrived(&sink, count).await;
    assert_eq!(sink.spans(), names("span", count));
    assert_eq!(
        agent.metric("otelagent_recovered_spans_total", ""),
        count as u64
    );
    balanced(&agent).await;
    eventually("nothing is left on disk", || {
        directory.segments().is_empty()
    })
    .await;
    assert_eq!(agent.metric("otelcol_exporter_queue_size", "traces"), 0);
}

#[tokio::test]
async fn same_process_delivers_what_it_has_compressed() {
    let directory = Directory::new();
    let sink = away().await;
    let agent = queue(sink.address, &directory.0).start();
    let count = 2 * CAPACITY / REQUEST;
    send(&agent, "span", count).await;
    sink.always(None);
    arrived(&sink, count).await;
    assert_eq!(sink.spans(), names("span", count));
    balanced(&agent).await;
    eventually("nothing is left on disk", || {
        directory.segments().is_empty()
    })
    .await;
    let size = || agent.metric("otelcol_exporter_queue_size", "traces");
    eventually("the queue is empty", || size() == 0).await;
}

#[tokio::test]
async fn damage_in_a_compressed_segment_costs_its_block_and_is_counted() {
    let directory = Directory::new();
    let sink = away().await;
    let agent = queue(sink.address, &directory.0).start();
    let count = 2 * CAPACITY / REQUEST;
    send(&agent, "span", count).await;
    drop(agent);
    let segment = &compressed(&directory)[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let magic = |bytes: &[u8]| bytes.windows(4).rposition(|window| window == b"OTAZ");
    let block = magic(&bytes).unwrap();
    bytes[block + 40] ^= 1;
    std::fs::write(segment, bytes).unwrap();
    let sink = Sink::grpc().await;
    let agent = queue(sink.address, &directory.0).start();
    let damaged = || agent.metric("otelagent_storage_damaged_records_total", "traces");
    eventually("the damage is found", || damaged() > 0).await;
    let lost = usize::try_from(damaged()).unwrap();
    assert!(
        lost <= 3,
        "a block has 128 KiB, and {lost} requests are lost"
    );
    arrived(&sink, count - lost).await;
    balanced(&agent).await;
    let mut expected = names("span", count);
    expected.retain(|name| sink.spans().contains(name));
    assert_eq!(sink.spans(), expected, "oldest first, and nothing twice");
}

#[tokio::test]
async fn killed_agent_loses_and_repeats_nothing_while_it_compresses() {
    let directory = Directory::new();
    let gone = away().await;
    let mut count = 0;
    for round in 0..super::rounds() {
        let agent = queue(gone.address, &directory.0).start();
        let more = 1 + fastrand::usize(..CAPACITY / REQUEST / 2);
        send(&agent, &format!("round{round}"), more).await;
        count += more;
        // Killed: nothing is flushed, nothing is closed.
        drop(agent);
    }
    let sink = Sink::grpc().await;
    let agent = queue(sink.address, &directory.0).start();
    arrived(&sink, count).await;
    balanced(&agent).await;
    let mut distinct = sink.spans();
    distinct.sort();
    distinct.dedup();
    assert_eq!((distinct.len(), sink.spans().len()), (count, count));
    assert_eq!(
        agent.metric("otelagent_storage_damaged_records_total", ""),
        0
    );
}
