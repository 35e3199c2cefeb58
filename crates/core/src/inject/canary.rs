//! Pods that verify a policy.
//!
//! The operator creates them by dry run in the canary namespace, and [`super::difference`] compares the
//! answers with [`super::pod::inject`]. They are valid under Pod Security `restricted`, because the injected
//! container must be, too.

use serde_json::{Value, json};

use super::gate::LEAST_MEMORY;
use super::json::{list, text};
use super::recipe::Recipe;
use crate::names;

/// Dry-run pods never start, so no node pulls this image.
const NO_IMAGE: &str = "otelagent.dev/none:1";
/// Value of the labels for which otelagent injects a probe, where it must not. No hash and no `OtelAgent` is
/// named so.
const NO_AGENT: &str = "none";

/// Pods that together take every branch of the program. `hash` is that of the policy.
pub fn probe_pods(recipe: &Recipe, hash: &str) -> Vec<Value> {
    let pod = |name: &str, spec| pod(&format!("otelagent-verification-{name}"), hash, spec);
    let image = recipe.container().map(|own| text(own, "image"));
    let image = image.filter(|image| !image.is_empty()).unwrap_or(NO_IMAGE);
    let app = container("app", image, &Value::Null);
    let bare = json!({"containers": [app]});
    let mut owned = pod("owned", bare.clone());
    let metadata = &mut owned["metadata"];
    metadata["annotations"] = json!({
        "resource.opentelemetry.io/service.version": "1 é,=",
        "resource.opentelemetry.io/team": "$(b)",
    });
    let controller = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "canary-abc", "uid": "none", "controller": true});
    metadata["ownerReferences"] = json!([controller]);
    metadata["labels"]["pod-template-hash"] = "abc".into();
    let mut pods = vec![pod("bare", bare), pod("full", full_spec(image)), owned];
    // Without other ports, such a pod is not injected.
    if let (Some(sidecar), Some(_)) = (&recipe.sidecar, &recipe.moved) {
        let mut clashing = app;
        clashing["ports"] = list(sidecar, "ports").iter().take(1).cloned().collect();
        pods.push(pod("clashing", json!({"containers": [clashing]})));
    }
    if recipe.start_gate.is_some() {
        // The others have too little memory for the gate.
        let mut app = container("app", image, &Value::Null);
        for kind in ["limits", "requests"] {
            app["resources"][kind]["memory"] = LEAST_MEMORY.into();
        }
        let mut proxy = container("istio-proxy", image, &Value::Null);
        proxy["restartPolicy"] = "Always".into();
        let setup = container("setup", image, &Value::Null);
        pods.push(pod("gated", json!({"containers": [app]})));
        let meshed = json!({"initContainers": [proxy, setup], "containers": [app]});
        pods.push(pod("meshed", meshed));
    }
    pods
}

/// A spec with every kind of container that the program distinguishes.
fn full_spec(image: &str) -> Value {
    json!({
        "initContainers": [
            container("istio-init", image, &json!([])),
            container("prepare", image, &json!([{"name": "OTEL_SERVICE_NAME", "value": "own"}])),
        ],
        "containers": [
            container("app", image, &json!([
                {"name": "PLAIN", "value": "1"},
                {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "team=a,service.namespace=own"},
                {"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": "http://own:4317"},
            ])),
            container("other", image, &json!([
                {"name": "OTEL_RESOURCE_ATTRIBUTES", "valueFrom": {"configMapKeyRef": {"name": "own", "key": "k"}}},
            ])),
            carrying(image, "APP_"),
            carrying(image, "OTEL_"),
        ],
        "volumes": [{"name": "own", "emptyDir": {}}],
    })
}

/// A pod that is injected in the canary namespace if, and only if, the real binding of an `OtelAgent`
/// (given as by [`names::agent_label`]) is active. Its label [`names::LABEL_CONFIG`] then names the recipe.
pub fn active_probe(agent: &str) -> Value {
    let mut asking = engine_pod("");
    asking["metadata"]["labels"] = json!({names::LABEL_CANARY: agent});
    asking
}

/// The same for one engine: injected if, and only if, the policy or webhook configuration with this hash is
/// bound.
pub fn engine_pod(hash: &str) -> Value {
    let app = container("app", NO_IMAGE, &Value::Null);
    pod("otelagent-active", hash, json!({"containers": [app]}))
}

/// The same pod for everybody but otelagent, which does not inject it.
pub fn unlabelled(probe: &Value) -> Value {
    let mut probe = probe.clone();
    for label in [names::LABEL_VERIFICATION, names::LABEL_CANARY] {
        if let Some(value) = probe["metadata"]["labels"].get_mut(label) {
            *value = NO_AGENT.into();
        }
    }
    probe
}

fn pod(name: &str, hash: &str, mut spec: Value) -> Value {
    spec["automountServiceAccountToken"] = false.into();
    spec["securityContext"] =
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {names::LABEL_VERIFICATION: hash}},
        "spec": spec,
    })
}

/// A container whose `envFrom` may set variables with a prefix.
fn carrying(image: &str, prefix: &str) -> Value {
    let name = format!("carries-{}", prefix.to_ascii_lowercase().replace('_', ""));
    let mut container = container(&name, image, &Value::Null);
    container["envFrom"] = json!([{"prefix": prefix, "configMapRef": {"name": "own"}}]);
    container
}

/// Requests and limits, which a quota in the namespace may require.
fn container(name: &str, image: &str, env: &Value) -> Value {
    let amounts = json!({"cpu": "1m", "memory": "1Mi"});
    let mut container = json!({
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    if !env.is_null() {
        container["env"] = env.clone();
    }
    container
}
