//! HTTP/2 frames that are cheap to send and expensive to handle. Each flood ends its connection or slows only its
//! sender.

use std::time::Duration;

use prost::Message;

use super::{agent, assert_others_are_served, assert_unharmed};
use crate::support::client::frame as grpc_frame;
use crate::support::raw::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, Raw,
    SETTINGS, WINDOW_UPDATE, export_headers, frame, header,
};
use crate::support::telemetry::spans;

/// A debug build starts with about 9 MiB.
const QUIET_KIB: u64 = 24 * 1024;

/// Frames of most floods here.
const FLOOD: usize = 50_000;

/// Half a second for a server that stops reading.
const STALL: Duration = Duration::from_millis(500);

#[tokio::test]
async fn endless_headers_close_the_connection() {
    let (_sink, agent) = agent().await;
    let mut raw = Raw::open(agent.port(), &[]).await;
    assert!(raw.write(&frame(HEADERS, 0, 1, &export_headers())).await);
    // Each continuation adds a header to a list that is limited to 16 KiB.
    let more = frame(CONTINUATION, 0, 1, &header("x", &"y".repeat(1000)));
    for _ in 0..10_000 {
        if !raw.write(&more).await {
            break;
        }
    }
    raw.read_to_end().await;
    assert_unharmed(&agent, QUIET_KIB).await;
}

#[tokio::test]
async fn empty_continuations_close_the_connection() {
    let (_sink, agent) = agent().await;
    let mut raw = Raw::open(agent.port(), &[]).await;
    assert!(raw.write(&frame(HEADERS, 0, 1, &export_headers())).await);
    let flood = frame(CONTINUATION, 0, 1, &[]).repeat(FLOOD);
    raw.write(&flood).await;
    raw.read_to_end().await;
    assert_unharmed(&agent, QUIET_KIB).await;
}

