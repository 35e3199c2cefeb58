//! Nodes that agents leave out: Windows nodes, virtual nodes with their taint, nodes of an architecture for which there is
//! no image. They hold up nothing, and pods on them
//! are told as uncovered.

use serde_json::{Value, json};

use super::kubelet::{NODES, register};
use super::run::{Outcome, Run, condition, send};
use super::topology::{ALL, Topology};
use crate::status_checker::get;

const NODE_LOCAL: Topology = ALL[3];

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_agents_leave_out_hold_up_nothing_and_their_pods_are_told() {
    Run::through("nodes that agents leave out", async |run| {
        let nodes = nodes(&run.namespace);
        for (number, node) in nodes.iter().enumerate() {
            register(&run.admin, node.clone(), 10 + number).await;
        }
        let outcome = tell(run).await;
        for node in nodes {
            let name = node["metadata"]["name"].as_str().unwrap();
            let path = format!("/api/v1/nodes/{name}");
            let _ = send(&run.admin, http::Method::DELETE, &path, &Value::Null).await;
        }
        outcome
    })
    .await;
}

/// A Windows node, a virtual one, and one of another architecture. The taints of the first and last keep away the pods of other tests; the agents of this one
/// tolerate them.
fn nodes(run: &str) -> [Value; 3] {
    let node = |name: &str, os: &str, arch: &str, taint: &str| {
        let labels = json!({"kubernetes.io/os": os, "kubernetes.io/arch": arch});
        json!({
            "metadata": {"name": format!("{name}-{run}"), "labels": labels},
            "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]},
        })
    };
    [
        node("windows", "windows", "amd64", "example.com/other"),
        node("virtual", "linux", "amd64", "virtual-kubelet.io/provider"),
        node("mainframe", "linux", "s390x", "example.com/other"),
    ]
}

async fn tell(run: &Run) -> Outcome<()> {
    run.create(NODE_LOCAL).await?;
    let tolerations = json!([{"key": "example.com/other", "operator": "Exists"}]);
    let spec = json!({"spec": {"agent": {"tolerations": tolerations}}});
    run.patch(&run.path(), &spec).await?;
    run.until_serving(NODE_LOCAL).await?;
    let agent = get(&run.admin, &run.path()).await?;
    assert_eq!(agent["status"]["agents"]["desired"], NODES);

    for name in ["windows", "virtual", "mainframe"] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "shop"}},
            "spec": {
                "nodeName": format!("{name}-{}", run.namespace),
                "containers": [{"name": "app", "image": "none"}],
            },
        });
        let path = format!("/api/v1/namespaces/{}/pods", run.namespace);
        send(&run.admin, http::Method::POST, &path, &pod).await?;
    }
    let named = [
        "virtual-kubelet.io/provider is not tolerated",
        "it has label kubernetes.io/os=windows, not linux",
        "it has label kubernetes.io/arch=s390x",
    ];
    run.until("pods on nodes without an agent", async || {
        let agent = get(&run.admin, &run.path()).await?;
        let ready = condition(&agent, "Ready");
        let message = ready["message"].as_str().unwrap_or_default();
        let holds = agent["status"]["pods"]["uncovered"] == 3
            && ready["reason"] == "PodsUncovered"
            && named.iter().all(|why| message.contains(why));
        Ok(holds
            .then_some(())
            .ok_or_else(|| agent["status"].to_string()))
    })
    .await
}
