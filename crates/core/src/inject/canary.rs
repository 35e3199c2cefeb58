//! Pods that verify a policy, and the comparison of what the API server made of them with what
//! [`super::pod::inject`] makes of them.
//!
//! They are created as dry run in the canary namespace. They are valid under Pod Security
//! `restricted`, since the injected container must be valid under it as well. Must not know
//! how requests are made.

use std::fmt;

use serde_json::{Map, Value, json};

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
    let name = |part: &str| format!("otelagent-verification-{part}");
    let image = recipe
        .sidecar
        .as_ref()
        .map(|sidecar| text(sidecar, "image"))
        .filter(|image| !image.is_empty());
    let image = image.unwrap_or(NO_IMAGE);
    let annotations = json!({
        "resource.opentelemetry.io/service.version": "1 é,=",
        "resource.opentelemetry.io/team": "$(b)",
    });
    let mut owned = pod(
        &name("owned"),
        hash,
        json!({"containers": [container("app", image, &Value::Null)]}),
    );
    if let Some(metadata) = owned.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("annotations".into(), annotations);
        let controller = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "proof-abc", "uid": "none", "controller": true});
        metadata.insert("ownerReferences".into(), json!([controller]));
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.insert("pod-template-hash".into(), "abc".into());
        }
    }
    let mut pods = vec![
        pod(
            &name("bare"),
            hash,
            json!({"containers": [container("app", image, &Value::Null)]}),
        ),
        pod(&name("full"), hash, full_spec(image)),
        owned,
    ];
    // Where there are no other ports, such a pod is not injected.
    if let (Some(sidecar), Some(_)) = (&recipe.sidecar, &recipe.moved) {
        let mut clashing = container("app", image, &Value::Null);
        clashing["ports"] = list(sidecar, "ports")
            .first()
            .cloned()
            .into_iter()
            .collect();
        pods.push(pod(
            &name("clashing"),
            hash,
            json!({"containers": [clashing]}),
        ));
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
    let containers = json!([container("app", NO_IMAGE, &Value::Null)]);
    let mut asking = pod("otelagent-in-force", "", json!({"containers": containers}));
    if let Some(metadata) = asking.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("labels".into(), json!({names::LABEL_CANARY: agent}));
    }
    asking
}

/// As [`in_force_pod`], of one engine: injected if, and only if, what has this content is bound.
pub fn engine_pod(hash: &str) -> Value {
    let containers = json!([container("app", NO_IMAGE, &Value::Null)]);
    pod(
        "otelagent-in-force",
        hash,
        json!({"containers": containers}),
    )
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
        Injection::Injected(expected) => covers(&expected, answer, &Path::Root),
        Injection::Skipped(reason) => Err(Mismatch {
            path: "metadata.name".into(),
            expected: "a pod that can be injected".into(),
            found: format!(
                "{}: {reason}",
                text(probe.get("metadata").unwrap_or(&Value::Null), "name")
            ),
        }),
    }
}

fn pod(name: &str, hash: &str, mut spec: Value) -> Value {
    if let Some(spec) = spec.as_object_mut() {
        spec.insert(
            "securityContext".into(),
            json!({"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}),
        );
        spec.insert("automountServiceAccountToken".into(), false.into());
    }
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
    let mut container = Map::from_iter([
        ("name".to_owned(), json!(name)),
        ("image".to_owned(), json!(image)),
        (
            "resources".to_owned(),
            json!({"requests": amounts, "limits": amounts}),
        ),
        (
            "securityContext".to_owned(),
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        ),
    ]);
    if !env.is_null() {
        container.insert("env".into(), env.clone());
    }
    Value::Object(container)
}

/// Where in a pod.
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, String),
}

impl Path<'_> {
    fn key(&self) -> &str {
        match self {
            Self::Key(_, key) => key,
            Self::Root | Self::Item(..) => "",
        }
    }

    /// Whether amounts stand here, which the server rewrites.
    fn holds_quantity(&self) -> bool {
        matches!(
            self,
            Self::Key(
                Self::Key(Self::Key(_, "resources"), _) | Self::Key(_, "emptyDir"),
                _
            )
        )
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, name) => write!(f, "{parent}[{name}]"),
        }
    }
}

/// Whether everything expected was found.
fn covers(expected: &Value, found: &Value, path: &Path) -> Result<(), Mismatch> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected
            .iter()
            .filter(|(_, value)| !is_empty(value))
            .try_for_each(|(key, value)| {
                covers(
                    value,
                    found.get(key).unwrap_or(&Value::Null),
                    &Path::Key(path, key),
                )
            }),
        (Value::Array(expected), Value::Array(found)) if NAMED_LISTS.contains(&path.key()) => {
            covers_named(expected, found, path)
        }
        (Value::Array(expected), Value::Array(items)) if expected.len() == items.len() => expected
            .iter()
            .zip(items)
            .enumerate()
            .try_for_each(|(index, (expected, found))| {
                covers(expected, found, &Path::Item(path, index.to_string()))
            }),
        (Value::String(a), Value::String(b)) if path.holds_quantity() && quantity::same(a, b) => {
            Ok(())
        }
        _ if expected == found => Ok(()),
        _ => Err(mismatch(path, expected, found)),
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
fn covers_named(expected: &[Value], found: &[Value], path: &Path) -> Result<(), Mismatch> {
    let mut rest = found.iter();
    for item in expected {
        let name = text(item, "name");
        let here = Path::Item(path, name.to_owned());
        if found
            .iter()
            .filter(|other| text(other, "name") == name)
            .count()
            > 1
        {
            return Err(mismatch(&here, &json!("one"), &json!("several")));
        }
        let Some(other) = rest.find(|other| text(other, "name") == name) else {
            let order: Vec<&str> = found.iter().map(|other| text(other, "name")).collect();
            return Err(mismatch(&here, item, &json!(order)));
        };
        covers(item, other, &here)?;
    }
    Ok(())
}

fn mismatch(path: &Path, expected: &Value, found: &Value) -> Mismatch {
    Mismatch {
        path: path.to_string(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}
