//! The containers and init containers of a pod, for the function and in CEL.

use serde_json::Value;

use super::cel::quoted;
use super::json::{entry, has, list, text};
use crate::names::ANNOTATION_CONTAINERS;

/// Longer annotations are no list of names, and would cost a policy too much.
const MAX_CHOICE: usize = 4096;

/// Prefixes of the names of mesh containers that set up a pod's network: the agent starts after them.
const MESHES: [&str; 2] = ["istio-", "linkerd-"];

/// The lists of containers that get variables.
pub(super) const CONTAINER_LISTS: [&str; 2] = ["containers", "initContainers"];

/// Every container of a pod, in CEL.
pub(super) const CONTAINERS: &str =
    "(object.spec.containers + object.spec.?initContainers.orValue([]))";

/// Every container of a pod.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    CONTAINER_LISTS
        .into_iter()
        .flat_map(move |name| list(spec, name))
}

/// Whether a container sets up a pod's network.
pub(super) fn is_mesh(container: &Value) -> bool {
    let name = text(container, "name");
    MESHES.iter().any(|prefix| name.starts_with(prefix))
}

/// [`is_mesh`] of the container `c` in CEL.
pub(super) fn is_mesh_in_cel() -> String {
    MESHES
        .map(|prefix| format!("c.name.startsWith({})", quoted(prefix)))
        .join(" || ")
}

/// The names of the containers that the pod's annotation chooses; none if it chooses all.
pub(super) fn chosen(pod: &Value) -> Vec<&str> {
    let choice = entry(pod, ["metadata", "annotations"], ANNOTATION_CONTAINERS);
    let choice = choice.filter(|text| text.chars().count() <= MAX_CHOICE);
    let names = choice.into_iter().flat_map(|text| text.split(','));
    names
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect()
}

/// [`chosen`] in CEL, of functions that servers of 1.33 have, too.
pub(super) fn chosen_in_cel() -> String {
    let choice = format!(
        "object.metadata.?annotations[?{}].orValue(\"\")",
        quoted(ANNOTATION_CONTAINERS)
    );
    format!(
        "({choice}.size() <= {MAX_CHOICE} ? {choice} : \"\").split(\",\")\
         .map(n, n.trim()).filter(n, n != \"\")"
    )
}

/// The resource of a container's files, logs and volumes on the node's disk.
pub(super) const STORAGE: &str = "ephemeral-storage";

/// Whether the agent runs as the user of its pod. It may not run as root, so it does not take over that one.
pub(super) fn takes_user_of_pod(sidecar: &Value) -> bool {
    let own = &sidecar["securityContext"];
    own.is_object() && !has(own, "runAsUser")
}

/// Whether a container limits [`STORAGE`].
pub(super) fn limits_storage(pod: &Value) -> bool {
    containers(pod).any(|container| has(&container["resources"]["limits"], STORAGE))
}

/// [`limits_storage`] in CEL.
pub(super) fn limits_storage_in_cel() -> String {
    format!(
        "{CONTAINERS}.exists(c, {} in c.?resources.?limits.orValue({{}}))",
        quoted(STORAGE)
    )
}
