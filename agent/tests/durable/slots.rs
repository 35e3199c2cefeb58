//! Several agents on one directory, one after the other or side by side.

use super::{Directory, arrived, away, balanced, kept, names, send};
use crate::support::eventually;
use crate::support::sink::Sink;

#[tokio::test]
async fn slots_of_dead_processes_are_adopted_at_the_start() {
    let directory = Directory::new();
    let gone = away().await;
    let first = kept(gone.address, &directory.0).start();
    let second = kept(gone.address, &directory.0).start();
    send(&first, "first", 10).await;
    send(&second, "second", 10).await;
    drop((first, second));
    assert_eq!(directory.segments().len(), 2);
    let sink = Sink::grpc().await;
    let agent = kept(sink.address, &directory.0).start();
    arrived(&sink, 20).await;
    let mut arrived = sink.spans();
    arrived.sort();
    let mut expected = [names("first", 10), names("second", 10)].concat();
    expected.sort();
    assert_eq!(arrived, expected);
    assert_eq!(agent.metric("otelagent_recovered_spans_total", ""), 20);
    balanced(&agent).await;
    eventually("nothing is left on disk", || {
        directory.segments().is_empty()
    })
    .await;
}

#[tokio::test]
async fn slot_of_a_dying_neighbour_is_adopted() {
    let directory = Directory::new();
    let gone = away().await;
    let sink = Sink::grpc().await;
    let dying = kept(gone.address, &directory.0).start();
    let living = kept(sink.address, &directory.0).start();
    send(&dying, "span", 10).await;
    // No process touches what a living process holds.
    send(&living, "own", 1).await;
    arrived(&sink, 1).await;
    assert_eq!(sink.spans(), names("own", 1));
    drop(dying);
    arrived(&sink, 11).await;
    assert_eq!(sink.spans()[1..], names("span", 10));
    balanced(&living).await;
}

#[tokio::test]
async fn adoption_waits_for_room_in_the_queue() {
    let directory = Directory::new();
    let gone = away().await;
    let first = kept(gone.address, &directory.0).start();
    let second = kept(gone.address, &directory.0).start();
    send(&first, "first", 30).await;
    send(&second, "second", 30).await;
    drop((first, second));
    let sink = away().await;
    let agent = kept(sink.address, &directory.0)
        .sending_queue("queue_size: 7000, sizer: bytes")
        .start();
    eventually("it has begun", || {
        !agent
            .logged("adopting records of another process on disk")
            .is_empty()
    })
    .await;
    assert!(directory.segments().len() >= 2);
    let size = agent.metric("otelcol_exporter_queue_size", "traces");
    assert!(size <= 7000, "{size}");
    sink.always(None);
    arrived(&sink, 60).await;
    balanced(&agent).await;
    let mut arrived = sink.spans();
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived.len(), 60);
}
