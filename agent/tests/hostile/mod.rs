//! Hostile clients: memory stays bounded, others are served, and nothing ends the agent or fills its log.

mod connections;
mod frames;
mod handshakes;
mod requests;

use std::time::Duration;

use prost::Message;
use tokio::time::{sleep, timeout};

use crate::support::PATIENCE;
use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc, Http};
use crate::support::sink::{Reply, Sink};
use crate::support::telemetry::spans;

/// The memory limit of most agents here, and what may come on top of it: a tenth, and the buffers of
/// connections that tests of a debug build need.
const LIMIT_MIB: u64 = 64;

async fn agent() -> (Sink, Agent) {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    (sink, agent)
}

/// The same with an upstream that takes everything and never answers, so that all of it is kept.
async fn agent_that_keeps_all() -> (Sink, Agent) {
    let (sink, agent) = agent().await;
    sink.always(Some(Reply::Silence));
    (sink, agent)
}

/// New clients of both protocols are served while the attack goes on. They do what SDKs do: try again
/// when their connection is closed or they are asked to come back.
async fn assert_others_are_served(agent: &Agent) {
    let message = spans("honest", 1).encode_to_vec();
    let served = timeout(PATIENCE, async {
        while grpc_status(agent, &message).await != Some(0) {
            sleep(Duration::from_millis(50)).await;
        }
        while http_status(agent, &message).await != Some(200) {
            sleep(Duration::from_millis(50)).await;
        }
    });
    served.await.unwrap();
}

async fn grpc_status(agent: &Agent, message: &[u8]) -> Option<u32> {
    let mut grpc = Grpc::try_connect(agent.port()).await?;
    Some(grpc.call(client::TRACES, message).await.ok()?.status)
}

async fn http_status(agent: &Agent, message: &[u8]) -> Option<u16> {
    let mut http = Http::try_connect(agent.port()).await?;
    Some(http.post("/v1/traces", &[], message).await?.status)
}

/// The agent is the one that was started, has its books in order, and never used more than this.
async fn assert_unharmed(agent: &Agent, most_kib: u64) {
    assert_others_are_served(agent).await;
    assert_eq!(agent.books("spans"), 0);
    let peak = agent.peak();
    assert!(
        peak < most_kib,
        "{peak} KiB at the peak, {most_kib} allowed"
    );
}

/// Since `before`, bytes of resident memory, the agent has grown by no more than the share of
/// connections, a quarter of the limit, and `besides`, in MiB.
fn assert_grown_by_its_share(agent: &Agent, before: u64, besides: u64) {
    let grown = agent.rss().saturating_sub(before) / 1024;
    assert!(
        grown < (LIMIT_MIB / 4 + besides) * 1024,
        "grew by {grown} KiB"
    );
}