#[tokio::test]
async fn header_that_decompresses_to_megabytes_is_refused() {
    let (_sink, agent) = agent().await;
    let mut raw = Raw::open(agent.port(), &[]).await;
    // A literal of 3,900 bytes that the table keeps, then a byte for each time it is used again.
    let mut block = export_headers();
    let mut kept = header("x", &"y".repeat(3900));
    kept[0] = 0x40;
    block.extend(kept);
    block.extend([0xbe].repeat(10_000));
    let bomb = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    assert!(raw.write(&bomb).await);
    let answer = raw.read_until(HEADERS, 1).await;
    // 431, plainly or in the code of Huffman; the list is thrown away as it grows.
    let is_refusal =
        |payload: &[u8]| contains(payload, b"431") || contains(payload, &[0x69, 0x90, 0x7f]);
    assert!(
        answer
            .as_ref()
            .is_none_or(|answer| is_refusal(&answer.payload)),
        "{:?}",
        answer.map(|answer| answer.payload)
    );
    assert_unharmed(&agent, QUIET_KIB).await;
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn rapid_resets_close_the_connection() {
    let (_sink, agent) = agent().await;
    let mut raw = Raw::open(agent.port(), &[]).await;
    let mut flood = Vec::new();
    for number in 0..10_000 {
        let stream = 2 * number + 1;
        flood.extend(frame(HEADERS, END_HEADERS, stream, &export_headers()));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    raw.write(&flood).await;
    assert!(raw.read_to_end().await, "ended with a reason");
    assert_unharmed(&agent, QUIET_KIB).await;
}

#[tokio::test]
async fn streams_that_force_server_resets_close_the_connection() {
    let (_sink, agent) = agent().await;
    let mut raw = Raw::open(agent.port(), &[]).await;
    let mut flood = Vec::new();
    for number in 0..10_000 {
        let stream = 2 * number + 1;
        flood.extend(frame(HEADERS, END_HEADERS, stream, &export_headers()));
        // An increment of 0 is an error of its stream.
        flood.extend(frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
    }
    raw.write(&flood).await;
    raw.read_to_end().await;
    assert_unharmed(&agent, QUIET_KIB).await;
}

#[tokio::test]
async fn floods_of_control_frames_affect_only_their_sender() {
    let (_sink, agent) = agent().await;
    for flood in [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
        frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
        frame(0x55, 0, 0, &[1; 16]),
    ] {
        // The answers are not read: once they fill the socket, the server must not gather them.
        let mut raw = Raw::open(agent.port(), &[]).await;
        for _ in 0..20 {
            if !raw.write_within(STALL, &flood.repeat(FLOOD / 5)).await {
                break;
            }
        }
        assert_others_are_served(&agent).await;
    }
    assert_unharmed(&agent, QUIET_KIB).await;
}

#[tokio::test]
async fn unexpected_frames_do_not_fill_the_log() {
    let (_sink, agent) = agent().await;
    let lines = agent.lines();
    let mut raw = Raw::open(agent.port(), &[]).await;
    raw.write(&frame(PING, ACK, 0, &[7; 8]).repeat(FLOOD)).await;
    raw.write(&frame(PING, 0, 0, b"all read")).await;
    assert!(raw.read_until(PING, 0).await.is_some());
    assert_unharmed(&agent, QUIET_KIB).await;
    assert_eq!(agent.lines(), lines);
}

#[tokio::test]
async fn empty_data_frames_close_the_connection() {
    let (_sink, agent) = agent().await;
    let mut raw = Raw::open(agent.port(), &[]).await;
    let headers = frame(HEADERS, END_HEADERS, 1, &export_headers());
    assert!(raw.write(&headers).await);
    raw.write(&frame(DATA, 0, 1, &[]).repeat(FLOOD)).await;
    assert!(raw.read_to_end().await, "ended with a reason");
    assert_unharmed(&agent, QUIET_KIB).await;
}

#[tokio::test]
async fn padding_does_not_count_as_data() {
    let (_sink, agent) = agent().await;
    let mut raw = Raw::open(agent.port(), &[]).await;
    let headers = frame(HEADERS, END_HEADERS, 1, &export_headers());
    assert!(raw.write(&headers).await);
    let mut padded = vec![255];
    padded.extend([0; 255]);
    raw.write(&frame(DATA, 8, 1, &padded).repeat(FLOOD)).await;
    raw.write(&frame(PING, 0, 0, b"all read")).await;
    let _ = raw.read_until(PING, 0).await;
    assert_unharmed(&agent, QUIET_KIB).await;
}

#[tokio::test]
async fn unread_answers_block_only_their_connection() {
    let (_sink, agent) = agent().await;
    let message = spans("span", 1).encode_to_vec();
    // A window of 0: no answer's message may be sent.
    let mut raw = Raw::open(agent.port(), &[(4, 0)]).await;
    for number in 0..5000_u32 {
        let stream = 2 * number + 1;
        let mut call = frame(HEADERS, END_HEADERS, stream, &export_headers());
        call.extend(frame(DATA, END_STREAM, stream, &grpc_frame(0, &message)));
        if !raw.write_within(STALL, &call).await {
            break;
        }
    }
    assert_unharmed(&agent, QUIET_KIB).await;
}

#[tokio::test]
async fn oversized_window_ends_the_connection() {
    let (_sink, agent) = agent().await;
    let mut raw = Raw::open(agent.port(), &[]).await;
    let headers = frame(HEADERS, END_HEADERS, 1, &export_headers());
    assert!(raw.write(&headers).await);
    // More than the stream's window, without waiting for an update: flow control is enforced.
    let mut data = grpc_frame(0, &[]);
    data[1..5].copy_from_slice(&3_000_000_u32.to_be_bytes());
    data.resize(16 * 1024, 0);
    for _ in 0..10_000 {
        if !raw.write(&frame(DATA, 0, 1, &data)).await {
            break;
        }
    }
    assert!(raw.read_to_end().await, "ended with a reason");
    assert_unharmed(&agent, QUIET_KIB).await;
}
