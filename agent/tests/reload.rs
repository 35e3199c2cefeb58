//! A configuration that changes while the agent runs: applied without effect on clients, or refused as a whole.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message;

use crate::support::agent::{Agent, Setup, get, temporary};
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::sink::Sink;
use crate::support::telemetry::spans;

const RELOADS: &str = "otelagent_config_reloads_total";

/// Writes the configuration and asks the agent to read it.
fn change(agent: &Agent, file: &Path, yaml: &str) {
    std::fs::write(file, yaml).unwrap();
    agent.hang_up();
}

async fn send(agent: &Agent, name: &str) -> u32 {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans(name, 1).encode_to_vec();
    grpc.call(client::TRACES, &message).await.unwrap().status
}

/// Sends over one connection for the whole test, by gRPC or by HTTP, and returns the spans' names. A request
/// that fails ends the test.
async fn send_until(
    number: usize,
    ports: Vec<std::net::SocketAddr>,
    stop: Arc<AtomicBool>,
) -> Vec<String> {
    let mut grpc = Grpc::connect(ports[0]).await;
    let mut http = Http::connect(ports[1]).await;
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("client{number}-{}", sent.len());
        let message = spans(&name, 1).encode_to_vec();
        if number.is_multiple_of(2) {
            let answer = grpc.call(client::TRACES, &message).await.unwrap();
            assert_eq!(answer.status, 0);
        } else {
            let answer = http.post("/v1/traces", &[], &message).await.unwrap();
            assert_eq!((answer.status, answer.header("connection")), (200, None));
        }
        sent.push(format!("{name}-0"));
    }
    sent
}

#[tokio::test]
async fn upstream_changes_under_load_without_loss() {
    let (first, second) = (Sink::grpc().await, Sink::grpc().await);
    let file = temporary("reload.yaml");
    let setup = Setup::grpc(first.address);
    std::fs::write(&file, setup.yaml()).unwrap();
    let agent = setup.start_from(&file);
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (ports, stop) = (agent.ports.clone(), Arc::clone(&stop));
        clients.spawn(send_until(number, ports, stop));
    }
    eventually("the first upstream is used", || !first.spans().is_empty()).await;
    let moved = Setup::grpc(second.address)
        .exporter("compression: zstd, headers: {x-tenant: b}")
        .processors(
            "memory_limiter: {check_interval: 1s, limit_mib: 70}",
            "memory_limiter",
        );
    change(&agent, &file, &moved.yaml());
    eventually("the second upstream is used", || second.spans().len() > 50).await;
    stop.store(true, Ordering::Relaxed);
    let mut sent: Vec<String> = Vec::new();
    while let Some(names) = clients.join_next().await {
        sent.extend(names.unwrap());
    }
    assert_eq!(agent.metric(RELOADS, "applied"), 1);
    let received = second.received();
    assert!(received.iter().all(|one| one.headers["x-tenant"] == "b"));
    assert!(
        received
            .iter()
            .all(|one| one.headers["grpc-encoding"] == "zstd")
    );
    agent.terminate();
    let (_, log) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    let mut arrived = [first.spans(), second.spans()].concat();
    arrived.sort();
    sent.sort();
    assert_eq!(arrived, sent);
    let line = log
        .iter()
        .find(|line| line["message"] == "configuration read");
    assert_eq!(
        line.unwrap()["changed"],
        "processors.memory_limiter, exporters.otlp_grpc"
    );
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn waiting_batches_go_to_a_new_upstream_at_once() {
    let sink = Sink::grpc().await;
    let file = temporary("gone.yaml");
    let nowhere =
        Setup::grpc("127.0.0.1:1".parse().unwrap()).retry("initial_interval: 1h, max_interval: 1h");
    std::fs::write(&file, nowhere.yaml()).unwrap();
    let agent = nowhere.start_from(&file);
    assert_eq!(send(&agent, "span").await, 0);
    let failed = "otelagent_exporter_failed_attempts_total";
    eventually("an attempt fails", || agent.metric(failed, "") > 0).await;
    change(&agent, &file, &Setup::grpc(sink.address).yaml());
    eventually("it arrives", || sink.spans() == ["span-0"]).await;
    std::fs::remove_file(file).unwrap();
}

/// As an orchestrator mounts files: the name is a link to a link that is swapped.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(name: &str) -> Self {
        Self(temporary(name))
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.join("agent.yaml")
    }

    fn publish(&self, version: &str, yaml: &str) {
        let directory = self.0.join(version);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("agent.yaml"), yaml).unwrap();
        let next = self.0.join("next");
        std::os::unix::fs::symlink(version, &next).unwrap();
        std::fs::rename(next, self.0.join("..data")).unwrap();
        let _ = std::os::unix::fs::symlink("..data/agent.yaml", self.file());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the agent says of its configuration: the fingerprint, and where it refuses another.
fn word(agent: &Agent) -> (String, Option<String>) {
    let body: serde_json::Value = serde_json::from_str(&get(agent.health, "/delivery").1).unwrap();
    let config = &body["config"];
    let refused = config["refused"].as_str().map(str::to_owned);
    (config["fingerprint"].as_str().unwrap().to_owned(), refused)
}

fn fingerprint(yaml: &str) -> String {
    format!("{:016x}", otelagent_agent::config::fingerprint(yaml))
}

