//! The start gate: whether a pod gets it, where, and with which resources, as a function and as CEL.
//!
//! It is left out where it could keep a pod from starting, or would wait for an agent that needs that pod. Such a pod is
//! injected all the same.

use serde_json::Value;

use super::cel::{quoted, quoted_list};
use super::containers::{CONTAINERS, containers, is_mesh, is_mesh_in_cel};
use super::json::text;
use super::recipe::{Recipe, StartGate};
use super::unfit::{VIRTUAL, WITHOUT_IMAGE};
use crate::names;
use crate::quantity::billionths;

/// The built-in classes of what a node or a cluster cannot do without, such as a network plugin: the agent may need it
/// before it can start.
const CRITICAL: [&str; 2] = ["system-node-critical", "system-cluster-critical"];
/// The least memory in which the gate surely runs.
pub(super) const LEAST_MEMORY: &str = "16Mi";
const KINDS: [&str; 2] = ["limits", "requests"];
/// What decides on a pod's quality of service, and what quotas may demand of each container.
const RESOURCES: [&str; 2] = ["cpu", "memory"];
/// In CEL: the container whose resources the gate gets.
const FIRST: &str = "object.spec.containers[0]";

/// The recipe's gate, if it has one and the pod gets it.
pub(super) fn gate<'a>(pod: &Value, recipe: &'a Recipe) -> Option<&'a StartGate> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let is_left_out = containers(pod).any(|other| text(other, "name") == names::START_GATE)
        || CRITICAL.contains(&text(spec, "priorityClassName"))
        || has_no_room(spec)
        || WITHOUT_IMAGE.confines(spec)
        || VIRTUAL.confines(spec);
    recipe.start_gate.as_ref().filter(|_| !is_left_out)
}

/// Whether a limit of memory that the gate would have is too low for it.
fn has_no_room(spec: &Value) -> bool {
    let is_low = |holder: &Value| {
        let limit = amount(holder, "limits", "memory");
        let limit = limit.as_deref().and_then(billionths);
        limit
            .zip(billionths(LEAST_MEMORY))
            .is_some_and(|(limit, least)| limit < least)
    };
    is_low(spec) || is_low(&spec["containers"][0])
}

/// [`gate`] in CEL, for a recipe that has one.
pub(super) fn applies_in_cel() -> String {
    let is_low = |holder: &str| {
        let least = quoted(LEAST_MEMORY);
        format!(
            "{holder}.?resources.?limits[?\"memory\"]\
             .optMap(m, quantity(string(m)).isLessThan(quantity({least}))).orValue(false)"
        )
    };
    format!(
        "!({CONTAINERS}.exists(c, c.name == {}) || object.spec.?priorityClassName.orValue(\"\") in {} \
         || {} || {} || {} || {})",
        quoted(names::START_GATE),
        quoted_list(CRITICAL),
        is_low("object.spec"),
        is_low(FIRST),
        WITHOUT_IMAGE.confines_in_cel(),
        VIRTUAL.confines_in_cel()
    )
}

/// Its resources: those of the pod's first container. So the pod reserves as much as without it, keeps its quality of
/// service, and fits wherever that container does.
pub(super) fn give_resources(gate: &mut Value, first: &Value) {
    for kind in KINDS {
        for resource in RESOURCES {
            if let Some(amount) = amount(first, kind, resource) {
                gate["resources"][kind][resource] = amount.into();
            }
        }
    }
}

fn amount(container: &Value, kind: &str, resource: &str) -> Option<String> {
    match &container["resources"][kind][resource] {
        Value::String(amount) => Some(amount.clone()),
        // As a person may write it; the server makes a string of it.
        Value::Number(amount) => Some(amount.to_string()),
        _ => None,
    }
}

/// [`give_resources`] in CEL, for a gate that has been added at a place.
pub(super) fn resources_in_cel(place: &str) -> String {
    let resources = quoted_list(RESOURCES);
    let given = KINDS.map(|kind| {
        format!(
            "{resources}.filter(r, r in {FIRST}.?resources.?{kind}.orValue({{}})).map(r, JSONPatch{{op: \"add\", \
             path: \"/spec/initContainers/\" + {place} + \"/resources/{kind}/\" + r, \
             value: string({FIRST}.resources.{kind}[r])}})"
        )
    });
    given.join(" + ")
}

/// Its place among the init containers: the first, or behind a mesh's proxy, without which the pod has no network.
pub(super) fn place(inits: &[Value]) -> usize {
    let is_proxy =
        |container: &Value| is_mesh(container) && text(container, "restartPolicy") == "Always";
    inits.iter().rposition(is_proxy).map_or(0, |last| last + 1)
}

/// [`place`] in CEL, as a string.
pub(super) fn place_in_cel() -> String {
    format!(
        "string(([0] + object.spec.?initContainers.orValue([]).transformList(i, c, \
         ({}) && c.?restartPolicy.orValue(\"\") == \"Always\", i + 1)).max())",
        is_mesh_in_cel()
    )
}
