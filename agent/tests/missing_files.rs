//! Files that an exporter needs and that are not there when the agent starts, as of a Secret that comes later.

use std::path::Path;
use std::process::Command;

use prost::Message;

use crate::support::agent::{Agent, Setup, get};
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::pki::{Ca, Files};
use crate::support::sink::{Sink, Speaks};
use crate::support::telemetry::spans;

/// The agent acknowledges a span and keeps it; `/delivery` names the missing file.
async fn keeps_and_names(agent: &Agent, file: &Path) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("early", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    let file = file.to_str().unwrap();
    eventually("delivery names the file", || {
        get(agent.health, "/delivery").1.contains(file)
    })
    .await;
    assert_eq!(get(agent.health, "/").0, 200, "it is ready");
    let attempts = "otelagent_exporter_failed_attempts_total";
    assert!(agent.metric(attempts, "reason=\"file\"") > 0);
}

#[tokio::test]
async fn header_that_is_missing_at_the_start_is_used_when_it_comes() {
    let files = Files::new();
    let token = files.write("token", "");
    std::fs::remove_file(&token).unwrap();
    let sink = Sink::at("127.0.0.1:0".parse().unwrap(), Speaks::Grpc).await;
    let agent = Setup::to_with_timeout("otlp_grpc", sink.address, "5s")
        .exporter(&format!(
            "headers: {{authorization: 'Bearer ${{file:{token}}}'}}"
        ))
        .start();
    keeps_and_names(&agent, Path::new(&token)).await;
    assert!(sink.received().is_empty(), "nothing leaves without it");

    files.write("token", "secret\n");
    eventually("the span arrives", || !sink.received().is_empty()).await;
    assert_eq!(sink.received()[0].headers["authorization"], "Bearer secret");
}

#[tokio::test]
async fn ca_that_is_missing_at_the_start_is_used_when_it_comes() {
    let ca = Ca::new();
    let files = Files::new();
    let path = files.write("ca.pem", "");
    std::fs::remove_file(&path).unwrap();
    for (kind, speaks) in [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)] {
        let sink = Sink::secure(speaks, ca.local().acceptor(&["h2", "http/1.1"], None)).await;
        let agent = Setup::secure(kind, sink.address, &format!("ca_file: '{path}'")).start();
        keeps_and_names(&agent, Path::new(&path)).await;
        files.write("ca.pem", &ca.pem());
        eventually("the span arrives", || !sink.received().is_empty()).await;
        std::fs::remove_file(&path).unwrap();
    }
}

/// An endpoint, say, is nothing that could come later.
#[test]
fn agent_does_not_start_when_another_setting_has_no_file() {
    let files = Files::new();
    let setup = Setup::grpc("127.0.0.1:1".parse().unwrap())
        .exporter("compression: '${file:/nowhere}', headers: {a: '${file:/elsewhere}'}");
    let config = files.write("config.yaml", &setup.yaml());
    let mut agent = Command::new(crate::program());
    let output = agent.args(["--config", &config]).output().unwrap();
    assert!(!output.status.success());
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("cannot read /nowhere"), "{log}");
}
