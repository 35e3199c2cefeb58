//! The checker itself, on clusters made by hand: for each kind of mismatch one that it must report, and a neighbour
//! that it must not.

mod agents;
mod conditions;
mod pods;
mod quotes;
mod restarts;
mod status;

use otelagent_core::names;
use serde_json::{Value, json};

use super::{ClusterView, mismatches};

/// The `OtelAgent` that is checked.
const OWNER: &str = "platform.node";
/// The configuration that new pods are given.
const CONFIG: &str = "c0ffee";
const TEMPLATE: &str = "7e3a";

/// An `OtelAgent` of mode `NodeLocal` at rest: two nodes with an agent each, and two injected pods in `shop`.
fn settled() -> ClusterView {
    let mut view = ClusterView {
        agent: agent("platform", "node", "2026-01-02T00:00:00Z"),
        namespaces: ["platform", "shop", "kube-system", "otelagent-system"]
            .map(namespace)
            .into(),
        nodes: ["n1", "n2"].map(node).into(),
        daemon_sets: vec![daemon_set("NodeLocal")],
        services: vec![json!({"metadata": {
            "name": "node", "namespace": "platform", "labels": {names::LABEL_OWNER: OWNER},
        }})],
        policies: vec![json!({"metadata": {"name": "otelagent.platform.node.f00"}})],
        bindings: vec![binding("NodeLocal")],
        new_pods: vec![injected("new", "", "NodeLocal")],
        pods: vec![
            agent_pod("NodeLocal", "n1"),
            agent_pod("NodeLocal", "n2"),
            injected("cart", "n1", "NodeLocal"),
            injected("till", "n2", "NodeLocal"),
        ],
        ..ClusterView::default()
    };
    view.agent["status"] = json!({
        "observedGeneration": 3, "mode": "NodeLocal", "endpoint": "http://node.platform.svc:4317", "paths": ["NodeLocal"],
        "agents": {"desired": 2, "ready": 2, "updated": 2},
        "delivery": {"asked": 2, "delivering": 2, "idle": 0, "failing": 0, "unanswered": 0},
        "pods": {
            "injected": 2, "current": 2, "stale": 0, "missed": 0, "orphaned": 0, "uninjectable": 0, "uncovered": 0,
            "byMode": {"NodeLocal": 2},
        },
        "conditions": [
            condition("Accepted", "True", "Valid", "the spec is valid"),
            condition("Ready", "True", "Serving", "new pods use NodeLocal"),
            condition("Switching", "False", "Settled", "every pod uses NodeLocal"),
            condition("Injected", "True", "Active", "every selected pod is injected"),
            condition("Delivering", "True", "Delivering", "2 of 2 agents deliver"),
        ],
    });
    view.agents = vec![view.agent.clone()];
    view
}

/// The same in mode `Sidecar`, which has no agents on nodes.
fn settled_sidecar() -> ClusterView {
    let mut view = settled();
    view.agent["spec"]["mode"] = "Sidecar".into();
    view.daemon_sets.clear();
    view.services.clear();
    view.bindings = vec![binding("Sidecar")];
    view.new_pods = vec![injected("new", "", "Sidecar")];
    view.pods = vec![
        injected("cart", "n1", "Sidecar"),
        injected("till", "n2", "Sidecar"),
    ];
    let status = &mut view.agent["status"];
    status["mode"] = "Sidecar".into();
    status["endpoint"] = "http://127.0.0.1:4317".into();
    status["paths"] = json!([]);
    status["pods"]["byMode"] = json!({"Sidecar": 2});
    view.agents = vec![view.agent.clone()];
    view
}

/// In the middle of a switch to `HostPort`, which serves: one pod was replaced, the other holds the old route.
fn switching() -> ClusterView {
    let mut view = settled();
    view.agent["spec"]["mode"] = "HostPort".into();
    view.daemon_sets.push(daemon_set("HostPort"));
    view.bindings = vec![binding("HostPort")];
    view.new_pods = vec![injected("new", "", "HostPort")];
    view.pods = vec![
        agent_pod("NodeLocal", "n1"),
        agent_pod("NodeLocal", "n2"),
        agent_pod("HostPort", "n1"),
        agent_pod("HostPort", "n2"),
        injected("cart", "n1", "HostPort"),
        injected("till", "n2", "NodeLocal"),
    ];
    let status = &mut view.agent["status"];
    status["mode"] = "HostPort".into();
    status["endpoint"] = "http://$(OTELAGENT_HOST_IP):4317".into();
    status["paths"] = json!(["NodeLocal", "HostPort"]);
    status["pods"]["current"] = 1.into();
    status["pods"]["stale"] = 1.into();
    status["pods"]["byMode"] = json!({"NodeLocal": 1, "HostPort": 1});
    tell(
        &mut view,
        "Switching",
        "True",
        "OldRouteInUse",
        "1 pod uses NodeLocal: till",
    );
    view.agents = vec![view.agent.clone()];
    view
}

