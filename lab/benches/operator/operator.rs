//! What the operator costs: time from a change to the objects it means, what injection adds to the
//! creation of a pod, memory with few and with many objects.
//!
//! `make bench-operator`. The API server is a real one, the operator the release binary beside it; no
//! node is needed, since agent workloads are objects and pods may stay Pending. Figures are medians and 99th
//! percentiles of interleaved runs; they say nothing across machines.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use otelagent_api::{OtelAgent, crd_yaml};
use serde_json::{Value, json};
use testbed::Bed;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const PLATFORM: &str = "otelagent-system";
const CHANGES: usize = 100;
const CREATES: usize = 400;
const MANY_AGENTS: usize = 100;
const MANY_PODS: usize = 2000;

/// The operator, ended with the benchmark.
struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let bed =
        tokio::task::spawn_blocking(|| Bed::builder().name("bench-operator").start()).await??;
    let config = Config::from_custom_kubeconfig(
        Kubeconfig::read_from(bed.kubeconfig())?,
        &KubeConfigOptions::default(),
    )
    .await?;
    let client = Client::try_from(config)?;
    prepare(&client).await?;
    let operator = start_operator(&bed)?;
    let mut table = String::from("| measure | median | p99 |\n|---|---|---|\n");

    apply_agent(&client, "first", "bench").await?;
    until_workload(&client, "first", "").await?;
    let reconciles = change_to_applied(&client).await?;
    row(
        &mut table,
        "change of one field to DaemonSet written",
        &reconciles,
    )?;

    make_serving(&client, "side").await?;
    let (plain, injected) = admission(&client).await?;
    row(
        &mut table,
        "dry-run create of a pod with 3 containers, not selected",
        &plain,
    )?;
    row(
        &mut table,
        "the same, selected and injected with a sidecar",
        &injected,
    )?;
    let ratio = median(&injected).as_secs_f64() / median(&plain).as_secs_f64();
    writeln!(table, "| ratio of the two | {ratio:.2} | |")?;

    let few = rss(&operator)?;
    fill(&client).await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let many = rss(&operator)?;
    writeln!(
        table,
        "| operator RSS, 2 OtelAgents and no pods | {few:.1} MiB | |"
    )?;
    writeln!(
        table,
        "| operator RSS, {MANY_AGENTS} OtelAgents and {MANY_PODS} pods | {many:.1} MiB | |"
    )?;
    println!("{table}");
    drop(operator);
    tokio::task::spawn_blocking(move || bed.stop()).await??;
    Ok(())
}

async fn prepare(client: &Client) -> Outcome<()> {
    let apply = PatchParams::apply("bench").force();
    let crd: Value = serde_saphyr::from_str(&crd_yaml()?)?;
    let crds: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> =
        Api::all(client.clone());
    crds.patch("otelagents.otelagent.dev", &apply, &Patch::Apply(crd))
        .await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in [PLATFORM, "otelagent-canary", "bench", "plain"] {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        namespaces
            .patch(name, &apply, &Patch::Apply(namespace))
            .await?;
    }
    // The CRD is served, and default ServiceAccounts exist, a moment later.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(())
}

/// The operator as it is shipped.
fn start_operator(bed: &Bed) -> Outcome<Operator> {
    let binary = demo::images::shipped_operator()?;
    let child = Command::new(binary)
        .args([
            "controller",
            "--owner-role=",
            "--metrics-address=127.0.0.1:0",
            "--health-address=127.0.0.1:0",
            "--log-level=warn",
        ])
        .env("KUBECONFIG", bed.kubeconfig())
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Operator(child))
}

fn agent(name: &str, selects: &str, mode: &str) -> Value {
    json!({
        "apiVersion": "otelagent.dev/v1alpha1",
        "kind": "OtelAgent",
        "metadata": {"name": name, "namespace": PLATFORM},
        "spec": {
            "mode": mode,
            "export": {"endpoint": "http://collector.bench.svc:4317"},
            "batch": {"flushInterval": "200ms"},
            "workloads": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": selects}}},
        },
    })
}

