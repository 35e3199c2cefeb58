//! The objects of one settled `OtelAgent`, in a form in which two runs can be compared.

use std::collections::BTreeMap;

use kube::Client;
use otelagent_core::names;
use serde_json::{Value, json};

use super::read::{get, is_live, label, list, text};

/// What two runs may differ in: identities and moments. Found by comparing runs without faults; a key
/// stands here only if what it holds is either given by the server or a hash over the run's own name.
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
    // Names the generation that asked for it.
    names::ANNOTATION_REASON,
];

/// Cluster-scoped kinds, as paths.
pub(crate) const ADMISSION: [&str; 4] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
];

/// Everything that stands for an `OtelAgent`, by kind and name, normalised. Injected pods are compared as
/// a set: what each was given, without its name. `ports` are those it had, where it may be gone.
///
/// # Errors
/// If the cluster cannot be read.
pub(crate) async fn normalised(
    client: &Client,
    namespace: &str,
    name: &str,
    ports: Option<(u16, u16)>,
) -> Result<BTreeMap<String, Value>, String> {
    let path = format!("/apis/otelagent.dev/v1alpha1/namespaces/{namespace}/otelagents/{name}");
    let agent = get(client, &path).await?;
    let owner = names::agent_label(namespace, name);
    let mut found: Vec<(String, Value)> = Vec::new();
    if !agent.is_null() {
        found.push((
            "OtelAgent".into(),
            json!({"spec": agent["spec"], "status": agent["status"]}),
        ));
    }
    for path in [
        format!("/apis/apps/v1/namespaces/{namespace}/daemonsets"),
        format!("/api/v1/namespaces/{namespace}/services"),
    ] {
        let kind = path.rsplit('/').next().unwrap_or_default().to_owned();
        for object in list(client, &path).await? {
            if label(&object, names::LABEL_OWNER) == Some(&owner) {
                found.push((
                    format!("{kind} {}", text(&object, "/metadata/name")),
                    object,
                ));
            }
        }
    }
    let prefix = names::cluster_object(namespace, name, None);
    let mut policies = Vec::new();
    for kind in ADMISSION {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}");
        for object in list(client, &path).await? {
            let of = text(&object, "/metadata/name").to_owned();
            if of == prefix || of.starts_with(&format!("{prefix}.")) {
                if kind == ADMISSION[0] {
                    policies.push(of.trim_start_matches(&format!("{prefix}.")).to_owned());
                }
                // The server's own opinion of a policy names types by chance.
                let mut object = object;
                object["status"] = Value::Null;
                found.push((format!("{kind} {of}"), object));
            }
        }
    }
    let pods = list(client, "/api/v1/pods").await?;
    let mut given: Vec<Value> = pods
        .iter()
        .filter(|pod| is_live(pod) && label(pod, names::LABEL_AGENT) == Some(&owner))
        .map(gift)
        .collect();
    let mut words = vec![
        (namespace.to_owned(), "NAMESPACE"),
        (name.to_owned(), "NAME"),
    ];
    words.extend(policies.into_iter().map(|hash| (hash, "HASH")));
    // Ports are part of a recipe, so runs that differ in them differ in its hash.
    let recipes = found.iter().filter_map(|(_, object)| {
        object["metadata"]["annotations"][names::ANNOTATION_RECIPE].as_str()
    });
    words.extend(
        recipes
            .map(|hash| (hash.to_owned(), "RECIPE"))
            .collect::<Vec<_>>(),
    );
    let of_spec = |key: &str| agent["spec"]["ports"][key].as_u64();
    let (grpc, http) = match ports {
        Some((grpc, http)) => (Some(grpc.into()), Some(http.into())),
        None => (of_spec("grpc"), of_spec("http")),
    };
    for (port, word, moved) in [(grpc, "GRPC", "MOVED-GRPC"), (http, "HTTP", "MOVED-HTTP")] {
        if let Some(port) = port {
            words.push((port.to_string(), word));
            // Where an application has the usual one itself.
            words.push(((port + 10_000).to_string(), moved));
        }
    }
    for value in &mut given {
        normalise(value, &words);
    }
    given.sort_by_key(Value::to_string);
    let mut out: BTreeMap<String, Value> = found
        .into_iter()
        .map(|(key, mut object)| {
            normalise(&mut object, &words);
            (replace(&key, &words), object)
        })
        .collect();
    out.insert("injected pods".into(), Value::Array(given));
    Ok(out)
}

/// What injection gave a pod.
fn gift(pod: &Value) -> Value {
    let mark = |key: &str| pod["metadata"]["labels"][key].clone();
    let env: Vec<&Value> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|container| container["env"].as_array().into_iter().flatten())
        // A name and a revision of the pod's own.
        .filter(|variable| text(variable, "/name") != "OTEL_RESOURCE_ATTRIBUTES")
        .collect();
    let sidecars: Vec<&Value> = pod["spec"]["initContainers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| &container["name"])
        .collect();
    json!({"mode": mark(names::LABEL_MODE), "agent": mark(names::LABEL_AGENT), "env": env, "sidecars": sidecars})
}

fn normalise(value: &mut Value, words: &[(String, &str)]) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !MASKED.contains(&key.as_str()));
            map.values_mut().for_each(|inner| normalise(inner, words));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| normalise(inner, words)),
        Value::String(text) => *text = replace(text, words),
        Value::Number(number) => {
            if let Some((_, word)) = words.iter().find(|(text, _)| *text == number.to_string()) {
                *value = Value::String((*word).to_owned());
            }
        }
        _ => {}
    }
}

fn replace(text: &str, words: &[(String, &str)]) -> String {
    words
        .iter()
        .fold(text.to_owned(), |text, (from, to)| whole(&text, from, to))
}

/// As `str::replace`, but a number is not looked for within a longer one.
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

/// Where two end states differ, for a person; empty where they do not.
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
