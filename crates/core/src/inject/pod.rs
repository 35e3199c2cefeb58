//! Pod × recipe → pod: what the policy does, as a function.
//!
//! The policy is verified against this function, the webhook answers with it, and it explains why a pod
//! was missed. It only adds, and adds nothing twice. Must not know why a pod is selected.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::attributes::{PodAttributes, key};
use super::containers::CONTAINER_LISTS;
use super::environment::{EnvRule, RESOURCE_ATTRIBUTES, SERVICE_NAME};
use super::json::{has, list, list_mut, object_mut, text};
use super::ports;
use super::reason::{Reason, why_not};
use super::recipe::Recipe;

/// Beginnings of the names of mesh containers that set up a pod's network: the agent starts after them.
pub(super) const MESHES: [&str; 2] = ["istio-", "linkerd-"];

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// The pod with everything added; the same pod if it carried everything already.
    Injected(Value),
    /// The pod is admitted as it is.
    Skipped(Reason),
}

/// Applies a recipe to a pod that is being created in a namespace. Whether the pod is selected is the
/// caller's question.
pub fn inject(pod: &Value, namespace: &str, recipe: &Recipe) -> Injection {
    if let Some(reason) = why_not(pod, recipe) {
        return Injection::Skipped(reason);
    }
    let attributes = PodAttributes::of(pod, namespace);
    let given = Given::to(pod, recipe);
    let mut pod = pod.clone();
    if let Some(root) = pod.as_object_mut() {
        if let Some(spec) = object_mut(root, "spec") {
            add_to_spec(spec, &given, &attributes);
        }
        if let Some(metadata) = object_mut(root, "metadata") {
            add_entries(metadata, "labels", recipe.labels());
            add_entries(metadata, "annotations", given.annotations.clone());
        }
    }
    Injection::Injected(pod)
}

/// What one pod is given: the recipe, at the ports that are free in it.
struct Given<'a> {
    recipe: &'a Recipe,
    annotations: &'a BTreeMap<String, String>,
    sidecar: Option<&'a Value>,
    env: &'a [EnvRule],
}

impl<'a> Given<'a> {
    fn to(pod: &Value, recipe: &'a Recipe) -> Self {
        ports::moved(pod, recipe).map_or(
            Self {
                recipe,
                annotations: &recipe.annotations,
                sidecar: recipe.sidecar.as_ref(),
                env: &recipe.env,
            },
            |moved| Self {
                recipe,
                annotations: &moved.annotations,
                sidecar: Some(&moved.sidecar),
                env: &moved.env,
            },
        )
    }
}

fn add_to_spec(spec: &mut Map<String, Value>, given: &Given, attributes: &PodAttributes) {
    let recipe = given.recipe;
    let agent = recipe.sidecar_name();
    for name in CONTAINER_LISTS {
        let containers = spec.get_mut(name).and_then(Value::as_array_mut);
        for container in containers
            .into_iter()
            .flatten()
            .filter(|container| Some(text(container, "name")) != agent)
        {
            let own = attributes.of_container(container);
            let carried = carried(container, recipe);
            if let Some(env) = container
                .as_object_mut()
                .and_then(|container| list_mut(container, "env"))
            {
                add_variables(env, given, &carried, &own, &attributes.service_name);
            }
        }
    }
    let Some(sidecar) = given.sidecar else {
        return;
    };
    if let Some(inits) = list_mut(spec, "initContainers")
        && !inits
            .iter()
            .any(|container| Some(text(container, "name")) == agent)
    {
        let after_mesh = inits.iter().rposition(is_mesh).map_or(0, |last| last + 1);
        inits.insert(after_mesh, sidecar.clone());
    }
    if recipe.volumes.is_empty() {
        return;
    }
    if let Some(volumes) = list_mut(spec, "volumes") {
        for volume in &recipe.volumes {
            if !volumes
                .iter()
                .any(|other| text(other, "name") == text(volume, "name"))
            {
                volumes.push(volume.clone());
            }
        }
    }
}

