//! Unix sockets: the same service as on ports, and their files.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Command;

use prost::Message;
use tokio::net::UnixStream;

use crate::support::agent::Setup;
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::pki::Files;
use crate::support::sink::Sink;
use crate::support::telemetry::spans;

fn on(path: &str) -> String {
    format!("grpc: {{transport: unix, endpoint: '{path}'}}, http: {{endpoint: '127.0.0.1:0'}}")
}

#[tokio::test]
async fn unix_socket_serves_both_protocols_and_removes_its_file() {
    let sink = Sink::grpc().await;
    let files = Files::new();
    let path = files.path("otlp.sock");
    let agent = Setup::grpc(sink.address).receiver(&on(&path)).start();
    let found = std::fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o666);
    let message = spans("grpc", 3).encode_to_vec();
    let mut grpc = Grpc::over(UnixStream::connect(&path).await.unwrap())
        .await
        .unwrap();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    let mut http = Http::over(UnixStream::connect(&path).await.unwrap());
    let message = spans("http", 2).encode_to_vec();
    let answer = http.post("/v1/traces", &[], &message).await.unwrap();
    assert_eq!(answer.status, 200);
    eventually("both arrive", || sink.spans().len() == 5).await;
    agent.terminate();
    // An open connection still gets its answer, or is closed, but the agent does not wait for it.
    let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    assert!(!std::fs::exists(&path).unwrap());
}

#[tokio::test]
async fn stale_socket_is_replaced_and_a_successors_kept() {
    let sink = Sink::grpc().await;
    let files = Files::new();
    let path = files.path("otlp.sock");
    let setup = Setup::grpc(sink.address).receiver(&on(&path));
    let killed = setup.start();
    drop(killed);
    assert!(
        std::fs::exists(&path).unwrap(),
        "a killed agent cannot tidy"
    );
    let old = setup.start();
    let new = setup.start();
    old.terminate();
    let (code, _) = tokio::task::spawn_blocking(|| old.wait()).await.unwrap();
    assert_eq!(code, 0);
    let mut grpc = Grpc::over(UnixStream::connect(&path).await.unwrap())
        .await
        .unwrap();
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    assert_eq!(new.metric("otelcol_receiver_accepted_spans_total", ""), 1);
}

#[tokio::test]
async fn file_that_is_not_a_socket_is_never_removed() {
    let files = Files::new();
    let path = files.write("precious", "data");
    let config = files.write(
        "config.yaml",
        &Setup::grpc("127.0.0.1:1".parse().unwrap())
            .receiver(&on(&path))
            .yaml(),
    );
    let output = Command::new(crate::program())
        .args(["--config", &config])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains("a file that is not a socket is in the way") && log.contains("unix_socket"),
        "{log}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}
