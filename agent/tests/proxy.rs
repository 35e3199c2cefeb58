//! A proxy on the way to the upstream, by the environment or by `proxy_url`.

use std::process::Command;

use prost::Message;

use crate::support::agent::{Agent, Setup, temporary};
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::pki::{Ca, Files};
use crate::support::proxy::Proxy;
use crate::support::sink::{Sink, Speaks};
use crate::support::telemetry::spans;

const KINDS: [(&str, Speaks); 2] = [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)];

/// No resolver knows this name: only a proxy can connect to it.
const NAME: &str = "collector.invalid:4444";
/// `user:p@ss`
const BASIC: &str = "proxy-authorization: Basic dXNlcjpwQHNz";

fn to(kind: &str, scheme: &str, more: &str) -> Setup {
    let mut setup = Setup::to_with_timeout(kind, "127.0.0.1:1".parse().unwrap(), "5s");
    setup.exporter = format!("{kind}: {{endpoint: '{scheme}://{NAME}', timeout: 5s{more}");
    setup
}

async fn send(agent: &Agent) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
}

fn waiting(agent: &Agent) -> u64 {
    assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 0);
    assert_eq!(agent.books("spans"), 0);
    agent.metric("otelagent_queue_spans", "")
}

#[tokio::test]
async fn encrypted_and_grpc_upstreams_are_reached_through_a_tunnel() {
    let ca = Ca::new();
    let files = Files::new();
    let ca_path = files.write("ca.pem", &ca.pem());
    let tls = format!(", tls: {{ca_file: '{ca_path}', server_name_override: localhost}}");
    for (kind, speaks) in KINDS {
        let sink = Sink::secure(speaks, ca.local().acceptor(&["h2", "http/1.1"], None)).await;
        let proxy = Proxy::to(sink.address).await;
        let url = format!("http://user:p%40ss@{}", proxy.address);
        let agent = to(kind, "https", &tls).env("HTTPS_PROXY", &url).start();
        send(&agent).await;
        eventually("it arrives", || sink.spans().len() == 1).await;
        let head = &proxy.heads()[0];
        assert!(
            head.starts_with(&format!("CONNECT {NAME} HTTP/1.1\r\n")),
            "{head}"
        );
        assert!(head.contains(BASIC), "{head}");
    }
    let sink = Sink::grpc().await;
    let proxy = Proxy::to(sink.address).await;
    let url = proxy.address.to_string();
    let agent = to("otlp_grpc", "http", "").env("https_proxy", &url).start();
    send(&agent).await;
    eventually("it arrives", || sink.spans().len() == 1).await;
    assert!(!proxy.heads()[0].contains("authorization"));
}

#[tokio::test]
async fn plain_http_is_passed_on_by_the_proxy() {
    for by_setting in [false, true] {
        let sink = Sink::http().await;
        let proxy = Proxy::to(sink.address).await;
        let url = format!("http://user:p%40ss@{}", proxy.address);
        let agent = if by_setting {
            // Even where the environment names another one, or none.
            to("otlp_http", "http", &format!(", proxy_url: '{url}'"))
                .env("HTTP_PROXY", "http://127.0.0.1:1")
                .env("NO_PROXY", "*")
                .start()
        } else {
            to("otlp_http", "http", "").env("HTTP_PROXY", &url).start()
        };
        for number in 1..=3 {
            send(&agent).await;
            eventually("it arrives", || sink.spans().len() == number).await;
        }
        let head = &proxy.heads()[0];
        let line = format!("POST http://{NAME}/v1/traces HTTP/1.1\r\n");
        assert!(head.starts_with(&line) && head.contains(BASIC), "{head}");
        assert_eq!(sink.received()[0].headers["host"], NAME);
    }
}