fn is_mesh(container: &Value) -> bool {
    MESHES
        .iter()
        .any(|prefix| text(container, "name").starts_with(prefix))
}

/// Names of those we would add that a container's `envFrom` may carry; none where the recipe overrides it.
fn carried<'a>(container: &Value, recipe: &'a Recipe) -> BTreeSet<&'a str> {
    let sources = list(container, "envFrom");
    let mut names = recipe.added_names();
    names.retain(|name| {
        !recipe.overrides_env_from
            && sources
                .iter()
                .any(|source| name.starts_with(text(source, "prefix")))
    });
    names
}

/// The variables of one container. The user's stay as they are and where they are, but for attributes
/// appended to a literal `OTEL_RESOURCE_ATTRIBUTES`.
fn add_variables(
    env: &mut Vec<Value>,
    given: &Given,
    carried: &BTreeSet<&str>,
    attributes: &[String],
    service_name: &str,
) {
    let names: BTreeSet<String> = env
        .iter()
        .map(|variable| text(variable, "name"))
        .chain(carried.iter().copied())
        .map(str::to_owned)
        .collect();
    let own: Vec<&Value> = env
        .iter()
        .filter(|variable| text(variable, "name") == RESOURCE_ATTRIBUTES)
        .collect();
    let keys: BTreeSet<String> = own
        .iter()
        .flat_map(|variable| keys(text(variable, "value")))
        .collect();
    // What stands in a ConfigMap cannot be read here; it may name the service.
    let unreadable = own.iter().any(|variable| has(variable, "valueFrom"))
        || own.is_empty() && carried.contains(RESOURCE_ATTRIBUTES);

    let missing: Vec<&str> = attributes
        .iter()
        .map(String::as_str)
        .filter(|attribute| !keys.contains(key(attribute)))
        .collect();
    append_to_own(env, &missing.join(","));
    let first = given
        .recipe
        .first
        .iter()
        .filter(|variable| !names.contains(text(variable, "name")))
        .cloned();
    env.splice(0..0, first);
    let blocked = |rule: &&EnvRule| !rule.unless.iter().any(|name| names.contains(name));
    env.extend(
        given
            .env
            .iter()
            .filter(blocked)
            .map(|rule| json!({"name": rule.name, "value": rule.value})),
    );
    if !names.contains(SERVICE_NAME) && !keys.contains("service.name") && !unreadable {
        env.push(json!({"name": SERVICE_NAME, "value": service_name}));
    }
    if !names.contains(RESOURCE_ATTRIBUTES) {
        env.push(json!({"name": RESOURCE_ATTRIBUTES, "value": attributes.join(",")}));
    }
}

/// Appends attributes to each literal variable of the user's.
fn append_to_own(env: &mut [Value], missing: &str) {
    let own = env.iter_mut().filter(|variable| {
        text(variable, "name") == RESOURCE_ATTRIBUTES && !has(variable, "valueFrom")
    });
    for variable in own.filter(|_| !missing.is_empty()) {
        let value = appended(text(variable, "value"), missing);
        if let Some(variable) = variable.as_object_mut() {
            variable.insert("value".into(), value.into());
        }
    }
}

fn keys(value: &str) -> Vec<String> {
    value
        .split(',')
        .map(|attribute| key(attribute).trim().to_owned())
        .collect()
}

fn appended(value: &str, attributes: &str) -> String {
    let separator = if value.is_empty() || value.ends_with(',') {
        ""
    } else {
        ","
    };
    format!("{value}{separator}{attributes}")
}

fn add_entries(
    metadata: &mut Map<String, Value>,
    field: &str,
    entries: impl IntoIterator<Item = (String, String)>,
) {
    let mut entries = entries.into_iter().peekable();
    if entries.peek().is_none() {
        return;
    }
    if let Some(existing) = object_mut(metadata, field) {
        existing.extend(entries.map(|(key, value)| (key, Value::String(value))));
    }
}
