//! The bytes of one connection, in either version of HTTP.

use std::time::Duration;

use otelagent_agent::offline::Offline;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// Largest request, and all memory.
const REQUEST: usize = 64 * 1024;
const MEMORY: usize = 16 * 1024 * 1024;

/// A connection with nothing more to come has ended by then: 30 s for a body, twice; 5 min of idling.
const END: Duration = Duration::from_mins(10);

/// The first byte says in how many pieces the rest arrives, and whether the client goes away at its end.
/// The connection ends by itself; what remains in memory is what was acknowledged; answers are HTTP.
pub fn connection(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else {
        return;
    };
    // A clock that runs ahead whenever everybody waits.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let offline = Offline::new(REQUEST, MEMORY);
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let started = Instant::now();
        let talk = async {
            let piece = bytes.len().div_ceil(usize::from(how & 0x7f) + 1).max(1);
            let mut answers = Vec::new();
            for piece in bytes.chunks(piece) {
                if client.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            if how & 0x80 != 0 {
                let _ = client.shutdown().await;
            }
            let _ = client.read_to_end(&mut answers).await;
            answers
        };
        let both = async { tokio::join!(talk, offline.serve(server)) };
        let (answers, ()) = timeout(END, both).await.expect("the connection ends");
        assert!(started.elapsed() < END);
        let http2 = answers.get(3..5).is_none_or(|kind| kind == [4, 0]);
        assert!(answers.is_empty() || answers.starts_with(b"HTTP/1.") || http2);
        // Requests that were refused may still be thrown away for some seconds.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(
            offline.held(),
            offline.accepted_bytes(),
            "memory that nobody has"
        );
        let (accepted, kept) = offline.items();
        assert_eq!(accepted, kept);
    });
}
