//! What a start gate adds to a pod whose agent is ready: pods that end at once, with and without a gate, in turns, on a
//! real node.
//!
//! `make bench-start-gate`. Measured from a pod's creation until the API server shows that it has ended. Both kinds pay
//! alike for admission, scheduling and the end of their container, so the difference is the gate. Figures say nothing
//! across machines.

use std::time::{Duration, Instant};

use demo::wait::{Seen, until};
use demo::{Kubectl, images, steps};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use testbed::{Bed, Cluster};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const NAMESPACE: &str = "gate";
/// Pods of each kind.
const PODS: usize = 100;
/// The longest time to wait for any result.
const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks at a pod.
const PACE: Duration = Duration::from_millis(5);

fn main() -> Outcome<()> {
    let built = images::ensure_all()?;
    let bed = Bed::builder().name("bench-start-gate").nodes(1).start()?;
    let cluster = Cluster::Bed(Box::new(bed));
    images::load_all(&cluster, &built)?;
    let kubectl = Kubectl::new(&cluster.kubectl()?);
    steps::install(&kubectl)?;
    kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}"
    ))?;
    kubectl.apply(&agent())?;
    until("the agent serves", PATIENCE, || {
        let agent: Value = kubectl.get(&["otelagent", "gate", "--namespace", steps::PLATFORM])?;
        let conditions = agent["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let serves = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
        Ok(Seen::check(serves, agent["status"].to_string()))
    })?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (plain, gated) = runtime.block_on(measure(&cluster))?;
    let ms = |times: &[Duration], percent| percentile(times, percent).as_secs_f64() * 1000.0;
    println!("| pods that end at once | median | p99 |\n|---|---|---|");
    for (what, times) in [("without a gate", &plain), ("with a gate", &gated)] {
        println!(
            "| {what} | {:.0} ms | {:.0} ms |",
            ms(times, 50),
            ms(times, 99)
        );
    }
    let added = |percent| ms(&gated, percent) - ms(&plain, percent);
    println!("| added | {:.0} ms | {:.0} ms |", added(50), added(99));
    if let Cluster::Bed(bed) = cluster {
        bed.stop()?;
    }
    Ok(())
}

fn agent() -> String {
    json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
        "metadata": {"name": "gate", "namespace": steps::PLATFORM},
        "spec": {
            "mode": "HostPort",
            "export": {"endpoint": "http://nobody.gate.svc:4317"},
            "workloads": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
                "startGate": {"type": "Wait"},
            },
        },
    })
    .to_string()
}

/// How long pods took without and with a gate.
async fn measure(cluster: &Cluster) -> Outcome<(Vec<Duration>, Vec<Duration>)> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let api: Api<Pod> = Api::namespaced(Client::try_from(config)?, NAMESPACE);
    let (mut plain, mut gated) = (Vec::new(), Vec::new());
    for number in 0..PODS {
        for (inject, times) in [("false", &mut plain), ("true", &mut gated)] {
            let name = format!("pod-{inject}-{number}");
            let begun = Instant::now();
            let created = api
                .create(&PostParams::default(), &pod(&name, inject)?)
                .await?;
            let inits = created.spec.and_then(|spec| spec.init_containers);
            if inits.is_some_and(|inits| !inits.is_empty()) != (inject == "true") {
                return Err(format!("{name} has a gate, or has none").into());
            }
            ended(&api, &name, begun).await?;
            times.push(begun.elapsed());
            let at_once = DeleteParams::default().grace_period(0);
            api.delete(&name, &at_once).await?;
        }
    }
    Ok((plain, gated))
}

async fn ended(api: &Api<Pod>, name: &str, begun: Instant) -> Outcome<()> {
    loop {
        let phase = api.get(name).await?.status.and_then(|status| status.phase);
        match phase.as_deref() {
            Some("Succeeded") => return Ok(()),
            Some("Failed") => return Err(format!("{name} failed").into()),
            _ if begun.elapsed() > PATIENCE => return Err(format!("{name} never ended").into()),
            _ => tokio::time::sleep(PACE).await,
        }
    }
}

/// A pod of the agent's image, which its node has, that prints its version.
fn pod(name: &str, inject: &str) -> Outcome<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"otelagent.dev/inject": inject}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "app", "image": images::AGENT, "imagePullPolicy": "IfNotPresent",
                "args": ["--version"],
            }],
        },
    }))?)
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}
