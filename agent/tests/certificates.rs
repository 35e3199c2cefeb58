//! Certificates of an upstream that people make by hand, and what the agent says about those that will not do.

use prost::Message;
use tokio_rustls::TlsAcceptor;

use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc};
use crate::support::pki::{Ca, Files, Issued, VERSION_1, impostor};
use crate::support::sink::{Sink, Speaks};
use crate::support::telemetry::spans;
use crate::support::{eventually, eventually_answers};
use crate::tls::{accepted, pair, receiver};

const KINDS: [(&str, Speaks); 2] = [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)];
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];
const REFUSED: &str = "the upstream refuses this agent: check endpoint, protocol and credentials";

async fn send(agent: &Agent) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
}

/// What the agent logs of an upstream with this certificate, to which nothing gets through.
async fn refusal(kind: &str, speaks: Speaks, tls: TlsAcceptor, settings: &str) -> String {
    let sink = Sink::secure(speaks, tls).await;
    let agent = Setup::secure(kind, sink.address, settings).start();
    send(&agent).await;
    let lines = agent.until_logged(REFUSED).await;
    assert!(sink.received().is_empty());
    assert_eq!(agent.metric("otelagent_queue_spans", ""), 1);
    let failed = "otelagent_exporter_failed_attempts_total";
    assert!(agent.metric(failed, "reason=\"tls\"") > 0);
    lines[0]["why"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn certificate_named_as_its_own_ca_is_trusted() {
    let files = Files::new();
    for (kind, speaks) in KINDS {
        for issued in [
            Issued::own_ca(&["localhost"]),
            Issued::own_leaf(&["localhost"]),
        ] {
            // The other one beside it, as in a bundle.
            let bundle = format!("{}{}", Ca::new().pem(), issued.certificate);
            let path = files.write("ca.pem", &bundle);
            for version in ["1.2", "1.3"] {
                let sink = Sink::secure(speaks, issued.acceptor(&PROTOCOLS, None)).await;
                let tls = format!("ca_file: '{path}', max_version: '{version}'");
                let agent = Setup::secure(kind, sink.address, &tls).start();
                send(&agent).await;
                eventually("it arrives", || sink.spans().len() == 1).await;
            }
        }
        let issued = Issued::own_ca(&["elsewhere"]);
        let path = files.write("ca.pem", &issued.certificate);
        let sink = Sink::secure(speaks, issued.acceptor(&PROTOCOLS, None)).await;
        let tls = format!("ca_file: '{path}', server_name_override: elsewhere");
        let agent = Setup::secure(kind, sink.address, &tls).start();
        send(&agent).await;
        eventually("the name is the one that was asked for", || {
            sink.spans().len() == 1
        })
        .await;
    }
}

#[tokio::test]
async fn certificate_named_as_its_own_ca_must_be_valid_and_for_the_name() {
    let files = Files::new();
    for (kind, speaks) in KINDS {
        for (issued, words) in [
            (
                Issued::own_ca(&["elsewhere"]),
                ["only valid for", "set tls.server_name_override"],
            ),
            (
                Issued::own_ca(&[]),
                ["common name does not count", "subjectAltName=DNS:"],
            ),
            (
                Issued::expired_own_ca(&["localhost"]),
                ["expired", "needs a new certificate"],
            ),
        ] {
            let path = files.write("ca.pem", &issued.certificate);
            let tls = issued.acceptor(&PROTOCOLS, None);
            let why = refusal(kind, speaks, tls, &format!("ca_file: '{path}'")).await;
            assert!(words.iter().all(|word| why.contains(word)), "{why}");
        }
    }
}

#[tokio::test]
async fn another_self_signed_certificate_is_refused_with_a_way_out() {
    let files = Files::new();
    let named = Issued::own_ca(&["localhost"]);
    let path = files.write("ca.pem", &named.certificate);
    for (kind, speaks) in KINDS {
        for (acceptor, words) in [
            (
                Issued::own_ca(&["localhost"]).acceptor(&PROTOCOLS, None),
                "name exactly this certificate in tls.ca_file",
            ),
            (
                // Of the same name as what is trusted: an older one.
                Issued::own_leaf(&["localhost"]).acceptor(&PROTOCOLS, None),
                "compare tls.ca_file with what the upstream shows now",
            ),
            (
                Ca::new().local().acceptor(&PROTOCOLS, None),
                "name its CA in tls.ca_file",
            ),
            (
                impostor(VERSION_1, &PROTOCOLS),
                "make one of version 3 with `openssl req -x509",
            ),
        ] {
            let why = refusal(kind, speaks, acceptor, &format!("ca_file: '{path}'")).await;
            assert!(why.contains(words), "{why}");
        }
        // The right certificate, and not its key.
        let acceptor = impostor(&named.certificate, &PROTOCOLS);
        let why = refusal(kind, speaks, acceptor, &format!("ca_file: '{path}'")).await;
        assert!(why.contains("BadSignature"), "{why}");
    }
}

#[tokio::test]
async fn certificate_of_version_1_named_as_its_own_ca_is_refused_with_a_way_out() {
    let files = Files::new();
    let path = files.write("ca.pem", VERSION_1);
    let tls = impostor(VERSION_1, &PROTOCOLS);
    let settings = format!("ca_file: '{path}'");
    let why = refusal("otlp_grpc", Speaks::Grpc, tls, &settings).await;
    assert!(why.contains("X.509 version 1"), "{why}");
}

#[tokio::test]
async fn client_certificate_named_as_its_own_ca_is_accepted() {
    let (servers, files) = (Ca::new(), Files::new());
    let (client, other) = (Issued::own_ca(&["app"]), Issued::own_ca(&["app"]));
    let pair = pair(&files, &servers.local());
    let path = files.write("clients.pem", &client.certificate);
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .receiver(&receiver(&pair, &format!(", client_ca_file: '{path}'")))
        .start();
    assert!(accepted(&agent, &servers, Some(&client)).await);
    assert!(!accepted(&agent, &servers, Some(&other)).await);
    let expired = Issued::expired_own_ca(&["app"]);
    files.write("clients.pem", &expired.certificate);
    eventually_answers("the changed file is in use", async || {
        !accepted(&agent, &servers, Some(&client)).await
    })
    .await;
    assert!(!accepted(&agent, &servers, Some(&expired)).await);
}
