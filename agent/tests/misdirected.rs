//! Endpoints of another protocol or scheme: the agent says which setting to change, and loses nothing.

use std::net::SocketAddr;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::agent::{Agent, Setup, get};
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::pki::{Ca, Files};
use crate::support::sink::{Reply, Sink, Speaks};
use crate::support::telemetry::spans;

const REFUSED: &str = "the upstream refuses this agent: check endpoint, protocol and credentials";
const HTTP1: &str = "answers in HTTP/1.1: use the exporter otlp_http, or the port of OTLP/gRPC";
const HTTP2: &str = "speaks only HTTP/2: use the exporter otlp_grpc, or the port of OTLP/HTTP";
const TLS: &str = "speaks TLS: write https:// in the endpoint";
const NO_TLS: &str = "does not speak TLS: write http:// in the endpoint, or tls.insecure: true";

/// The log, `/delivery` and the metrics name `advice`, and what was sent waits.
async fn advises(setup: Setup, advice: &str, reason: &str) {
    let agent = setup.start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    let lines = agent.until_logged(REFUSED).await;
    let why = lines[0]["why"].as_str().unwrap();
    assert!(why.contains(advice), "{why}");
    let delivery = get(agent.health, "/delivery?seconds=0").1;
    assert!(delivery.contains(advice), "{delivery}");
    let failed = "otelagent_exporter_failed_attempts_total";
    let label = format!("reason=\"{reason}\"");
    assert!(agent.metric(failed, &label) > 0, "{reason}");
    assert_eq!(waiting(&agent), 1);
}

fn waiting(agent: &Agent) -> u64 {
    assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 0);
    assert_eq!(agent.books("spans"), 0);
    agent.metric("otelagent_queue_spans", "")
}

fn plain(kind: &str, upstream: SocketAddr) -> Setup {
    Setup::to_with_timeout(kind, upstream, "5s")
}

#[tokio::test]
async fn grpc_to_a_port_of_http_1_is_told_so() {
    let sink = Sink::http().await;
    advises(plain("otlp_grpc", sink.address), HTTP1, "wrong_protocol").await;
    assert!(sink.spans().is_empty());
}

#[tokio::test]
async fn http_to_a_port_of_grpc_is_told_so() {
    let sink = Sink::grpc().await;
    advises(plain("otlp_http", sink.address), HTTP2, "wrong_protocol").await;
    assert!(sink.spans().is_empty());
}

#[tokio::test]
async fn other_protocol_behind_tls_is_told_so() {
    let ca = Ca::new();
    let files = Files::new();
    let tls = format!("ca_file: '{}'", files.write("ca.pem", &ca.pem()));
    for (kind, speaks, protocol, advice) in [
        ("otlp_grpc", Speaks::Http, "http/1.1", HTTP1),
        ("otlp_http", Speaks::Grpc, "h2", HTTP2),
    ] {
        // With a protocol of its own in the handshake, or none.
        for protocols in [&[protocol][..], &[]] {
            let sink = Sink::secure(speaks, ca.local().acceptor(protocols, None)).await;
            let setup = Setup::secure(kind, sink.address, &tls);
            advises(setup, advice, "wrong_protocol").await;
            assert!(sink.spans().is_empty());
        }
    }
}

#[tokio::test]
async fn plaintext_to_a_port_of_tls_is_told_so() {
    let ca = Ca::new();
    for (kind, speaks) in [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)] {
        let acceptor = ca.local().acceptor(&["h2", "http/1.1"], None);
        let sink = Sink::secure(speaks, acceptor).await;
        advises(plain(kind, sink.address), TLS, "wrong_scheme").await;
        assert!(sink.spans().is_empty());
    }
}

#[tokio::test]
async fn tls_to_a_port_without_it_is_told_so() {
    let ca = Ca::new();
    let files = Files::new();
    let tls = format!("ca_file: '{}'", files.write("ca.pem", &ca.pem()));
    for kind in ["otlp_grpc", "otlp_http"] {
        for speaks in [Speaks::Grpc, Speaks::Http] {
            let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
            let setup = Setup::secure(kind, sink.address, &tls);
            advises(setup, NO_TLS, "wrong_scheme").await;
            assert!(sink.spans().is_empty());
        }
    }
}

#[tokio::test]
async fn server_that_wants_https_in_words_loses_nothing() {
    // Go's HTTP server, word for word.
    const ANSWER: &[u8] =
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(ANSWER).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    advises(plain("otlp_http", address), TLS, "wrong_scheme").await;
}

#[tokio::test]
async fn nginx_that_misses_a_client_certificate_loses_nothing() {
    let (ca, files) = (Ca::new(), Files::new());
    let tls = format!("ca_file: '{}'", files.write("ca.pem", &ca.pem()));
    for words in [
        "<center>No required SSL certificate was sent</center>",
        "<center>The SSL certificate error</center>",
    ] {
        let acceptor = ca.local().acceptor(&["http/1.1"], None);
        let sink = Sink::secure(Speaks::Http, acceptor).await;
        sink.always(Some(Reply::Text(400, words)));
        let advice = "refuses this agent's client certificate, or misses it: see tls.cert_file";
        advises(
            Setup::secure("otlp_http", sink.address, &tls),
            advice,
            "tls",
        )
        .await;
    }
}

#[tokio::test]
async fn upstream_that_only_breaks_connections_is_asked_once_a_minute() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, counted) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
            count.send_modify(|count| *count += 1);
        }
    });
    let agent = plain("otlp_grpc", address)
        .retry("initial_interval: 10ms, max_interval: 10ms")
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    let failed = || {
        agent.metric(
            "otelagent_exporter_failed_attempts_total",
            "reason=\"broken\"",
        )
    };
    eventually("it fails often", || failed() > 20).await;
    // Three questions, once.
    let connections = *counted.borrow();
    let attempts = failed();
    assert!(
        connections <= attempts + 1 + 3,
        "{connections} of {attempts}"
    );
    assert_eq!(waiting(&agent), 1);
}