async fn apply_agent(client: &Client, name: &str, selects: &str) -> Outcome<()> {
    let api: Api<OtelAgent> = Api::namespaced(client.clone(), PLATFORM);
    let apply = PatchParams::apply("bench").force();
    api.patch(
        name,
        &apply,
        &Patch::Apply(agent(name, selects, "NodeLocal")),
    )
    .await?;
    Ok(())
}

/// Waits until the agent workload has a text in it.
async fn until_workload(client: &Client, name: &str, needle: &str) -> Outcome<Duration> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), PLATFORM);
    let name = format!("{name}-node-local");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        let found = api.get_opt(&name).await?;
        if found.is_some_and(|object| {
            serde_json::to_string(&object).is_ok_and(|text| text.contains(needle))
        }) {
            return Ok(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(format!("{name} never had {needle}").into())
}

async fn change_to_applied(client: &Client) -> Outcome<Vec<Duration>> {
    let api: Api<OtelAgent> = Api::namespaced(client.clone(), PLATFORM);
    let mut took = Vec::new();
    for change in 0..CHANGES {
        let label = format!("changed-{change}");
        let patch = json!({"spec": {"agent": {"podLabels": {"bench": label}}}});
        let begun = Instant::now();
        api.patch("first", &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        until_workload(client, "first", &label).await?;
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(took)
}

/// An `OtelAgent` that needs no workload, waited for until it serves.
async fn make_serving(client: &Client, name: &str) -> Outcome<()> {
    let api: Api<OtelAgent> = Api::namespaced(client.clone(), PLATFORM);
    // The older one selects the same pods and would keep them, though it has no node to serve from.
    api.delete("first", &DeleteParams::default()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    api.create(
        &PostParams::default(),
        &serde_json::from_value(agent(name, "bench", "Sidecar"))?,
    )
    .await?;
    for _ in 0..120 {
        let status = api.get(name).await?.status.unwrap_or_default();
        if status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Err("the sidecar never served".into())
}

fn pod(name: &str) -> Outcome<Pod> {
    let container =
        |name: &str| json!({"name": name, "image": "app:1", "env": [{"name": "A", "value": "b"}]});
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"containers": [container("one"), container("two"), container("three")]},
    }))?)
}

/// Dry-run creates in a namespace that is not selected and in one that is, in turns.
async fn admission(client: &Client) -> Outcome<(Vec<Duration>, Vec<Duration>)> {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let (mut plain, mut injected) = (Vec::new(), Vec::new());
    for _ in 0..CREATES {
        for (namespace, times) in [("plain", &mut plain), ("bench", &mut injected)] {
            let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let begun = Instant::now();
            let answer = api.create(&dry_run, &pod("measured")?).await?;
            times.push(begun.elapsed());
            let is_injected = answer
                .metadata
                .labels
                .unwrap_or_default()
                .contains_key("otelagent.dev/agent");
            if is_injected != (namespace == "bench") {
                return Err(format!("a pod of {namespace} was injected: {is_injected}").into());
            }
        }
    }
    Ok((plain, injected))
}

/// Many objects and many pods.
async fn fill(client: &Client) -> Outcome<()> {
    for number in 2..MANY_AGENTS {
        apply_agent(client, &format!("many-{number}"), &format!("none-{number}")).await?;
    }
    apply_agent(client, "first", "bench").await?;
    let api: Api<Pod> = Api::namespaced(client.clone(), "bench");
    for number in 0..MANY_PODS {
        api.create(&PostParams::default(), &pod(&format!("pod-{number}"))?)
            .await?;
    }
    let listed = api.list(&ListParams::default()).await?.items.len();
    if listed == MANY_PODS {
        Ok(())
    } else {
        Err(format!("{listed} pods instead of {MANY_PODS}").into())
    }
}

/// Resident memory in MiB, as the kernel counts it.
fn rss(operator: &Operator) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.0.id()))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib / 1024.0)
}

fn row(table: &mut String, what: &str, times: &[Duration]) -> Outcome<()> {
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    writeln!(
        table,
        "| {what} | {:.1} ms | {:.1} ms |",
        ms(median(times)),
        ms(percentile(times, 99))
    )?;
    Ok(())
}

fn median(times: &[Duration]) -> Duration {
    percentile(times, 50)
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
