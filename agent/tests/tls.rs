//! TLS on both sides, with certificates that change while the agent runs.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc, Http};
use crate::support::pki::{Ca, Files, Issued, connect};
use crate::support::sink::{Sink, Speaks};
use crate::support::telemetry::spans;
use crate::support::{eventually, eventually_answers};

const KINDS: [(&str, Speaks, &str); 2] = [
    ("otlp_grpc", Speaks::Grpc, "h2"),
    ("otlp_http", Speaks::Http, "http/1.1"),
];

async fn send(agent: &Agent, name: &str) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans(name, 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
}

/// Why nothing gets through.
fn failing(agent: &Agent) -> String {
    let lines = [
        agent.logged("delivery fails; telemetry is kept and sent again"),
        agent.logged("the upstream refuses this agent: check endpoint, protocol and credentials"),
    ]
    .concat();
    lines
        .first()
        .map(|line| line["why"].to_string())
        .unwrap_or_default()
}

#[tokio::test]
async fn upstream_is_verified_by_the_configured_ca() {
    let ca = Ca::new();
    let files = Files::new();
    let ca_path = files.write("ca.pem", &ca.pem());
    for (kind, speaks, protocol) in KINDS {
        let sink = Sink::secure(speaks, ca.local().acceptor(&["h2", "http/1.1"], None)).await;
        for setup in [
            Setup::secure(kind, sink.address, &format!("ca_file: '{ca_path}'")),
            // The system's CAs, where these are.
            Setup::secure(kind, sink.address, "").env("SSL_CERT_FILE", &ca_path),
            Setup::secure(
                kind,
                sink.address,
                &format!("ca_pem: '${{file:{ca_path}}}', min_version: '1.3'"),
            ),
            Setup::secure(
                kind,
                sink.address,
                &format!("ca_file: '{ca_path}', max_version: '1.2'"),
            ),
            Setup::secure(kind, sink.address, "insecure_skip_verify: true"),
        ] {
            let before = sink.spans().len();
            let agent = setup.start();
            send(&agent, "span").await;
            eventually("it arrives", || sink.spans().len() == before + 1).await;
        }
        assert_eq!(sink.protocols(), vec![Some(protocol.to_owned()); 5]);
    }
}

#[tokio::test]
async fn upstream_with_a_wrong_certificate_gets_nothing() {
    let (ca, other) = (Ca::new(), Ca::new());
    let files = Files::new();
    let ca_path = files.write("ca.pem", &ca.pem());
    for (kind, speaks, _) in KINDS {
        for (issued, why) in [
            (other.local(), "UnknownIssuer"),
            (ca.server(&["elsewhere"]), "not valid for name"),
        ] {
            let sink = Sink::secure(speaks, issued.acceptor(&["h2", "http/1.1"], None)).await;
            let agent = Setup::secure(kind, sink.address, &format!("ca_file: '{ca_path}'")).start();
            send(&agent, "span").await;
            eventually("it is reported", || failing(&agent).contains(why)).await;
            assert!(sink.received().is_empty());
            assert_eq!(agent.metric("otelagent_queue_spans", ""), 1);
        }
    }
    let sink = Sink::secure(
        Speaks::Grpc,
        ca.server(&["elsewhere"]).acceptor(&["h2"], None),
    )
    .await;
    let tls = format!("ca_file: '{ca_path}', server_name_override: elsewhere");
    let agent = Setup::secure("otlp_grpc", sink.address, &tls).start();
    send(&agent, "span").await;
    eventually("the name is the one that was asked for", || {
        sink.spans().len() == 1
    })
    .await;
}

#[tokio::test]
async fn upstream_sees_the_current_client_certificate() {
    let ca = Ca::new();
    let files = Files::new();
    let ca_path = files.write("ca.pem", &ca.pem());
    let write = |issued: &Issued| {
        let pair = [
            ("crt", issued.certificate.as_str()),
            ("key", issued.key.as_str()),
        ];
        files.swap("client", &pair)
    };
    for (kind, speaks, _) in KINDS {
        let acceptor = ca.local().acceptor(&["h2", "http/1.1"], Some(&ca));
        let sink = Sink::secure(speaks, acceptor).await;
        let agent = Setup::secure(kind, sink.address, &format!("ca_file: '{ca_path}'")).start();
        send(&agent, "nobody").await;
        let logged = |agent: &Agent, alerts: &[&str]| {
            let why = failing(agent);
            // The alert comes after the client's first words (TLS 1.3), and the reset that follows it may
            // overtake it.
            let ends = ["reset", "Broken pipe", "closed", "eof"];
            alerts.iter().chain(&ends).any(|text| why.contains(text))
        };
        eventually("it is reported", || {
            logged(&agent, &["CertificateRequired"])
        })
        .await;
        // Of another CA at first.
        let pair = write(&Ca::new().client());
        let tls = format!("ca_file: '{ca_path}', cert_file: '{pair}/crt', key_file: '{pair}/key'");
        let agent = Setup::secure(kind, sink.address, &tls).start();
        send(&agent, "somebody").await;
        eventually("it is reported", || logged(&agent, &["UnknownCA"])).await;
        assert!(sink.received().is_empty());
        write(&ca.client());
        eventually("the new certificate is taken", || {
            sink.spans() == ["somebody-0"]
        })
        .await;
        eventually("it is reported", || {
            agent.logged("changed files are in use").len() == 1
        })
        .await;
    }
}

