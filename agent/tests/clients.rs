//! Who may send: clients with a token, and browsers for pages of allowed origins.

use std::fmt::Write as _;
use std::path::PathBuf;

use prost::Message;
use tokio::net::UnixStream;

use crate::support::agent::{Agent, Setup, get, temporary};
use crate::support::client::{self, Grpc, Http, HttpAnswer};
use crate::support::sink::Sink;
use crate::support::telemetry::spans;
use crate::support::{eventually, eventually_answers};

const UNAUTHENTICATED: u32 = 16;
const UNIMPLEMENTED: u32 = 12;

const OPEN: &str = "grpc: {endpoint: '127.0.0.1:0'}, http: {endpoint: '127.0.0.1:0'}";
const AUTH: &str = "auth: {authenticator: bearertokenauth/clients}";

/// A configuration whose receiver wants a token.
fn yaml(setup: &Setup, extension: &str) -> String {
    let protocols = format!(
        "grpc: {{endpoint: '127.0.0.1:0', {AUTH}}}, http: {{endpoint: '127.0.0.1:0', {AUTH}}}"
    );
    guarded(&setup.yaml().replace(OPEN, &protocols), extension)
}

fn guarded(yaml: &str, extension: &str) -> String {
    let defined = format!("extensions: {{bearertokenauth/clients: {{{extension}}}, ");
    let yaml = yaml.replacen("extensions: {", &defined, 1);
    yaml.replacen("extensions: [", "extensions: [bearertokenauth/clients, ", 1)
}

async fn http(agent: &Agent, headers: &[(&str, &str)]) -> HttpAnswer {
    let message = spans("http", 1).encode_to_vec();
    let mut http = Http::connect(agent.port()).await;
    http.post("/v1/traces", headers, &message).await.unwrap()
}

async fn grpc(agent: &Agent, headers: &[(&str, &str)]) -> u32 {
    let framed = client::frame(0, &spans("grpc", 1).encode_to_vec());
    let mut grpc = Grpc::connect(agent.port()).await;
    let answer = grpc.framed(client::TRACES, headers, framed).await;
    answer.unwrap().status
}

#[tokio::test]
async fn clients_without_the_token_are_refused_on_every_port() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address);
    let agent = setup.start_with(&yaml(&setup, "token: s3cret"));
    for wrong in [
        "",
        "s3cret",
        "Bearer",
        "Bearer ",
        "Bearer s3cre",
        "Bearer s3crets",
        "Basic s3cret",
        "Bearers3cret",
    ] {
        let headers = [("authorization", wrong)];
        let answer = http(&agent, &headers).await;
        assert_eq!(answer.status, 401, "{wrong}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!(grpc(&agent, &headers).await, UNAUTHENTICATED, "{wrong}");
    }
    assert_eq!(http(&agent, &[]).await.status, 401);
    let refused = || agent.metric("otelagent_refused_requests_total", "unauthenticated");
    assert_eq!(refused(), 17);
    for port in &agent.ports {
        let mut client = Http::connect(*port).await;
        let message = spans("http", 1).encode_to_vec();
        for (token, status) in [
            ("Bearer s3cret", 200),
            ("bearer s3cret", 200),
            ("Bearer x", 401),
        ] {
            let headers = [("authorization", token)];
            let answer = client.post("/v1/traces", &headers, &message).await;
            assert_eq!(answer.unwrap().status, status);
        }
    }
    assert_eq!(grpc(&agent, &[("authorization", "Bearer s3cret")]).await, 0);
    eventually("what had it is delivered", || sink.spans().len() == 5).await;
    // Nothing is told about paths, and probes need no token.
    let mut client = Http::connect(agent.port()).await;
    let answer = client.post("/v1/unknown", &[], b"").await.unwrap();
    assert_eq!(answer.status, 401);
    assert_eq!(get(agent.health, "/ready").0, 200);
    assert_eq!(get(agent.metrics, "/metrics").0, 200);
    agent.terminate();
    let log = format!("{:?}", agent.wait().1);
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn request_without_a_token_is_refused_before_its_body_arrives() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address);
    let agent = setup.start_with(&yaml(&setup, "token: s3cret"));
    let mut client = Http::connect(agent.port()).await;
    client
        .write(b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
        .await;
    assert_eq!(client.read().await.unwrap().status, 401);
    assert_eq!(agent.metric("otelagent_memory_held_bytes", ""), 0);
}

struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let path = temporary("tokens");
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn changed_file_of_tokens_is_followed() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address);
    let file = File::new("old\nother\n");
    let extension = format!(
        "filename: '{}', header: X-Token, scheme: ''",
        file.0.display()
    );
    let agent = setup.start_with(&yaml(&setup, &extension));
    let status = async |token: &str| http(&agent, &[("x-token", token)]).await.status;
    assert_eq!((status("old").await, status("other").await), (200, 200));
    assert_eq!((status("new").await, status("").await), (401, 401));
    std::fs::write(&file.0, "new\n").unwrap();
    eventually_answers("the new token is taken", async || {
        status("new").await == 200
    })
    .await;
    assert_eq!(status("old").await, 401);
    // An empty file would let everyone in, or no one; the last token stays.
    std::fs::write(&file.0, " \n\n").unwrap();
    let kept = "changed files cannot be used; the previous content stays in use";
    eventually_answers("the empty file is refused", async || {
        assert_eq!(status("new").await, 200);
        !agent.logged(kept).is_empty()
    })
    .await;
    assert_eq!((status("new").await, status("").await), (200, 401));
}

#[tokio::test]
async fn token_is_added_and_changed_while_the_agent_runs() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address);
    let file = temporary("config.yaml");
    std::fs::write(&file, setup.yaml()).unwrap();
    let agent = setup.start_from(&file);
    assert_eq!(http(&agent, &[]).await.status, 200);
    let mut number = 0;
    let mut change = async |yaml: &str| {
        std::fs::write(&file, yaml).unwrap();
        agent.hang_up();
        number += 1;
        // The agent looks by itself, too, and may find that nothing else has changed.
        let applied = || agent.metric("otelagent_config_reloads_total", "applied");
        eventually("it is in use", || applied() == number).await;
    };
    change(&yaml(&setup, "tokens: [one, two]")).await;
    let bearer = async |token: &str| {
        let token = format!("Bearer {token}");
        http(&agent, &[("authorization", &token)]).await.status
    };
    assert_eq!(http(&agent, &[]).await.status, 401);
    assert_eq!((bearer("one").await, bearer("two").await), (200, 200));
    change(&yaml(&setup, "token: two")).await;
    assert_eq!((bearer("one").await, bearer("two").await), (401, 200));
    std::fs::write(&file, yaml(&setup, "filename: /nowhere/at/all")).unwrap();
    agent.hang_up();
    let is_refused = || agent.metric("otelagent_config_reloads_total", "refused") > 0;
    eventually("a file that is missing is refused", is_refused).await;
    assert_eq!((bearer("one").await, bearer("two").await), (401, 200));
    drop(agent);
    let _ = std::fs::remove_file(file);
}

#[tokio::test]
async fn unix_socket_wants_the_token_too() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address);
    let socket = temporary("otlp.sock");
    let path = socket.display();
    let protocols = format!("grpc: {{transport: unix, endpoint: '{path}', {AUTH}}}");
    let yaml = setup.yaml().replace(OPEN, &protocols);
    let _agent = setup.start_with(&guarded(&yaml, "token: s3cret"));
    let message = spans("unix", 1).encode_to_vec();
    for (token, status) in [("Bearer s3cret", 200), ("Bearer", 401)] {
        let mut client = Http::over(UnixStream::connect(&socket).await.unwrap());
        let headers = [("authorization", token)];
        let answer = client.post("/v1/traces", &headers, &message).await;
        assert_eq!(answer.unwrap().status, status);
    }
    eventually("it is delivered", || sink.spans().len() == 1).await;
}

