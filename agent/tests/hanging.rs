//! Files and logs that hang: a file system that does not answer, such as a network volume, and a log that nothing
//! reads. A named pipe without a writer hangs like a file on such a volume.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::support::agent::{Agent, Setup, get};
use crate::support::client::{self, Grpc, Http};
use crate::support::pki::{Ca, Files, connect};
use crate::support::sink::{Sink, Speaks};
use crate::support::telemetry::spans;
use crate::support::{eventually, eventually_answers};

/// What a request may take while files hang: a second for each kind of file, and a slow machine.
const SOON: Duration = Duration::from_mins(1);

const STALLED: &str = "files do not answer; the previous content stays in use";

/// `O_NONBLOCK` of Linux.
const NONBLOCKING: i32 = 0o4000;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.unwrap()
}

/// Lets every reader of a file wait from now on.
fn hang(path: &str) {
    let pipe = format!("{path}.pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    std::fs::rename(pipe, path).unwrap();
}

/// Lets the readers of a file go on, and gives it another content.
fn answer(path: &str, content: &str) {
    // For reading as well, so that it needs no reader.
    let mut pipe = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let fresh = format!("{path}.fresh");
    std::fs::write(&fresh, content).unwrap();
    std::fs::rename(fresh, path).unwrap();
    pipe.write_all(content.as_bytes()).unwrap();
}

fn stalled(agent: &Agent) -> usize {
    agent.logged(STALLED).len()
}

#[tokio::test]
async fn files_that_hang_hold_up_no_request_and_are_followed_later() {
    for (kind, speaks) in [("otlp_grpc", Speaks::Grpc), ("otlp_http", Speaks::Http)] {
        let (ca, files) = (Ca::new(), Files::new());
        let acceptor = ca.local().acceptor(&["h2", "http/1.1"], None);
        let sink = Sink::secure(speaks, acceptor).await;
        let tokens = files.write("tokens", "old\n");
        let tenant = files.write("tenant", "first");
        let ca_path = files.write("ca.pem", &ca.pem());
        let auth = "auth: {authenticator: bearertokenauth}";
        let setup = Setup::secure(kind, sink.address, &format!("ca_file: '{ca_path}'"))
            .exporter(&format!("headers: {{x-tenant: '${{file:{tenant}}}'}}"))
            .receiver(&format!("grpc: {{endpoint: '127.0.0.1:0', {auth}}}"))
            // New connections look at the certificates.
            .env("OTELAGENT_UPSTREAM_CONNECTION_AGE", "1");
        let extension = format!("extensions: {{bearertokenauth: {{filename: '{tokens}'}}, ");
        let yaml = setup.yaml().replacen("extensions: {", &extension, 1);
        let yaml = yaml.replacen("extensions: [", "extensions: [bearertokenauth, ", 1);
        let agent = setup.start_with(&yaml);
        let send = async |token: &str| {
            let framed = client::frame(0, &spans("span", 1).encode_to_vec());
            let mut grpc = Grpc::connect(agent.port()).await;
            let token = format!("Bearer {token}");
            let headers = [("authorization", token.as_str())];
            let answer = grpc.framed(client::TRACES, &headers, framed).await;
            answer.unwrap().status
        };
        assert_eq!(soon(send("old")).await, 0);
        eventually("it arrives", || sink.spans().len() == 1).await;
        for path in [&tokens, &tenant, &ca_path] {
            hang(path);
        }
        let mut count = 1;
        eventually_answers("all three are noticed", async || {
            assert_eq!(soon(send("old")).await, 0);
            count += 1;
            stalled(&agent) == 3
        })
        .await;
        assert_eq!(get(agent.health, "/live").0, 200);
        eventually("all arrive", || sink.spans().len() == count).await;
        answer(&tokens, "new\n");
        answer(&tenant, "second");
        answer(&ca_path, &ca.pem());
        eventually_answers("the new token is known", async || send("new").await == 0).await;
        assert_eq!(send("old").await, 16);
        let last = || {
            let received = sink.received();
            received.last().unwrap().headers["x-tenant"].clone()
        };
        eventually_answers("the new header is sent", async || {
            assert_eq!(soon(send("new")).await, 0);
            last() == "second"
        })
        .await;
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn certificate_that_hangs_stops_no_handshake_and_no_shutdown() {
    let (ca, files) = (Ca::new(), Files::new());
    let sink = Sink::grpc().await;
    let issued = ca.local();
    let certificate = files.write("crt", &issued.certificate);
    let key = files.write("key", &issued.key);
    let receiver = format!(
        "grpc: {{endpoint: '127.0.0.1:0', tls: {{cert_file: '{certificate}', key_file: '{key}'}}}}"
    );
    let agent = Setup::grpc(sink.address).receiver(&receiver).start();
    let send = async || {
        let stream = connect(agent.port().port(), &["h2"], &ca, None).await;
        let mut grpc = Grpc::over(stream.unwrap()).await.unwrap();
        let message = spans("span", 1).encode_to_vec();
        grpc.call(client::TRACES, &message).await.unwrap().status
    };
    assert_eq!(send().await, 0);
    hang(&key);
    eventually_answers("it is noticed", async || {
        assert_eq!(soon(send()).await, 0);
        stalled(&agent) == 1
    })
    .await;
    agent.terminate();
    let (code, _) = soon(tokio::task::spawn_blocking(|| agent.wait()))
        .await
        .unwrap();
    assert_eq!(code, 0);
}

#[tokio::test]
async fn configuration_that_hangs_is_applied_later_and_holds_up_nothing() {
    let files = Files::new();
    let (first, second) = (Sink::grpc().await, Sink::grpc().await);
    let setup = Setup::grpc(first.address);
    let config = files.write("config.yaml", &setup.yaml());
    let agent = setup.start_from(Path::new(&config));
    let send = async || {
        let mut grpc = Grpc::connect(agent.port()).await;
        let message = spans("span", 1).encode_to_vec();
        soon(grpc.call(client::TRACES, &message))
            .await
            .unwrap()
            .status
    };
    let token = files.write("token", "");
    hang(&token);
    let next = Setup::grpc(second.address)
        .exporter(&format!("headers: {{authorization: '${{file:{token}}}'}}"));
    files.write("config.yaml", &next.yaml());
    agent.hang_up();
    let slow = "the files of the configuration do not answer; the current one stays in use";
    let mut count = 0;
    eventually_answers("it is noticed", async || {
        assert_eq!(send().await, 0);
        count += 1;
        !agent.logged(slow).is_empty()
    })
    .await;
    eventually("all arrive", || first.spans().len() == count).await;
    answer(&token, "secret");
    agent.until_logged("configuration read").await;
    eventually_answers("the second upstream is used", async || {
        assert_eq!(send().await, 0);
        !second.spans().is_empty()
    })
    .await;
}

#[tokio::test]
async fn file_that_comes_and_hangs_holds_up_no_attempt_and_is_used_later() {
    let files = Files::new();
    let sink = Sink::grpc().await;
    let token = files.path("token");
    let agent = Setup::to_with_timeout("otlp_grpc", sink.address, "1s")
        .exporter(&format!("headers: {{authorization: '${{file:{token}}}'}}"))
        .start();
    hang(&token);
    let failed = "otelagent_exporter_failed_attempts_total";
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    eventually("attempts end", || {
        agent.metric(failed, "reason=\"file\"") > 2
    })
    .await;
    assert!(
        get(agent.health, "/delivery")
            .1
            .contains("files do not answer")
    );
    answer(&token, "secret");
    eventually("the span arrives", || !sink.spans().is_empty()).await;
    // What reads the file at this moment may have seen it empty.
    let last = || {
        let received = sink.received();
        received.last().unwrap().headers["authorization"].clone()
    };
    eventually_answers("the header is sent", async || {
        assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
        last() == "secret"
    })
    .await;
}

#[tokio::test]
async fn certificate_for_pushed_metrics_that_hangs_holds_up_nothing() {
    let files = Files::new();
    let sink = Sink::grpc().await;
    let config = files.write("config.yaml", &Setup::grpc(sink.address).yaml());
    let agent = Setup::grpc(sink.address).start_from(Path::new(&config));
    let certificate = files.write("ca.pem", "");
    hang(&certificate);
    let exporter =
        format!("{{protocol: grpc, endpoint: 'https://127.0.0.1:1', certificate: {certificate}}}");
    let push = format!("interval: 100, exporter: {{otlp: {exporter}}}");
    let next = Setup::grpc(sink.address).push(&push);
    files.write("config.yaml", &next.yaml());
    agent.hang_up();
    let slow = "the files of the configuration do not answer; the current one stays in use";
    let mut count = 0;
    eventually_answers("it is noticed", async || {
        let mut grpc = Grpc::connect(agent.port()).await;
        let message = spans("span", 1).encode_to_vec();
        let answer = soon(grpc.call(client::TRACES, &message)).await;
        assert_eq!(answer.unwrap().status, 0);
        count += 1;
        !agent.logged(slow).is_empty()
    })
    .await;
    eventually("all arrive", || sink.spans().len() == count).await;
    answer(&certificate, &Ca::new().pem());
    agent.until_logged("configuration read").await;
    let pushes = "otelagent_metrics_pushes_total";
    eventually("metrics are pushed", || agent.metric(pushes, "") > 0).await;
}

#[tokio::test]
async fn log_that_nothing_reads_holds_up_nothing() {
    let files = Files::new();
    let sink = Sink::grpc().await;
    let path = files.path("otlp.sock");
    let receiver = format!("http: {{transport: unix, endpoint: '{path}'}}");
    let setup = Setup::grpc(sink.address).receiver(&receiver);
    let config = files.write("config.yaml", &setup.yaml());
    let (reader, writer) = std::io::pipe().unwrap();
    // Fills the pipe without waiting for its reader.
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&writer);
    let mut filler = OpenOptions::new()
        .write(true)
        .custom_flags(NONBLOCKING)
        .open(format!("/proc/self/fd/{descriptor}"))
        .unwrap();
    while filler.write(b"\n").is_ok() {}
    drop(filler);
    let mut agent = Command::new(crate::program())
        .args(["--config", &config])
        .stdin(Stdio::null())
        .stderr(writer)
        .spawn()
        .unwrap();
    eventually("it listens", || std::fs::exists(&path).unwrap()).await;
    let mut http = Http::over(UnixStream::connect(&path).await.unwrap());
    let message = spans("span", 1).encode_to_vec();
    for _ in 0..10 {
        let answer = soon(http.post("/v1/traces", &[], &message)).await;
        assert_eq!(answer.unwrap().status, 200);
    }
    eventually("all arrive", || sink.spans().len() == 10).await;
    let process = agent.id().to_string();
    assert!(
        Command::new("kill")
            .arg(&process)
            .status()
            .unwrap()
            .success()
    );
    let ended = soon(tokio::task::spawn_blocking(move || agent.wait())).await;
    assert!(ended.unwrap().unwrap().success());
    drop(reader);
}
