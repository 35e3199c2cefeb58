//! `otelagent-agent wait`: ends when an agent takes telemetry, and well in any case.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::agent::Setup;
use crate::support::eventually;
use crate::support::sink::{Reply, Sink};

/// Longer than any test.
const LONG: &str = "10m";

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(crate::program());
    command.arg("wait").args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// What it says; it never fails, and writes one line.
fn said(ended: &Output) -> String {
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout, b"");
    let said = String::from_utf8(ended.stderr.clone()).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// Waits for the end without keeping the test's own servers from answering.
async fn end(child: Child) -> String {
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    said(&ended.await.unwrap())
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// An address of this host at which nothing listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn wait_ends_at_once_where_an_agent_takes_telemetry_and_sends_nothing_on() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    for port in &agent.ports {
        let said = end(start(&[LONG, &url(*port)])).await;
        assert!(said.starts_with("an agent takes telemetry at"), "{said}");
    }
    agent.terminate();
    assert_eq!(agent.wait().0, 0);
    assert_eq!(sink.received().len(), 0);
}

#[tokio::test]
async fn wait_lasts_until_the_agent_is_there() {
    let sink = Sink::grpc().await;
    let port = nobody();
    let mut waiting = start(&[LONG, &url(port)]);
    let receiver = format!("grpc: {{endpoint: '{port}'}}");
    assert!(waiting.try_wait().unwrap().is_none(), "it waits for nobody");
    let _agent = Setup::grpc(sink.address).receiver(&receiver).start();
    let said = end(waiting).await;
    assert!(said.contains(&port.to_string()), "{said}");
}

#[tokio::test]
async fn wait_does_not_take_a_refusal_for_an_agent_that_is_ready() {
    let sink = Sink::grpc().await;
    sink.script([
        Reply::Says(14, "not yet"),
        Reply::Http(503, Vec::new()),
        Reply::Grpc(12, None),
    ]);
    let said = end(start(&[LONG, &url(sink.address)])).await;
    assert!(said.starts_with("an agent takes telemetry at"), "{said}");
    assert_eq!(sink.received().len(), 4);
    let asked = sink.received().pop().unwrap();
    assert_eq!(asked.message, b"");
}

#[tokio::test]
async fn wait_ends_well_after_its_time_and_says_why_it_was_in_vain() {
    let refusing = Sink::grpc().await;
    refusing.always(Some(Reply::Says(14, "no room")));
    let stranger = Sink::http().await;
    // Takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (address, why) in [
        (nobody().to_string(), "connecting: Connection refused"),
        (refusing.address.to_string(), "gRPC status 14: no room"),
        (stranger.address.to_string(), "no answer by HTTP/2"),
        (silent.local_addr().unwrap().to_string(), ""),
        ("name.invalid:4317".to_owned(), ""),
    ] {
        let begin = Instant::now();
        let said = end(start(&["1s", &format!("http://{address}")])).await;
        assert!(begin.elapsed() >= Duration::from_secs(1), "{said}");
        let expected =
            format!("no agent takes telemetry at {address} within 1s; going on without one: {why}");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn wait_that_cannot_be_meant_ends_well_at_once_and_says_what_is_wrong() {
    for (args, wrong) in [
        (&[][..], "it takes a duration and a URL"),
        (&["--help"][..], "it takes a duration and a URL"),
        (
            &["soon", "http://127.0.0.1:4317"][..],
            "`soon` is not a duration",
        ),
        (
            &["10m", "grpc://127.0.0.1:4317"][..],
            "does not begin with http://",
        ),
        (
            &["10m", "http://$(OTELAGENT_HOST_IP):port"][..],
            "is not a port",
        ),
    ] {
        let said = said(&start(args).wait_with_output().unwrap());
        assert!(said.starts_with("not waiting for an agent: "), "{said}");
        assert!(said.contains(wrong), "{said}");
    }
}

#[tokio::test]
async fn wait_ends_on_a_signal() {
    let refusing = Sink::grpc().await;
    refusing.always(Some(Reply::Says(14, "no")));
    let waiting = start(&[LONG, &url(refusing.address)]);
    // By now it handles signals.
    eventually("it has asked", || !refusing.received().is_empty()).await;
    let pid = waiting.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    assert!(end(waiting).await.starts_with("ended by a signal"));
}