/// A receiver on one port that speaks TLS, with what else is said of it.
pub fn receiver(pair: &str, more: &str) -> String {
    format!(
        "grpc: {{endpoint: '127.0.0.1:0', tls: {{cert_file: '{pair}/crt', key_file: '{pair}/key'{more}}}}}"
    )
}

pub fn pair(files: &Files, issued: &Issued) -> String {
    let pair = [
        ("crt", issued.certificate.as_str()),
        ("key", issued.key.as_str()),
    ];
    files.swap("server", &pair)
}

pub async fn accepted(agent: &Agent, ca: &Ca, identity: Option<&Issued>) -> bool {
    let Ok(stream) = connect(agent.port().port(), &["h2"], ca, identity).await else {
        return false;
    };
    let Ok(mut grpc) = Grpc::over(stream).await else {
        return false;
    };
    let message = spans("span", 1).encode_to_vec();
    grpc.call(client::TRACES, &message)
        .await
        .is_ok_and(|answer| answer.status == 0)
}

#[tokio::test]
async fn receiver_speaks_both_protocols_over_tls() {
    let ca = Ca::new();
    let files = Files::new();
    let sink = Sink::grpc().await;
    let pair = pair(&files, &ca.local());
    let agent = Setup::grpc(sink.address)
        .receiver(&receiver(&pair, ""))
        .start();
    let port = agent.port().port();
    let message = spans("span", 1).encode_to_vec();
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = connect(port, offered, &ca, None).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(protocol.as_deref(), agreed.map(str::as_bytes));
        if agreed == Some("h2") {
            let mut grpc = Grpc::over(stream).await.unwrap();
            assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
        } else {
            let mut http = Http::over(stream);
            assert_eq!(
                http.post("/v1/traces", &[], &message).await.unwrap().status,
                200
            );
        }
    }
    assert!(connect(port, &["spdy"], &ca, None).await.is_err());
    assert!(connect(port, &["h2"], &Ca::new(), None).await.is_err());
    eventually("all arrive", || sink.spans().len() == 3).await;
}

#[tokio::test]
async fn failed_handshakes_are_counted_and_affect_no_others() {
    let ca = Ca::new();
    let files = Files::new();
    let sink = Sink::grpc().await;
    let pair = pair(&files, &ca.local());
    let agent = Setup::grpc(sink.address)
        .receiver(&receiver(&pair, ""))
        .start();
    let stream = connect(agent.port().port(), &["h2"], &ca, None)
        .await
        .unwrap();
    let mut grpc = Grpc::over(stream).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(agent.port()).await.unwrap());
        let mut plain = TcpStream::connect(agent.port()).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
        let message = spans("span", 1).encode_to_vec();
        assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    }
    eventually("they are counted", || {
        agent.metric("otelagent_tls_handshakes_failed_total", "") == 50
    })
    .await;
    let logged = agent.until_logged("TLS handshake failed").await;
    assert_eq!(logged.len(), 1, "folded");
    assert!(accepted(&agent, &ca, None).await);
    // Those who say nothing do not hold up the end.
    agent.terminate();
    let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    drop(silent);
}

#[tokio::test]
async fn receiver_accepts_only_client_certificates_of_its_ca() {
    let (servers, clients) = (Ca::new(), Ca::new());
    let files = Files::new();
    let sink = Sink::grpc().await;
    let pair = pair(&files, &servers.local());
    let ca_path = files.write("clients.pem", &clients.pem());
    let setup = Setup::grpc(sink.address)
        .receiver(&receiver(&pair, &format!(", client_ca_file: '{ca_path}'")));
    let agent = setup.start();
    assert!(accepted(&agent, &servers, Some(&clients.client())).await);
    assert!(!accepted(&agent, &servers, Some(&servers.client())).await);
    assert!(!accepted(&agent, &servers, None).await);
    eventually("both refusals are counted", || {
        agent.metric("otelagent_tls_handshakes_failed_total", "") == 2
    })
    .await;
    eventually("only one arrives", || sink.spans().len() == 1).await;
}

