//! Fifty nodes join, one after the other, with a pod of an application on each, whose agent comes later. Nodes and pods are
//! simulated; what waits and what it waits for are real processes, at an address for each node.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use otelagent_core::names;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::kubelet::register;
use super::process::{self, Ended};
use super::run::{Outcome, Run, send};
use super::topology::{ALL, Topology};
use crate::status_checker::get;

const JOINS: u8 = 50;
const HOST_PORT: Topology = ALL[1];
/// The number of the first node among the simulated ones.
const FIRST: usize = 100;
/// Between two joins.
const PACE: Duration = Duration::from_millis(100);
/// The last agent comes so long after its node.
const LATEST: Duration = Duration::from_secs(5);
/// One span, as JSON.
const SPAN: &str = r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174", "name": "first", "kind": 1, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}]}]}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn first_span_of_every_pod_is_taken_on_fifty_nodes_whose_agents_come_later() {
    Run::through("fifty nodes that join", async |run| {
        for number in 0..JOINS {
            // The taint keeps away the pods of other tests.
            let taint = json!({"key": "example.com/other", "effect": "NoSchedule"});
            let node = json!({
                "metadata": {"name": node(run, number), "labels": {"kubernetes.io/os": "linux"}},
                "spec": {"taints": [taint]},
            });
            register(&run.admin, node, FIRST + usize::from(number)).await;
        }
        let outcome = join_all(run).await;
        for number in 0..JOINS {
            let path = format!("/api/v1/nodes/{}", node(run, number));
            let _ = send(&run.admin, Method::DELETE, &path, &Value::Null).await;
        }
        outcome
    })
    .await;
}

fn node(run: &Run, number: u8) -> String {
    format!("joins-{number}-{}", run.namespace)
}

/// The address of a node, which no other run of this test has.
fn address(number: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, 100 + number)
}

async fn join_all(run: &Run) -> Outcome<()> {
    run.create(HOST_PORT).await?;
    let gate = json!({"spec": {"workloads": {"startGate": {"type": "Wait", "timeout": "10m"}}}});
    run.patch(&run.path(), &gate).await?;
    run.until_serving(HOST_PORT).await?;
    let port = get(&run.admin, &run.path()).await?["spec"]["ports"]["grpc"].as_u64();
    let port = u16::try_from(port.unwrap_or_default()).map_err(|error| error.to_string())?;
    let program = tokio::task::spawn_blocking(|| demo::images::program("otelagent-agent"));
    let program = program.await.map_err(|error| error.to_string())?;
    let program = program.map_err(|error| error.to_string())?;
    let folder = std::env::temp_dir().join(format!("joins-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let mut joins = JoinSet::new();
    for number in 0..JOINS {
        let pod = pod_on(run, number).await?;
        let place: SocketAddr = (address(number), port).into();
        let config = configuration(&folder, place, number)?;
        joins.spawn(join(program.clone(), config, pod, place, number));
        sleep(PACE).await;
    }
    let mut failed = Vec::new();
    while let Some(joined) = joins.join_next().await {
        failed.extend(joined.map_err(|error| error.to_string())?.err());
    }
    let _ = std::fs::remove_dir_all(folder);
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "{} of {JOINS}: {}",
            failed.len(),
            failed.join("; ")
        ))
    }
}

/// A pod of the application that is bound to the node.
async fn pod_on(run: &Run, number: u8) -> Outcome<Value> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("joins-{number}"), "labels": {"app": "shop"}},
        "spec": {"nodeName": node(run, number), "containers": [{"name": "app", "image": "none"}]},
    });
    let path = format!("/api/v1/namespaces/{}/pods", run.namespace);
    send(&run.admin, Method::POST, &path, &pod).await
}

/// The pod starts as a kubelet starts it: its gate, and once that has ended, its application, which sends once.
async fn join(
    program: PathBuf,
    config: PathBuf,
    pod: Value,
    place: SocketAddr,
    number: u8,
) -> Outcome<()> {
    let node_address = place.ip().to_string();
    let expanded = |text: &str| text.replace("$(OTELAGENT_HOST_IP)", &node_address);
    let gate = &pod["spec"]["initContainers"][0];
    if gate["name"] != names::START_GATE {
        return Err(format!("{number}: no gate: {}", pod["spec"]));
    }
    let args = gate["args"].as_array().cloned().unwrap_or_default();
    let args = args
        .iter()
        .map(|arg| expanded(arg.as_str().unwrap_or_default()));
    let gate = Command::new(&program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut gate = Ended(gate.map_err(|error| error.to_string())?);

    sleep(LATEST * u32::from(number) / u32::from(JOINS)).await;
    if let Some(status) = gate.0.try_wait().map_err(|error| error.to_string())? {
        return Err(format!(
            "{number}: the gate ended before its agent: {status}"
        ));
    }
    let _agent = process::agent(&program, &config, []).map_err(|error| error.to_string())?;
    let status = tokio::task::spawn_blocking(move || gate.0.wait());
    let status = status.await.map_err(|error| error.to_string())?;
    let status = status.map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("{number}: the gate failed: {status}"));
    }
    let env = pod["spec"]["containers"][0]["env"].as_array().cloned();
    let env = env.unwrap_or_default();
    let endpoint = env
        .iter()
        .find(|variable| variable["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT");
    let endpoint = endpoint.and_then(|variable| variable["value"].as_str());
    let endpoint = expanded(endpoint.unwrap_or_default());
    let to = endpoint.trim_start_matches("http://");
    send_once(to)
        .await
        .map_err(|error| format!("{number}: the first span: {error}"))
}

/// The file with the configuration of an agent at the address of the node.
fn configuration(folder: &Path, place: SocketAddr, number: u8) -> Outcome<PathBuf> {
    let file = folder.join(format!("{number}.yaml"));
    let text = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{place}'}}}}}}}}\n\
         exporters: {{debug: {{}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
         pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}\n"
    );
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    Ok(file)
}

/// As an SDK that never tries again.
async fn send_once(to: &str) -> Outcome<()> {
    let told = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(to).await.map_err(told)?;
    let request = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{SPAN}",
        SPAN.len()
    );
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(told)?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(answer)
    }
}
