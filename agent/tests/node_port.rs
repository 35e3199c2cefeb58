//! An agent whose pod claims a port of its node.

use std::net::SocketAddr;
use std::process::{Command, Output};

use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::agent::{Setup, get, temporary};
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::sink::Sink;
use crate::support::telemetry::spans;

/// An address of this host at which nothing else listens.
const NODE: &str = "127.77.0.1";

fn ready(health: SocketAddr) -> Output {
    let mut command = Command::new(crate::program());
    command.args(["ready", &health.to_string()]);
    command.output().unwrap()
}

/// What a network plugin makes of a port of the node: every connection goes on to this address.
async fn map(port: SocketAddr, to: SocketAddr) -> JoinHandle<()> {
    let listener = TcpListener::bind(port).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    })
}

#[tokio::test]
async fn agent_is_ready_once_its_nodes_port_leads_to_it() {
    let sink = Sink::grpc().await;
    let stranger = Setup::grpc(sink.address).start();
    let free = TcpListener::bind((NODE, 0)).await.unwrap();
    let port = free.local_addr().unwrap();
    drop(free);
    let agent = Setup::grpc(sink.address)
        .env("OTELAGENT_HOST_IP", NODE)
        .env("OTELAGENT_NODE_PORT", &port.port().to_string())
        .start();
    let problem = format!("{port} refuses connections");
    eventually("the problem is told", || {
        let (status, body) = get(agent.health, "/ready");
        status == 503 && body.contains(&problem)
    })
    .await;
    let asked = ready(agent.health);
    assert!(!asked.status.success());
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(said.starts_with(&problem), "{said}");
    assert!(said.trim_end().ends_with("map host ports?"), "{said}");

    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);

    let elsewhere = map(port, stranger.port()).await;
    let problem = format!("{port} leads to another program");
    eventually("the stranger is told", || {
        let (status, body) = get(agent.health, "/ready");
        status == 503 && body.contains(&problem)
    })
    .await;
    elsewhere.abort();
    let _ = elsewhere.await;

    let _mapped = map(port, agent.port()).await;
    eventually("it is ready", || get(agent.health, "/ready").0 == 200).await;
    let asked = ready(agent.health);
    assert!(asked.status.success(), "{asked:?}");
}

#[test]
fn impossible_node_port_fails_the_start_with_what_is_wrong() {
    let file = temporary("config.yaml");
    let yaml = Setup::grpc("127.0.0.1:1".parse().unwrap()).yaml();
    std::fs::write(&file, yaml).unwrap();
    let starts = |host: &str, port: &str| {
        let mut command = Command::new(crate::program());
        command.arg("--config").arg(&file);
        command.env("OTELAGENT_HOST_IP", host);
        command.env("OTELAGENT_NODE_PORT", port);
        let ended = command.output().unwrap();
        (
            ended.status.code(),
            String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
        )
    };
    let (code, said) = starts(NODE, "0");
    assert_eq!(code, Some(2));
    assert_eq!(said, "OTELAGENT_NODE_PORT: `0` is not a port number");
    let (code, said) = starts("node-1", "4317");
    assert_eq!(code, Some(2));
    assert!(said.ends_with("OTELAGENT_HOST_IP, not `node-1`"), "{said}");
    std::fs::remove_file(file).unwrap();
}
