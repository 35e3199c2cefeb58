//! Connections with vanished or stuck clients: they end and free their memory. The clock of these tests runs
//! ahead whenever every task waits.

use std::time::Duration;

use otelagent_agent::offline::Offline;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::support::client;
use crate::support::raw::{
    DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, export_headers, frame,
};
use crate::support::telemetry::spans;

const MIB: usize = 1024 * 1024;

/// The lifetime of a connection whose client sends this, and then neither sends, reads nor closes.
async fn lasts(sent: &[u8], room: usize) -> Duration {
    let offline = Offline::new(MIB, 16 * MIB);
    let (mut client, server) = tokio::io::duplex(room);
    let started = Instant::now();
    let talk = async {
        // Where the server reads no more, neither is anything sent.
        let _ = timeout(Duration::from_secs(1), client.write_all(sent)).await;
        std::future::pending::<()>().await;
    };
    let ended = async {
        tokio::select! {
            () = offline.serve(server) => {}
            () = talk => {}
        }
    };
    timeout(Duration::from_hours(1), ended).await.unwrap();
    let lasted = started.elapsed();
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(
        offline.held(),
        offline.accepted_bytes(),
        "memory that no connection holds"
    );
    lasted
}

fn http2(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frames.concat());
    bytes
}

fn call(stream: u32) -> Vec<u8> {
    let message = client::frame(0, &spans("span", 1).encode_to_vec());
    let mut call = frame(HEADERS, END_HEADERS, stream, &export_headers());
    call.extend(frame(DATA, END_STREAM, stream, &message));
    call
}

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn vanished_peer_is_noticed_within_two_minutes() {
    let begun = frame(HEADERS, END_HEADERS, 1, &export_headers());
    for sent in [http2(&[]), http2(&[call(1)]), http2(&[call(1), begun])] {
        let lasted = lasts(&sent, MIB).await;
        assert!(lasted < 2 * MINUTE, "{lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn http_1_connection_ends_only_when_idle() {
    let request = b"POST /v1/traces HTTP/1.1\r\nhost: a\r\n\
        content-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    let lasted = lasts(request, MIB).await;
    assert!(lasted > 4 * MINUTE && lasted < 6 * MINUTE, "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn unread_answers_do_not_keep_a_connection() {
    let request = b"POST /v1/traces HTTP/1.1\r\nhost: a\r\n\
        content-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    let lasted = lasts(&request.repeat(1000), 256).await;
    assert!(lasted < 6 * MINUTE, "{lasted:?}");
    let calls: Vec<_> = (0..300).map(|number| call(2 * number + 1)).collect();
    let lasted = lasts(&http2(&calls), 256).await;
    assert!(lasted < 6 * MINUTE, "{lasted:?}");
}
