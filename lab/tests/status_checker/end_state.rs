//! The objects of one settled `OtelAgent`, in a form in which two runs can be compared.

use std::collections::BTreeMap;

use kube::Client;
use otelagent_core::names;
use serde_json::{Value, json};

use super::read::{get, is_finished, items, label, list, text};

/// Keys in which two runs may differ: identities and moments. A key is here only if the server chooses its value, or
/// if the value is a hash over the run's own name.
const MASKED: [&str; 21] = [
    "uid",
    "resourceVersion",
    "generation",
    "observedGeneration",
    "creationTimestamp",
    "lastTransitionTime",
    "lastUpdateTime",
    "managedFields",
    "selfLink",
    "clusterIP",
    "clusterIPs",
    "deprecated.daemonset.template.generation",
    "kubectl.kubernetes.io/last-applied-configuration",
    "pod-template-hash",
    "otelagent.dev/applied",
    "otelagent.dev/bound-at",
    names::LABEL_CONFIG,
    names::LABEL_TEMPLATE,
    names::ANNOTATION_RECIPE,
    names::LABEL_OWNER_UID,
    // Names the generation of the spec.
    names::ANNOTATION_REASON,
];

/// Cluster-scoped kinds, as paths.
pub(crate) const ADMISSION: [&str; 4] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
];

/// Objects by kind and name.
type Objects = BTreeMap<String, Value>;

/// Every object of an `OtelAgent`, by kind and name, normalised. Injected pods are compared as a set: what each was
/// given, without its name. `ports` are those of the spec, where the `OtelAgent` may no longer exist.
///
/// # Errors
/// If the cluster cannot be read.
pub(crate) async fn normalised(
    client: &Client,
    namespace: &str,
    name: &str,
    ports: Option<(u16, u16)>,
) -> Result<Objects, String> {
    let path = format!("/apis/otelagent.dev/v1alpha1/namespaces/{namespace}/otelagents/{name}");
    let agent = get(client, &path).await?;
    let owner = names::agent_label(namespace, name);
    let mut found = namespaced(client, namespace, &owner).await?;
    if !agent.is_null() {
        let mut status = agent["status"].clone();
        without_delivery(&mut status);
        let agent = json!({"spec": agent["spec"], "status": status});
        found.insert("OtelAgent".into(), agent);
    }
    let prefix = names::cluster_object(namespace, name, None);
    found.extend(cluster_scoped(client, &prefix).await?);
    let mut masks = vec![
        (namespace.to_owned(), "NAMESPACE"),
        (name.to_owned(), "NAME"),
    ];
    masks.extend(hashes(&found, &prefix));
    let of_spec = |key: &str| agent["spec"]["ports"][key].as_u64();
    let (grpc, http) = match ports {
        Some((grpc, http)) => (Some(grpc.into()), Some(http.into())),
        None => (of_spec("grpc"), of_spec("http")),
    };
    masks.extend(port_masks(grpc, "GRPC", "MOVED-GRPC"));
    masks.extend(port_masks(http, "HTTP", "MOVED-HTTP"));
    let pods = list(client, "/api/v1/pods").await?;
    let mut given: Vec<Value> = pods
        .iter()
        .filter(|pod| !is_finished(pod) && label(pod, names::LABEL_AGENT) == Some(&owner))
        .map(given)
        .collect();
    for value in &mut given {
        normalise(value, &masks);
    }
    given.sort_by_key(Value::to_string);
    let normalised = found.into_iter().map(|(key, mut object)| {
        normalise(&mut object, &masks);
        (replace(&key, &masks), object)
    });
    let mut out: Objects = normalised.collect();
    out.insert("injected pods".into(), Value::Array(given));
    Ok(out)
}

/// Agent workloads, their configurations and Services.
async fn namespaced(client: &Client, namespace: &str, owner: &str) -> Result<Objects, String> {
    let mut found = Objects::new();
    for (api, kind) in [
        ("api/v1", "configmaps"),
        ("apis/apps/v1", "daemonsets"),
        ("api/v1", "services"),
    ] {
        for object in list(client, &format!("/{api}/namespaces/{namespace}/{kind}")).await? {
            if label(&object, names::LABEL_OWNER) == Some(owner) {
                let key = format!("{kind} {}", text(&object, "/metadata/name"));
                found.insert(key, object);
            }
        }
    }
    Ok(found)
}

/// Admission policies and bindings.
async fn cluster_scoped(client: &Client, prefix: &str) -> Result<Objects, String> {
    let mut found = Objects::new();
    for kind in ADMISSION {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}");
        for mut object in list(client, &path).await? {
            let name = text(&object, "/metadata/name").to_owned();
            if name == prefix || name.starts_with(&format!("{prefix}.")) {
                // The server's type checker names types in an order that changes.
                object["status"] = Value::Null;
                found.insert(format!("{kind} {name}"), object);
            }
        }
    }
    Ok(found)
}

