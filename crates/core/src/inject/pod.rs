//! Applies a recipe to a pod: the function that equals the policy.
//!
//! The operator verifies the policy against this function, the webhook answers with it, and it explains why
//! a pod was missed. It only adds, and adds nothing twice. Does not know selection.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::attributes::{PodAttributes, key};
use super::containers::{
    CONTAINER_LISTS, STORAGE, chosen, is_mesh, limits_storage, takes_user_of_pod,
};
use super::environment::{EnvRule, RESOURCE_ATTRIBUTES, SERVICE_NAME};
use super::gate;
use super::json::{has, list, list_mut, object_mut, text};
use super::ports;
use super::reason::{Reason, why_not};
use super::recipe::{Recipe, StartGate};
use crate::names;

/// The result for a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// The pod with everything added; unchanged if it had everything already.
    Injected(Value),
    /// The pod stays unchanged, for this reason.
    Skipped(Reason),
}

/// Applies a recipe to a pod that is being created in a namespace. The caller has checked that the pod is
/// selected.
pub fn inject(pod: &Value, namespace: &str, recipe: &Recipe) -> Injection {
    if let Some(reason) = why_not(pod, recipe) {
        return Injection::Skipped(reason);
    }
    let attributes = PodAttributes::of(pod, namespace);
    let (annotations, sidecar, rules) = match ports::moved(pod, recipe) {
        None => (&recipe.annotations, recipe.sidecar.as_ref(), &recipe.env),
        Some(moved) => (&moved.annotations, Some(&moved.sidecar), &moved.env),
    };
    let chosen = chosen(pod);
    let storage = recipe.storage_limit.as_deref();
    let storage = storage.filter(|_| limits_storage(pod));
    let gate = gate::gate(pod, recipe);
    let mut pod = pod.clone();
    if let Some(root) = pod.as_object_mut() {
        if let Some(spec) = object_mut(root, "spec") {
            let is_given = |name: &str| {
                Some(name) != recipe.container_name()
                    && (chosen.is_empty() || chosen.contains(&name))
            };
            add_to_containers(spec, recipe, rules, &attributes, is_given);
            if let Some(sidecar) = sidecar {
                add_agent(spec, sidecar, storage, &recipe.volumes);
            }
            if let Some(gate) = gate {
                add_gate(spec, gate);
            }
        }
        if let Some(metadata) = object_mut(root, "metadata") {
            add_entries(metadata, "labels", &recipe.labels());
            add_entries(metadata, "annotations", annotations);
            join_annotations(metadata, &recipe.joined_annotations);
        }
    }
    Injection::Injected(pod)
}

/// Adds the variables to every container whose name `is_given` them.
fn add_to_containers(
    spec: &mut Map<String, Value>,
    recipe: &Recipe,
    rules: &[EnvRule],
    attributes: &PodAttributes,
    is_given: impl Fn(&str) -> bool,
) {
    for name in CONTAINER_LISTS {
        let containers = spec.get_mut(name).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if !is_given(text(container, "name")) {
                continue;
            }
            let own = attributes.of_container(container);
            let carried = carried(container, recipe);
            let container = container.as_object_mut();
            if let Some(env) = container.and_then(|container| list_mut(container, "env")) {
                let first = &recipe.first;
                add_variables(env, first, rules, &carried, &own, &attributes.service_name);
            }
        }
    }
}

/// Adds the agent and its volumes, unless they exist.
fn add_agent(
    spec: &mut Map<String, Value>,
    sidecar: &Value,
    storage: Option<&str>,
    volumes: &[Value],
) {
    let mut sidecar = with_user(sidecar, spec);
    if let Some(inits) = list_mut(spec, "initContainers")
        && is_new(&sidecar, inits)
    {
        let after_mesh = inits.iter().rposition(is_mesh).map_or(0, |last| last + 1);
        if let Some(limit) = storage {
            sidecar["resources"]["limits"][STORAGE] = limit.into();
            sidecar["resources"]["requests"][STORAGE] = "0".into();
        }
        inits.insert(after_mesh, sidecar);
    }
    add_volumes(spec, volumes);
}

/// Adds the start gate and its volume.
fn add_gate(spec: &mut Map<String, Value>, gate: &StartGate) {
    let mut container = with_user(&gate.container, spec);
    let others = spec.get("containers").unwrap_or(&Value::Null);
    gate::give_resources(&mut container, &others[0]);
    if let Some(inits) = list_mut(spec, "initContainers") {
        inits.insert(gate::place(inits), container);
    }
    add_volumes(spec, std::slice::from_ref(&gate.volume));
}

/// An injected container with a user of its own, where it would take root from its pod.
fn with_user(container: &Value, spec: &Map<String, Value>) -> Value {
    let mut container = container.clone();
    let of_pod = spec.get("securityContext").unwrap_or(&Value::Null);
    if of_pod["runAsUser"] == 0 && takes_user_of_pod(&container) {
        container["securityContext"]["runAsUser"] = names::USER.into();
    }
    container
}