#[tokio::test]
async fn file_swapped_by_a_link_is_taken_over_under_load_without_sighup_and_loss() {
    let sink = Sink::grpc().await;
    let mount = Mount::new("mount");
    let setup = |value: &str| {
        Setup::grpc(sink.address).processors(
            &format!("resource: {{attributes: [{{key: stage, value: {value}, action: upsert}}]}}"),
            "resource",
        )
    };
    mount.publish("one", &setup("one").yaml());
    let agent = setup("one").start_from(&mount.file());
    assert_eq!(word(&agent), (fingerprint(&setup("one").yaml()), None));
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (ports, stop) = (agent.ports.clone(), Arc::clone(&stop));
        clients.spawn(send_until(number, ports, stop));
    }
    for version in ["two", "three"] {
        let yaml = setup(version).yaml();
        mount.publish(version, &yaml);
        eventually("the agent says that it runs it", || {
            word(&agent) == (fingerprint(&yaml), None)
        })
        .await;
        let arrived = sink.received().len();
        eventually("telemetry has what it adds", || {
            let later = sink.received().split_off(arrived);
            let mut later = later
                .iter()
                .map(|one| String::from_utf8_lossy(&one.message));
            later.any(|message| message.contains(version))
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent: Vec<String> = Vec::new();
    while let Some(names) = clients.join_next().await {
        sent.extend(names.unwrap());
    }
    assert_eq!(agent.metric(RELOADS, "applied"), 2);
    agent.terminate();
    tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    let mut arrived = sink.spans();
    arrived.sort();
    sent.sort();
    assert_eq!(arrived, sent);
}

async fn refused(agent: &Agent, problem: &str) {
    let message = format!("configuration refused: {problem}");
    eventually(&message, || !agent.logged(&message).is_empty()).await;
}

#[tokio::test]
async fn invalid_file_is_refused_with_every_problem_while_running() {
    let sink = Sink::grpc().await;
    let file = temporary("bad-reload.yaml");
    let setup = Setup::grpc(sink.address);
    let yaml = setup.yaml();
    std::fs::write(&file, &yaml).unwrap();
    let agent = setup.start_from(&file);
    let bad = yaml
        .replace("timeout: 30s", "timeout: 5 parsecs")
        .replace("limit_mib: 64", "limit_mib: -1");
    change(&agent, &file, &bad);
    for message in [
        "exporters.otlp_grpc.timeout: `5 parsecs` is not a duration; write for example 200ms, 10s or 5m",
        "processors.memory_limiter.limit_mib: -1 is out of range; use 1 to 1048576",
    ] {
        refused(&agent, message).await;
    }
    // The file may be looked at for the signal and by itself.
    assert!(agent.metric(RELOADS, "refused") >= 1);
    let places = "processors.memory_limiter.limit_mib, exporters.otlp_grpc.timeout";
    eventually("others are told", || {
        word(&agent) == (fingerprint(&yaml), Some(places.into()))
    })
    .await;
    change(
        &agent,
        &file,
        &yaml.replace("encoding: json", "encoding: console"),
    );
    refused(
        &agent,
        "service.telemetry.logs: encoding and output_paths need a restart",
    )
    .await;
    std::fs::remove_file(&file).unwrap();
    agent.hang_up();
    let gone = format!(
        "cannot read {}: No such file or directory (os error 2)",
        file.display()
    );
    refused(&agent, &gone).await;
    let running = word(&agent).0;
    assert_eq!(running, fingerprint(&yaml), "the first one is in use");
    let metric = format!("otelagent_config_info{{fingerprint=\"{running}\"}}");
    assert!(agent.metrics().contains_key(&metric), "{metric}");
    assert_eq!(send(&agent, "span").await, 0);
    eventually("it arrives", || sink.spans() == ["span-0"]).await;
    change(&agent, &file, &yaml);
    eventually("it means what is in use", || {
        agent.metric(RELOADS, "unchanged") >= 1
    })
    .await;
    assert_eq!(word(&agent), (fingerprint(&yaml), None));
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn reload_applies_limits_and_log_level() {
    let sink = Sink::grpc().await;
    let file = temporary("limits.yaml");
    let setup = Setup::grpc(sink.address);
    std::fs::write(&file, setup.yaml()).unwrap();
    let agent = setup.start_from(&file);
    assert_eq!(send(&agent, "span").await, 0);
    let tight = setup
        .yaml()
        .replace(
            "sending_queue: {",
            "sending_queue: {sizer: bytes, queue_size: 10, ",
        )
        .replace("logs: {encoding", "logs: {level: error, encoding");
    change(&agent, &file, &tight);
    eventually("it is taken over", || {
        agent.metric("otelcol_exporter_queue_capacity", "traces") == 10
    })
    .await;
    assert_eq!(send(&agent, "span").await, 14, "the queue is too small now");
    assert!(
        agent.logged("configuration read").is_empty(),
        "an error is less severe"
    );
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn configuration_on_a_disk_that_hangs_holds_up_nothing() {
    let sink = Sink::grpc().await;
    let file = temporary("hanging.yaml");
    let setup = Setup::grpc(sink.address);
    std::fs::write(&file, setup.yaml()).unwrap();
    let agent = setup.start_from(&file);
    // Reading a pipe that nobody writes to waits as a disk that hangs.
    std::fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    agent.hang_up();
    for number in 0..10 {
        let name = format!("span{number}");
        let sent = tokio::time::timeout(Duration::from_secs(20), send(&agent, &name));
        assert_eq!(sent.await.unwrap(), 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("everything arrives", || sink.spans().len() == 10).await;
    assert_eq!(agent.metric(RELOADS, ""), 0);
    agent.terminate();
    let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    std::fs::remove_file(file).unwrap();
}