/// Hashes over what a run chooses for itself: those of policies, in their names, of recipes, and of pod templates.
/// Ports are part of these, so runs that differ in them differ in the hashes.
fn hashes(found: &Objects, prefix: &str) -> Vec<(String, &'static str)> {
    let policies = found.keys().filter_map(|key| {
        let name = key.strip_prefix(ADMISSION[0])?.trim_start();
        let hash = name.trim_start_matches(&format!("{prefix}."));
        Some((hash.to_owned(), "HASH"))
    });
    let recipes = found.values().filter_map(|object| {
        let hash = object["metadata"]["annotations"][names::ANNOTATION_RECIPE].as_str()?;
        Some((hash.to_owned(), "RECIPE"))
    });
    let templates = found.values().filter_map(|object| {
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        let hash = labels[names::LABEL_TEMPLATE].as_str()?;
        Some((hash.to_owned(), "TEMPLATE"))
    });
    policies.chain(recipes).chain(templates).collect()
}

/// A port, and the one that a sidecar takes instead where the application has the usual one itself.
fn port_masks(
    port: Option<u64>,
    mask: &'static str,
    moved: &'static str,
) -> impl Iterator<Item = (String, &'static str)> {
    port.into_iter().flat_map(move |port| {
        [
            (port.to_string(), mask),
            ((port + 10_000).to_string(), moved),
        ]
    })
}

/// What injection gave a pod.
fn given(pod: &Value) -> Value {
    let mark = |key: &str| pod["metadata"]["labels"][key].clone();
    let env: Vec<&Value> = items(&pod["spec"]["containers"])
        .flat_map(|container| items(&container["env"]))
        // Holds the pod's own name and revision.
        .filter(|variable| text(variable, "/name") != "OTEL_RESOURCE_ATTRIBUTES")
        .collect();
    let sidecars: Vec<&Value> = items(&pod["spec"]["initContainers"])
        .map(|container| &container["name"])
        .collect();
    json!({"mode": mark(names::LABEL_MODE), "agent": mark(names::LABEL_AGENT), "env": env, "sidecars": sidecars})
}

fn normalise(value: &mut Value, masks: &[(String, &str)]) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !MASKED.contains(&key.as_str()));
            map.values_mut().for_each(|inner| normalise(inner, masks));
            let masked = std::mem::take(map).into_iter();
            let masked = masked.map(|(key, inner)| (replace(&key, masks), inner));
            *map = masked.collect();
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| normalise(inner, masks)),
        Value::String(text) => *text = replace(text, masks),
        Value::Number(number) => {
            if let Some((_, word)) = masks.iter().find(|(text, _)| *text == number.to_string()) {
                *value = Value::String((*word).to_owned());
            }
        }
        _ => {}
    }
}

fn replace(text: &str, masks: &[(String, &str)]) -> String {
    masks
        .iter()
        .fold(text.to_owned(), |text, (from, to)| whole(&text, from, to))
}

/// As `str::replace`, but never replaces a part of a longer number.
fn whole(text: &str, from: &str, to: &str) -> String {
    let is_number = from.bytes().all(|byte| byte.is_ascii_digit());
    let touches = |found: Option<char>| is_number && found.is_some_and(|c| c.is_ascii_digit());
    let (mut out, mut done) = (String::new(), 0);
    for (at, _) in text.match_indices(from) {
        let end = at + from.len();
        if touches(text[..at].chars().next_back()) || touches(text[end..].chars().next()) {
            continue;
        }
        out.push_str(&text[done..at]);
        out.push_str(to);
        done = end;
    }
    out + &text[done..]
}

/// Where two end states differ, as text; empty if they do not.
pub(crate) fn differences(
    expected: &BTreeMap<String, Value>,
    found: &BTreeMap<String, Value>,
) -> Vec<String> {
    let mut out = Vec::new();
    for key in expected
        .keys()
        .chain(found.keys().filter(|key| !expected.contains_key(*key)))
    {
        match (expected.get(key), found.get(key)) {
            (Some(expected), Some(found)) => diff(key, expected, found, &mut out),
            (Some(_), None) => out.push(format!("{key} is missing")),
            _ => out.push(format!("{key} is left over")),
        }
    }
    out
}

/// Leaves out what agents said of their delivery: it depends on how often they have been asked so far.
fn without_delivery(status: &mut Value) {
    let Some(status) = status.as_object_mut() else {
        return;
    };
    status.remove("delivery");
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    if let Some(conditions) = conditions {
        conditions.retain(|condition| condition["type"] != "Delivering");
    }
}

fn diff(path: &str, expected: &Value, found: &Value, out: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let (a, b) = (a.get(key), b.get(key));
                let null = Value::Null;
                diff(
                    &format!("{path}.{key}"),
                    a.unwrap_or(&null),
                    b.unwrap_or(&null),
                    out,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                diff(&format!("{path}[{at}]"), a, b, out);
            }
        }
        (a, b) if a != b => out.push(format!("{path} is {b}, not {a}")),
        _ => {}
    }
}