#[tokio::test]
async fn new_certificate_is_used_and_an_invalid_one_ignored() {
    let (first, second) = (Ca::new(), Ca::new());
    let files = Files::new();
    let sink = Sink::grpc().await;
    let path = pair(&files, &first.local());
    let agent = Setup::grpc(sink.address)
        .receiver(&receiver(&path, ""))
        .start();
    let stream = connect(agent.port().port(), &["h2"], &first, None)
        .await
        .unwrap();
    let mut old = Grpc::over(stream).await.unwrap();
    // A key that belongs to another certificate.
    let mut mixed = second.local();
    mixed.key = second.local().key;
    pair(&files, &mixed);
    let logged = "changed files cannot be used; the previous content stays in use";
    eventually_answers("the wrong key is noticed", async || {
        assert!(accepted(&agent, &first, None).await);
        !agent.logged(logged).is_empty()
    })
    .await;
    assert!(accepted(&agent, &first, None).await, "the old one stays");
    pair(&files, &second.local());
    eventually_answers("the new one is used", async || {
        accepted(&agent, &second, None).await
    })
    .await;
    assert!(!accepted(&agent, &first, None).await);
    let message = spans("old", 1).encode_to_vec();
    let answer = old.call(client::TRACES, &message).await.unwrap();
    assert_eq!(answer.status, 0, "connections that are there go on");
    assert_eq!(agent.logged(logged).len(), 1, "folded");
}

#[tokio::test]
async fn header_from_a_file_follows_it_and_stays_secret() {
    for (kind, speaks, _) in KINDS {
        let files = Files::new();
        let path = files.write("token", "first-secret\n");
        let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
        let agent = Setup::to_with_timeout(kind, sink.address, "5s")
            .exporter(&format!(
                "headers: {{authorization: 'Bearer ${{file:{path}}}'}}"
            ))
            .start();
        let seen = |sink: &Sink| {
            let received = sink.received();
            let last = received
                .last()
                .map(|last| last.headers["authorization"].clone());
            last.map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        send(&agent, "span").await;
        eventually("the first is used", || seen(&sink) == "Bearer first-secret").await;
        for (content, expected) in [
            ("second-secret\n", "Bearer second-secret"),
            ("third\nsecret", "Bearer second-secret"),
            ("fourth-secret", "Bearer fourth-secret"),
        ] {
            files.write("token", content);
            tokio::time::sleep(Duration::from_millis(1100)).await;
            let before = sink.received().len();
            send(&agent, "span").await;
            eventually("it arrives", || sink.received().len() > before).await;
            assert_eq!(seen(&sink), expected);
        }
        agent.terminate();
        let (_, log) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
        let log = format!("{log:?}");
        assert!(log.contains("header authorization cannot be sent"), "{log}");
        assert!(!log.contains("secret"), "{log}");
    }
}

#[test]
fn agent_does_not_start_with_unusable_certificates() {
    let ca = Ca::new();
    let files = Files::new();
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let good = pair(&files, &ca.local());
    let junk = files.write("junk", "no certificate");
    let key_only = files.write("key", &ca.local().key);
    for (setup, reason, why) in [
        (
            Setup::secure("otlp_grpc", nowhere, "ca_file: /"),
            "tls_file",
            "exporter otlp_grpc: cannot read /: Is a directory".to_owned(),
        ),
        (
            Setup::secure("otlp_http", nowhere, &format!("ca_file: '{junk}'")),
            "tls_pem",
            format!("{junk} holds no certificate in PEM form"),
        ),
        (
            Setup::secure("otlp_http", nowhere, "").env("SSL_CERT_FILE", &key_only),
            "tls_pem",
            format!("{key_only} holds no certificate in PEM form"),
        ),
        (
            Setup::grpc(nowhere).receiver(&receiver(&good, &format!(", client_ca_file: '{junk}'"))),
            "tls_pem",
            format!("TLS on 127.0.0.1:0: {junk} holds no certificate"),
        ),
        (
            Setup::grpc(nowhere).receiver(&format!(
                "grpc: {{endpoint: '127.0.0.1:0', tls: {{cert_file: '{good}/crt', key_file: '{key_only}'}}}}"
            )),
            "tls_identity",
            "certificate and private key cannot be used".to_owned(),
        ),
    ] {
        let config = files.write("config.yaml", &setup.yaml());
        let output = Command::new(crate::program())
            .args(["--config", &config])
            .envs(setup.env)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(&why) && log.contains(reason), "{why}\n{log}");
    }
}
