//! Nodes without machines: registered and kept Ready. A pod bound to one is ready at once, and gone as soon as it is
//! deleted.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::direct_config;

/// How many nodes.
pub(super) const NODES: usize = 3;
/// The node controller gives up on a node after 40 seconds.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Registers the nodes and lives for them, on the present runtime, until that ends.
pub(crate) async fn start(client: &Client) {
    for number in 1..=NODES {
        let node = json!({
            "metadata": {"name": format!("simulated-{number}"), "labels": {"kubernetes.io/os": "linux"}},
        });
        register(client, node, number).await;
    }
    tokio::spawn(serve(client.clone()));
}

/// The same on a thread of its own, for as long as the process lives: every test has a runtime of its own, and what
/// lives for all of them needs another. What `and` makes of its client is handed back.
pub(crate) fn start_apart<T: Send + 'static>(
    kubeconfig: &Path,
    and: impl FnOnce(&Client) -> T + Send + 'static,
) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let kubeconfig = kubeconfig.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let client = Client::try_from(direct_config(&kubeconfig).await).unwrap();
            start(&client).await;
            let _ = sender.send(and(&client));
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
}

/// Registers one more node, and lives for it on the present runtime.
pub(crate) async fn register(client: &Client, node: Value, number: usize) {
    let node: Node = serde_json::from_value(node).unwrap();
    let api = Api::<Node>::all(client.clone());
    api.create(&PostParams::default(), &node).await.unwrap();
    tokio::spawn(beat(api, node.name_any(), number));
}

async fn beat(api: Api<Node>, name: String, number: usize) {
    loop {
        let now = Timestamp::now().to_string();
        let status = json!({"status": {
            "capacity": amounts(), "allocatable": amounts(),
            "addresses": [{"type": "InternalIP", "address": format!("10.0.0.{number}")}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Simulated", "message": "simulated", "lastHeartbeatTime": now}],
        }});
        let _ = api
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(status))
            .await;
        sleep(HEARTBEAT).await;
    }
}

fn amounts() -> Value {
    json!({"cpu": "1000", "memory": "1000Gi", "pods": "5000"})
}

async fn serve(client: Client) {
    let all = Api::<Pod>::all(client.clone());
    loop {
        let Ok(mut stream) = all.watch(&WatchParams::default(), "0").await.map(Box::pin) else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        while let Some(Ok(event)) = stream.next().await {
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event {
                tokio::spawn(attend(client.clone(), pod));
            }
        }
    }
}

async fn attend(client: Client, pod: Pod) {
    let api = Api::<Pod>::namespaced(client, &pod.namespace().unwrap_or_default());
    let is_bound = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some());
    let runs = pod
        .status
        .as_ref()
        .is_some_and(|status| status.phase.as_deref() == Some("Running"));
    if pod.metadata.deletion_timestamp.is_some() {
        let _ = api
            .delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
            .await;
    } else if is_bound && !runs {
        let now = Timestamp::now().to_string();
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let status = json!({"metadata": {"uid": pod.uid()}, "status": {
            "phase": "Running", "startTime": now,
            "conditions": [condition("Initialized"), condition("ContainersReady"), condition("Ready")],
        }});
        let _ = api
            .patch_status(
                &pod.name_any(),
                &PatchParams::default(),
                &Patch::Strategic(status),
            )
            .await;
    }
}
