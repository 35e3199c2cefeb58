//! Unfinished TLS handshakes, and clients that never begin one.

use crate::support::agent::Setup;
use crate::support::eventually;
use crate::support::pki::{Authority, Files};
use crate::support::raw::Raw;
use crate::support::sink::Sink;
use crate::tls::{accepted, pair, receiver};

use super::assert_grown_by_its_share;
use super::connections::affordable;

/// A record that holds the beginning of a `ClientHello` of 16,380 bytes (RFC 8446, sections 4 and 5.1),
/// of which so many come.
fn begun(bytes: usize) -> Vec<u8> {
    let mut record = vec![22, 3, 1, 0x3f, 0, 1, 0, 0x3f, 0xfc, 3, 3];
    record.resize(bytes, 0);
    record
}

#[tokio::test]
async fn thousands_of_unfinished_handshakes_stay_within_their_share() {
    let (authority, files) = (Authority::new(), Files::new());
    let pair = pair(&files, &authority.local());
    let sink = Sink::grpc().await;
    let (most, _files) = affordable(6000).await;
    for (words, many) in [
        (vec![], most),
        (begun(11), most / 2),
        (begun(15_000), most / 2),
    ] {
        println!("{} bytes said on each of {many}", words.len());
        let agent = Setup::grpc(sink.address)
            .receiver(&receiver(&pair, ""))
            .start();
        assert!(accepted(&agent, &authority, None).await);
        let before = agent.rss();
        let mut held = Vec::new();
        for _ in 0..many {
            let mut raw = Raw::connect(agent.port()).await;
            let _ = raw.write(&words).await;
            held.push(raw);
        }
        let come = || agent.metric("otelagent_connections_total", "");
        eventually("all have come", || come() > many as u64).await;
        assert!(accepted(&agent, &authority, None).await);
        assert_grown_by_its_share(&agent, before, 8);
    }
}