#[tokio::test]
async fn exempt_upstreams_are_reached_without_the_proxy() {
    for (kind, speaks) in KINDS {
        let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
        let proxy = Proxy::to(sink.address).await;
        let url = format!("http://{}", proxy.address);
        let with_proxy = |setup: Setup| {
            let setup = setup.env("HTTPS_PROXY", &url).env("HTTP_PROXY", &url);
            setup.env("NO_PROXY", "10.0.0.0/8,.invalid:4444")
        };
        // This machine, always.
        let agent = with_proxy(Setup::to_with_timeout(kind, sink.address, "5s")).start();
        send(&agent).await;
        eventually("it arrives", || sink.spans().len() == 1).await;
        let agent = with_proxy(to(kind, "http", "")).start();
        send(&agent).await;
        let lines = agent
            .until_logged("delivery fails; telemetry is kept and sent again")
            .await;
        let why = lines[0]["why"].to_string();
        assert!(why.contains("resolving collector.invalid"), "{why}");
        assert!(proxy.heads().is_empty());
    }
}

#[tokio::test]
async fn refusal_of_the_proxy_says_what_to_do_and_loses_nothing() {
    const REFUSED: &str =
        "the upstream refuses this agent: check endpoint, protocol and credentials";
    const FAILS: &str = "delivery fails; telemetry is kept and sent again";
    for (kind, speaks) in KINDS {
        let scheme = if speaks == Speaks::Grpc {
            "http"
        } else {
            "https"
        };
        for (credentials, status, line, words) in [
            (
                "",
                "407 Proxy Authentication Required",
                REFUSED,
                "write http://user:password@",
            ),
            (
                "a:b@",
                "407 Who are you",
                REFUSED,
                "it refuses the credentials in HTTPS_PROXY",
            ),
            (
                "",
                "403 Forbidden",
                REFUSED,
                "it allows no connection to collector.invalid:4444",
            ),
            (
                "",
                "502 Bad Gateway",
                FAILS,
                "it cannot reach collector.invalid:4444",
            ),
        ] {
            let ca = Ca::new();
            let sink = if scheme == "http" {
                Sink::grpc().await
            } else {
                Sink::secure(speaks, ca.local().acceptor(&["http/1.1"], None)).await
            };
            let proxy = Proxy::to(sink.address).await;
            proxy.refuse(Some(status));
            let url = format!("http://{credentials}{}", proxy.address);
            let tls = if scheme == "http" {
                ""
            } else {
                ", tls: {insecure_skip_verify: true}"
            };
            let agent = to(kind, scheme, tls).env("HTTPS_PROXY", &url).start();
            send(&agent).await;
            let lines = agent.until_logged(line).await;
            let why = lines[0]["why"].as_str().unwrap();
            assert!(why.contains(words), "{why}");
            assert_eq!(waiting(&agent), 1);
            proxy.refuse(None);
            eventually("it arrives", || sink.spans().len() == 1).await;
        }
    }
}

#[tokio::test]
async fn proxy_that_is_away_is_named() {
    let gone = Sink::http().await.stop().await;
    let agent = to("otlp_grpc", "http", "")
        .env("HTTPS_PROXY", &gone.to_string())
        .start();
    send(&agent).await;
    let lines = agent
        .until_logged("delivery fails; telemetry is kept and sent again")
        .await;
    let why = lines[0]["why"].as_str().unwrap();
    assert!(
        why.contains(&format!("the proxy {gone}, by HTTPS_PROXY: connecting to")),
        "{why}"
    );
    assert_eq!(waiting(&agent), 1);
}

#[test]
fn check_prints_the_proxy_and_refuses_an_unknown_kind() {
    let file = temporary("config.yaml");
    std::fs::write(&file, to("otlp_grpc", "http", "").yaml()).unwrap();
    let check = |url: &str| {
        let output = Command::new(crate::program())
            .arg("check")
            .arg(&file)
            .env("HTTPS_PROXY", url)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        (output.status.success(), text)
    };
    let (accepted, text) = check("http://user:s3cret@proxy:3128");
    let line = "through the proxy proxy:3128, by HTTPS_PROXY, with credentials";
    assert!(accepted && text.contains(line), "{text}");
    let (accepted, text) = check("socks5://user:s3cret@proxy:3128");
    let line = "HTTPS_PROXY: names a proxy of a kind that is not supported";
    assert!(!accepted && text.contains(line), "{text}");
    std::fs::remove_file(file).unwrap();
}