/// An answer to a request that a browser makes.
async fn ask(agent: &Agent, method: &str, headers: &[(&str, &str)]) -> HttpAnswer {
    let mut head = format!("{method} /v1/traces HTTP/1.1\r\nhost: agent\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let mut http = Http::connect(agent.port()).await;
    http.write(format!("{head}\r\n").as_bytes()).await;
    http.read().await.unwrap()
}

const ORIGIN: &str = "https://shop.example.com";
const ASKS: (&str, &str) = ("access-control-request-method", "POST");

#[tokio::test]
async fn browsers_are_told_no_unless_it_is_configured() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let answer = ask(&agent, "OPTIONS", &[("origin", ORIGIN), ASKS]).await;
    assert_eq!(answer.status, 405);
    let answer = http(&agent, &[("origin", ORIGIN)]).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.head.to_lowercase().contains("access-control"));
}

#[tokio::test]
async fn browsers_may_send_for_pages_of_allowed_origins() {
    let sink = Sink::grpc().await;
    let cors = "cors: {allowed_origins: ['https://*.example.com', 'http://localhost:8080'], \
                allowed_headers: [Authorization, x-tenant], max_age: 600}";
    let setup = Setup::grpc(sink.address);
    let protocols = format!("http: {{endpoint: '127.0.0.1:0', {cors}, {AUTH}}}");
    let yaml = setup.yaml().replace(OPEN, &protocols);
    let agent = setup.start_with(&guarded(&yaml, "token: s3cret"));
    for origin in [ORIGIN, "http://localhost:8080", "HTTPS://A.B.example.com"] {
        // The question comes without the token.
        let answer = ask(&agent, "OPTIONS", &[("origin", origin), ASKS]).await;
        assert_eq!((answer.status, &answer.body[..]), (204, &b""[..]));
        let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
        assert_eq!(header("access-control-allow-origin"), origin);
        assert_eq!(header("access-control-allow-methods"), "POST");
        let headers = "accept, content-type, x-requested-with, authorization, x-tenant";
        assert_eq!(header("access-control-allow-headers"), headers);
        assert_eq!(header("access-control-max-age"), "600");
        assert!(header("vary").starts_with("origin"));
        for (token, status) in [("Bearer s3cret", 200), ("Bearer x", 401)] {
            let headers = [("origin", origin), ("authorization", token)];
            let answer = http(&agent, &headers).await;
            assert_eq!(answer.status, status, "a page can read why");
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
            assert_eq!(
                answer.header("access-control-allow-credentials"),
                Some("true")
            );
            assert_eq!(answer.header("vary"), Some("origin"));
        }
    }
    for origin in [
        "https://example.com",
        "https://shop.example.com.evil.org",
        "null",
        "",
    ] {
        let answer = ask(&agent, "OPTIONS", &[("origin", origin), ASKS]).await;
        assert_eq!(answer.status, 204);
        assert!(
            answer.header("access-control-allow-origin").is_none(),
            "{origin}"
        );
        assert!(answer.header("vary").unwrap().starts_with("origin"));
        let headers = [("origin", origin), ("authorization", "Bearer s3cret")];
        let answer = http(&agent, &headers).await;
        assert!(
            answer.header("access-control-allow-origin").is_none(),
            "{origin}"
        );
    }
    // A method without the question of a browser.
    let answer = ask(&agent, "OPTIONS", &[("authorization", "Bearer s3cret")]).await;
    assert_eq!(answer.status, 405);
    assert_eq!(grpc(&agent, &[]).await, UNAUTHENTICATED);
    let token = ("authorization", "Bearer s3cret");
    let json = ("content-type", "application/grpc+json");
    assert_eq!(grpc(&agent, &[token, json]).await, UNIMPLEMENTED);
    let refused = agent.metric("otelagent_refused_requests_total", "transport=\"http\"");
    assert_eq!(refused, 3 + 1, "questions are no requests");
}

#[tokio::test]
async fn any_origin_and_any_header_can_be_allowed() {
    let sink = Sink::grpc().await;
    let cors = "cors: {allowed_origins: ['*'], allowed_headers: ['*']}";
    let protocols = format!("http: {{endpoint: '127.0.0.1:0', {cors}}}");
    let agent = Setup::grpc(sink.address).receiver(&protocols).start();
    let wanted = ("access-control-request-headers", "x-anything, x-other");
    let answer = ask(&agent, "OPTIONS", &[("origin", ORIGIN), ASKS, wanted]).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(
        answer.header(wanted.0.replace("request", "allow").as_str()),
        Some(wanted.1)
    );
    assert!(answer.header("access-control-max-age").is_none());
}
