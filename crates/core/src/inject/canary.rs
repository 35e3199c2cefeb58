//! Pods that verify a policy, and the comparison of the API server's result with that of
//! [`super::pod::inject`].
//!
//! The operator creates them by dry run in the canary namespace. They are valid under Pod Security
//! `restricted`, because the injected container must be, too.

use serde_json::{Value, json};

use super::json::{list, text};
use super::pod::{Injection, inject};
use super::recipe::Recipe;
use crate::names;
use crate::quantity;

/// Lists whose items have names, and to which other admission plugins may add items; their order matters.
/// All other lists must be equal item by item.
const NAMED_LISTS: [&str; 4] = ["containers", "initContainers", "env", "volumes"];

/// Dry-run pods never start, so no node pulls this image.
const NO_IMAGE: &str = "otelagent.dev/none:1";

/// A difference between the server's pod and the function's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {path} the policy made {found} where {expected} was expected")]
pub struct Mismatch {
    /// The field, such as `spec.containers[app].env[OTEL_SERVICE_NAME].value`.
    pub path: String,
    /// The function's value.
    pub expected: String,
    /// The server's value.
    pub found: String,
}

/// Pods that together take every branch of the program. `hash` is that of the policy.
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

/// Compares the API server's answer to the creation of a probe with the function's result. Ignores defaults
/// of the server and additions of other admission plugins.
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
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    if !env.is_null() {
        container["env"] = env.clone();
    }
    container
}

/// Checks that `found` has everything that is expected. `keys` are the last three keys of the path; items
/// of lists have none.
fn covers(expected: &Value, found: &Value, keys: [&str; 3]) -> Result<(), Mismatch> {
    let [above, parent, own] = keys;
    // The server rewrites quantities.
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

/// Empty fields, which Go omits unless they are pointers.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The expected items in their order, possibly with others in between, and none twice.
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
    /// The same with the key of the object around it, or the item of the list in brackets.
    fn under(mut self, step: &str) -> Self {
        let is_key = !self.path.is_empty() && !self.path.starts_with('[');
        let dot = if is_key { "." } else { "" };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}