fn agent(namespace: &str, name: &str, created: &str) -> Value {
    json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid of {namespace}/{name}"),
            "creationTimestamp": created, "generation": 3,
        },
        "spec": {
            "mode": "NodeLocal", "ports": {"grpc": 4317, "http": 4318},
            "workloads": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
                "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
            },
        },
    })
}

/// Another `OtelAgent`, with the selection of the checked one, whose `Accepted` has this status.
fn other_agent(created: &str, accepted: &str) -> Value {
    let mut agent = agent("platform", "other", created);
    agent["status"] = json!({
        "observedGeneration": 3, "conditions": [condition("Accepted", accepted, "Any", "any")],
    });
    agent
}

fn namespace(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name}, "status": ready(true)})
}

fn daemon_set(mode: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("node-{mode}"), "namespace": "platform", "uid": format!("uid of {mode}"), "generation": 1,
            "labels": {names::LABEL_OWNER: OWNER, names::LABEL_WORKLOAD: mode},
        },
        "spec": {"template": {"metadata": {"labels": {names::LABEL_TEMPLATE: TEMPLATE}}}},
        "status": {"observedGeneration": 1, "desiredNumberScheduled": 2},
    })
}

fn binding(mode: &str) -> Value {
    json!({
        "metadata": {
            "name": "otelagent.platform.node",
            "annotations": {names::ANNOTATION_SERVING: mode, names::ANNOTATION_RECIPE: CONFIG},
        },
        "spec": {"policyName": "otelagent.platform.node.f00"},
    })
}

fn agent_pod(mode: &str, node: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("node-{mode}-{node}"), "namespace": "platform",
            "labels": {
                names::LABEL_OWNER: OWNER, names::LABEL_WORKLOAD: mode, names::LABEL_TEMPLATE: TEMPLATE,
            },
            "ownerReferences": [{"controller": true, "name": format!("node-{mode}"), "uid": format!("uid of {mode}")}],
        },
        "spec": {"nodeName": node}, "status": ready(true),
    })
}

/// A pod of `shop` without injection.
fn plain(name: &str, node: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid of {name}"), "labels": {"app": name},
        },
        "spec": {"nodeName": node, "containers": [{"name": "app"}]}, "status": ready(true),
    })
}

fn injected(name: &str, node: &str, mode: &str) -> Value {
    let mut pod = plain(name, node);
    for (key, value) in [
        (names::LABEL_AGENT, OWNER),
        (names::LABEL_MODE, mode),
        (names::LABEL_CONFIG, CONFIG),
    ] {
        pod["metadata"]["labels"][key] = value.into();
    }
    let endpoint = match mode {
        "Sidecar" => "http://127.0.0.1:4317",
        "NodeLocal" => "http://node.platform.svc:4317",
        _ => "http://$(OTELAGENT_HOST_IP):4317",
    };
    pod["spec"]["containers"][0]["env"] =
        json!([{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint}]);
    pod
}

fn ready(is_ready: bool) -> Value {
    let status = if is_ready { "True" } else { "False" };
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": status}]})
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": 3})
}

/// Sets a condition; that a spec is refused, by both conditions that say so.
fn tell(view: &mut ClusterView, kind: &str, status: &str, reason: &str, message: &str) {
    let conditions = view.agent["status"]["conditions"].as_array_mut().unwrap();
    conditions.retain(|condition| condition["type"] != kind);
    conditions.push(condition(kind, status, reason, message));
    if kind == "Accepted" {
        conditions.retain(|condition| condition["type"] != "Stalled");
        if status == "False" {
            conditions.push(condition("Stalled", "True", reason, message));
        }
    }
}

/// A pod that was missed, and a status that says so.
fn with_missed_pod(mut view: ClusterView) -> ClusterView {
    view.pods.push(plain("late", "n1"));
    view.agent["status"]["pods"]["missed"] = 1.into();
    tell(
        &mut view,
        "Injected",
        "False",
        "PodsMissed",
        "1 pod was missed: late",
    );
    view
}

/// The fields that the checker reports, each once.
fn fields(mut view: ClusterView) -> Vec<String> {
    let uid = &view.agent["metadata"]["uid"];
    if let Some(listed) = view
        .agents
        .iter_mut()
        .find(|agent| agent["metadata"]["uid"] == *uid)
    {
        *listed = view.agent.clone();
    }
    let mut fields: Vec<String> = mismatches(&view)
        .into_iter()
        .map(|found| found.field)
        .collect();
    fields.sort();
    fields.dedup();
    fields
}

/// Changes one field of the status, by its path.
fn with_status(mut view: ClusterView, field: &str, value: Value) -> ClusterView {
    let pointer = format!("/{}", field.replace('.', "/"));
    match view.agent["status"].pointer_mut(&pointer) {
        Some(found) => *found = value,
        None => view.agent["status"][field] = value,
    }
    view
}

#[track_caller]
fn accepts(view: ClusterView) {
    let none: [&str; 0] = [];
    assert_eq!(fields(view), none);
}

/// The checker reports these fields, and no others.
#[track_caller]
fn reports(view: ClusterView, expected: &[&str]) {
    assert_eq!(fields(view), expected);
}