fn add_volumes(spec: &mut Map<String, Value>, added: &[Value]) {
    for volume in added {
        if let Some(volumes) = list_mut(spec, "volumes")
            && is_new(volume, volumes)
        {
            volumes.push(volume.clone());
        }
    }
}

/// Whether a list has no item of this name.
fn is_new(item: &Value, list: &[Value]) -> bool {
    let name = text(item, "name");
    !list.iter().any(|other| text(other, "name") == name)
}

/// The names of the recipe's variables that a container's `envFrom` may set; none if the recipe overrides
/// it.
fn carried<'a>(container: &Value, recipe: &'a Recipe) -> BTreeSet<&'a str> {
    if recipe.overrides_env_from {
        return BTreeSet::new();
    }
    let prefixes = list(container, "envFrom").iter();
    let prefixes: Vec<&str> = prefixes.map(|source| text(source, "prefix")).collect();
    let mut names = recipe.added_names();
    names.retain(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    names
}

/// Adds the variables of one container. The user's stay unchanged, except for attributes appended to a
/// literal `OTEL_RESOURCE_ATTRIBUTES`.
fn add_variables(
    env: &mut Vec<Value>,
    first: &[Value],
    rules: &[EnvRule],
    carried: &BTreeSet<&str>,
    attributes: &[String],
    service_name: &str,
) {
    let set = env.iter().map(|variable| text(variable, "name"));
    let names: BTreeSet<String> = set
        .chain(carried.iter().copied())
        .map(str::to_owned)
        .collect();
    let is_own = |variable: &&Value| text(variable, "name") == RESOURCE_ATTRIBUTES;
    let own: Vec<&Value> = env.iter().filter(is_own).collect();
    let own_attributes = own
        .iter()
        .flat_map(|variable| text(variable, "value").split(','));
    let keys: BTreeSet<String> = own_attributes
        .map(|attribute| key(attribute).trim().to_owned())
        .collect();
    // A ConfigMap cannot be read here; it may name the service.
    let unreadable = own.iter().any(|variable| has(variable, "valueFrom"))
        || own.is_empty() && carried.contains(RESOURCE_ATTRIBUTES);

    let mut missing = attributes.to_vec();
    missing.retain(|attribute| !keys.contains(key(attribute)));
    append_to_own(env, &missing.join(","));
    let is_new = |variable: &&Value| !names.contains(text(variable, "name"));
    env.splice(0..0, first.iter().filter(is_new).cloned());
    let mut add = |name: &str, value: &str| env.push(json!({"name": name, "value": value}));
    for rule in rules {
        if !rule.unless.iter().any(|name| names.contains(name)) {
            add(&rule.name, &rule.value);
        }
    }
    if !names.contains(SERVICE_NAME) && !keys.contains("service.name") && !unreadable {
        add(SERVICE_NAME, service_name);
    }
    if !names.contains(RESOURCE_ATTRIBUTES) {
        add(RESOURCE_ATTRIBUTES, &attributes.join(","));
    }
}

/// Appends attributes to each literal variable of the user. What is blank at its end is dropped: an empty entry
/// is an error to some SDKs, and a blank variable means no attributes.
fn append_to_own(env: &mut [Value], missing: &str) {
    let own = env.iter_mut().filter(|variable| {
        text(variable, "name") == RESOURCE_ATTRIBUTES && !has(variable, "valueFrom")
    });
    for variable in own.filter(|_| !missing.is_empty()) {
        let given = text(variable, "value").trim_end_matches(is_blank);
        let separator = if given.is_empty() { "" } else { "," };
        variable["value"] = format!("{given}{separator}{missing}").into();
    }
}

/// Whether a character at the end of attributes means nothing: white space and commas.
pub fn is_blank(c: char) -> bool {
    c == ',' || c.is_whitespace()
}

/// The opposite of [`is_blank`], as the inside of an RE2 character class.
pub(super) const NOT_BLANK: &str = r"^\s\v\x{85}\p{Z},";

fn add_entries(metadata: &mut Map<String, Value>, field: &str, entries: &BTreeMap<String, String>) {
    if !entries.is_empty()
        && let Some(existing) = object_mut(metadata, field)
    {
        let entries = entries.iter();
        existing.extend(entries.map(|(key, value)| (key.clone(), value.clone().into())));
    }
}

/// Adds a name to each of these lists, separated by commas, unless it is there.
fn join_annotations(metadata: &mut Map<String, Value>, entries: &BTreeMap<String, String>) {
    if entries.is_empty() {
        return;
    }
    let Some(existing) = object_mut(metadata, "annotations") else {
        return;
    };
    for (key, name) in entries {
        let given = existing.get(key).and_then(Value::as_str);
        let given = given.unwrap_or_default();
        if given.split(',').any(|other| other.trim() == name) {
            continue;
        }
        let joined = if given.trim().is_empty() {
            name.clone()
        } else {
            format!("{given},{name}")
        };
        existing.insert(key.clone(), joined.into());
    }
}
