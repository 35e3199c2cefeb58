//! Pods that verify a policy, and the comparison of what the API server made of them with what
//! [`super::pod::inject`] makes of them.
//!
//! They are created as dry run in the canary namespace. They are valid under Pod Security
//! `restricted`, since the injected container must be valid under it as well. Must not know
//! how requests are made.

use serde_json::{Value, json};

use super::json::{list, text};
use super::pod::{Injection, inject};
use super::recipe::Recipe;
use crate::names;
use crate::quantity;

/// Lists whose items are known by name and may be joined by other admission plugins' items; order
/// counts. All other lists must be equal item by item.
const NAMED_LISTS: [&str; 4] = ["containers", "initContainers", "env", "volumes"];

/// Dry-run pods never start, so nothing ever looks for this.
const NO_IMAGE: &str = "otelagent.dev/none:1";

/// A pod in which server and function differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {path} the policy made {found} where {expected} was expected")]
pub struct Mismatch {
    /// Where, such as `spec.containers[app].env[OTEL_SERVICE_NAME].value`.
    pub path: String,
    /// What the function makes there.
    pub expected: String,
    /// What the server made there.
    pub found: String,
}

/// Pods that together take every branch of the program. `hash` is the policy's.
pub fn probe_pods(recipe: &Recipe, hash: &str) -> Vec<Value> {
    let pod = |name: &str, spec| pod(&format!("otelagent-verification-{name}"), hash, spec);
    let image = recipe
        .sidecar
        .as_ref()
        .map(|sidecar| text(sidecar, "image"));
    let image = image.filter(|image| !image.is_empty()).unwrap_or(NO_IMAGE);
    let app = container("app", image, &Value::Null);
    let bare = json!({"containers": [app]});
    let mut owned = pod("owned", bare.clone());
    let metadata = &mut owned["metadata"];
    metadata["annotations"] = json!({
        "resource.opentelemetry.io/service.version": "1 é,=",
        "resource.opentelemetry.io/team": "$(b)",
    });
    let controller = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "proof-abc", "uid": "none", "controller": true});
    metadata["ownerReferences"] = json!([controller]);
    metadata["labels"]["pod-template-hash"] = "abc".into();
    let mut pods = vec![pod("bare", bare), pod("full", full_spec(image)), owned];
    // Where there are no other ports, such a pod is not injected.
    if let (Some(sidecar), Some(_)) = (&recipe.sidecar, &recipe.moved) {
        let mut clashing = app;
        clashing["ports"] = list(sidecar, "ports").iter().take(1).cloned().collect();
        pods.push(pod("clashing", json!({"containers": [clashing]})));
    }
    pods
}

/// A spec with containers of every kind that the program tells apart.
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

/// A pod that is injected in the canary namespace if, and only if, the real binding of an agent (as
/// made by [`names::agent_label`]) is active. Its label [`names::LABEL_CONFIG`] then tells with which
/// recipe.
pub fn in_force_pod(agent: &str) -> Value {
    let mut asking = engine_pod("");
    asking["metadata"]["labels"] = json!({names::LABEL_CANARY: agent});
    asking
}

/// As [`in_force_pod`], of one engine: injected if, and only if, what has this content is bound.
pub fn engine_pod(hash: &str) -> Value {
    let app = container("app", NO_IMAGE, &Value::Null);
    pod("otelagent-in-force", hash, json!({"containers": [app]}))
}

/// Compares the API server's answer to the creation of a probe with the function's result. What the
/// server fills in by itself, and what other admission plugins add, is left out of account.
///
/// # Errors
/// The first difference.
pub fn compare(
    probe: &Value,
    answer: &Value,
    recipe: &Recipe,
    namespace: &str,
) -> Result<(), Mismatch> {
    match inject(probe, namespace, recipe) {
        Injection::Injected(expected) => covers(&expected, answer, [""; 3]),
        Injection::Skipped(reason) => Err(Mismatch {
            path: "metadata.name".into(),
            expected: "a pod that can be injected".into(),
            found: format!("{}: {reason}", text(&probe["metadata"], "name")),
        }),
    }
}

fn pod(name: &str, hash: &str, mut spec: Value) -> Value {
    spec["automountServiceAccountToken"] = false.into();
    spec["securityContext"] = json!({"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {names::LABEL_VERIFICATION: hash}},
        "spec": spec,
    })
}

/// One whose `envFrom` may carry what begins with a prefix.
fn carrying(image: &str, prefix: &str) -> Value {
    let name = format!("carries-{}", prefix.to_ascii_lowercase().replace('_', ""));
    let mut container = container(&name, image, &Value::Null);
    container["envFrom"] = json!([{"prefix": prefix, "configMapRef": {"name": "own"}}]);
    container
}

/// Requests and limits, since a quota in the namespace may ask for them.
fn container(name: &str, image: &str, env: &Value) -> Value {
    let amounts = json!({"cpu": "1m", "memory": "1Mi"});
    let mut container = json!({
        "name": name,
        "image": image,
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    if !env.is_null() {
        container["env"] = env.clone();
    }
    container
}

/// Whether everything expected was found. `keys` are the last three under which both stand; items of lists
/// have none.
fn covers(expected: &Value, found: &Value, keys: [&str; 3]) -> Result<(), Mismatch> {
    let [above, parent, own] = keys;
    // The server rewrites amounts.
    let holds_quantity = above == "resources" || parent == "emptyDir";
    match (expected, found) {
        (Value::Object(expected), Value::Object(_)) => {
            let mut expected = expected.iter().filter(|(_, value)| !is_empty(value));
            expected.try_for_each(|(key, value)| {
                covers(value, &found[key], [parent, own, key]).map_err(|found| found.under(key))
            })
        }
        (Value::Array(expected), Value::Array(found)) if NAMED_LISTS.contains(&own) => {
            covers_named(expected, found)
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let mut pairs = expected.iter().zip(found).enumerate();
            pairs.try_for_each(|(index, (expected, found))| {
                covers(expected, found, [""; 3]).map_err(|found| found.under(&format!("[{index}]")))
            })
        }
        (Value::String(a), Value::String(b)) if holds_quantity && quantity::same(a, b) => Ok(()),
        _ if expected == found => Ok(()),
        _ => Err(mismatch(expected, found)),
    }
}

/// Fields without content, which Go leaves out where they are no pointers.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Expected items in their order, others in between; none twice.
fn covers_named(expected: &[Value], found: &[Value]) -> Result<(), Mismatch> {
    let mut rest = found.iter();
    let names: Vec<&str> = found.iter().map(|other| text(other, "name")).collect();
    for item in expected {
        let name = text(item, "name");
        let outcome = if names.iter().filter(|other| **other == name).count() > 1 {
            Err(mismatch(&json!("one"), &json!("several")))
        } else {
            match rest.find(|other| text(other, "name") == name) {
                Some(other) => covers(item, other, [""; 3]),
                None => Err(mismatch(item, &json!(names))),
            }
        };
        outcome.map_err(|found| found.under(&format!("[{name}]")))?;
    }
    Ok(())
}

fn mismatch(expected: &Value, found: &Value) -> Mismatch {
    Mismatch {
        path: String::new(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

impl Mismatch {
    /// The same, seen from one level above: by the key of an object, or by the item of a list in brackets.
    fn under(mut self, step: &str) -> Self {
        let is_key = !self.path.is_empty() && !self.path.starts_with('[');
        let dot = if is_key { "." } else { "" };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}
