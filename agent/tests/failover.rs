//! Several endpoints: the first that works is used, and an earlier one again once it works.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use prost::Message;
use tokio::net::{TcpListener, TcpSocket};

use crate::support::agent::{Agent, Setup, get};
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink, Speaks};
use crate::support::telemetry::spans;

const KINDS: [(&str, Speaks); 2] = [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)];
const LEAVES: &str = "an endpoint fails; another is in use";
const RETURNS: &str = "an earlier endpoint is in use again";

async fn sink(speaks: Speaks) -> Sink {
    Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await
}

fn to(kind: &str, endpoints: &[SocketAddr]) -> Setup {
    let others: Vec<_> = endpoints[1..]
        .iter()
        .map(|address| format!("'http://{address}'"))
        .collect();
    Setup::to_with_timeout(kind, endpoints[0], "5s")
        .exporter(&format!(
            "failover: {{endpoints: [{}], retry_interval: 1s}}",
            others.join(", ")
        ))
        .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
}

async fn send(agent: &Agent, name: &str) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans(name, 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
}

fn lost_nothing(agent: &Agent) {
    assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 0);
    assert_eq!(agent.books("spans"), 0);
}

#[tokio::test]
async fn first_endpoint_that_works_is_used_and_the_first_again_later() {
    for (kind, speaks) in KINDS {
        // Bound, so that nobody else gets the port; who connects is refused.
        let port = TcpSocket::new_v4().unwrap();
        port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let gone = port.local_addr().unwrap();
        let (second, third) = (sink(speaks).await, sink(speaks).await);
        let agent = to(kind, &[gone, second.address, third.address]).start();
        for number in 1..=5 {
            send(&agent, "span").await;
            eventually("it arrives", || second.spans().len() == number).await;
        }
        assert!(third.received().is_empty());
        let lines = agent.until_logged(LEAVES).await;
        assert_eq!(lines[0]["upstream"], second.address.to_string());
        let index = "otelagent_exporter_endpoint_index";
        assert_eq!(agent.metric(index, ""), 1);
        let health = get(agent.health, "/delivery").1;
        assert!(
            health.contains(&format!("\"endpoint\":\"{}\"", second.address)),
            "{health}"
        );
        let first = Sink::on(port.listen(128).unwrap(), speaks, None);
        let mut sent = 5;
        while first.spans().is_empty() {
            assert!(sent < 600, "the first is never tried again");
            send(&agent, "span").await;
            sent += 1;
            // Only an attempt tries the first again, so there is a load until one has done so.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        agent.until_logged(RETURNS).await;
        eventually("all arrive", || {
            first.spans().len() + second.spans().len() == sent
        })
        .await;
        assert_eq!(agent.metric(index, ""), 0);
        lost_nothing(&agent);
    }
}

#[tokio::test]
async fn endpoint_that_refuses_the_agent_or_stays_busy_is_left() {
    for (kind, speaks) in KINDS {
        let replies = match speaks {
            Speaks::Grpc => [Reply::Says(16, "who are you"), Reply::Says(14, "later")],
            Speaks::Http => [Reply::Http(401, Vec::new()), Reply::Http(503, Vec::new())],
        };
        for reply in replies {
            let (first, second) = (sink(speaks).await, sink(speaks).await);
            first.always(Some(reply));
            let agent = to(kind, &[first.address, second.address]).start();
            send(&agent, "span").await;
            eventually("it arrives", || second.spans().len() == 1).await;
            lost_nothing(&agent);
        }
    }
}

#[tokio::test]
async fn bad_data_is_lost_where_it_is_refused() {
    for (kind, speaks) in KINDS {
        let (first, second) = (sink(speaks).await, sink(speaks).await);
        first.always(Some(match speaks {
            Speaks::Grpc => Reply::Says(3, "bad"),
            Speaks::Http => Reply::Http(400, Vec::new()),
        }));
        let agent = to(kind, &[first.address, second.address]).start();
        send(&agent, "span").await;
        eventually("it is lost", || {
            agent.metric("otelagent_lost_spans_total", "reason=\"permanent\"") == 1
        })
        .await;
        assert!(second.received().is_empty());
    }
}

#[tokio::test]
async fn nothing_is_lost_while_endpoints_come_and_go() {
    for (kind, speaks) in KINDS {
        let (mut first, second) = (Some(sink(speaks).await), sink(speaks).await);
        let address = first.as_ref().unwrap().address;
        let agent = to(kind, &[address, second.address]).start();
        let mut arrived = HashSet::new();
        let mut sent = HashSet::new();
        for round in 0..6 {
            for number in 0..20 {
                let name = format!("{round}-{number}");
                send(&agent, &name).await;
                sent.insert(format!("{name}-0"));
                // The pace of a load that goes on while an endpoint comes or goes.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if let Some(mut sink) = first.take() {
                sink.halt().await;
                arrived.extend(sink.spans());
            } else {
                // A connection of somebody else may have the port for a moment.
                let listener = loop {
                    match TcpListener::bind(address).await {
                        Ok(listener) => break listener,
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                };
                first = Some(Sink::on(listener, speaks, None));
            }
        }
        eventually("all arrive", || {
            let mut all = arrived.clone();
            all.extend(second.spans());
            all.extend(first.iter().flat_map(Sink::spans));
            all.is_superset(&sent)
        })
        .await;
        lost_nothing(&agent);
    }
}
