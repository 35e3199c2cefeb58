//! The containers and init containers of a pod, for the function and in CEL.

use serde_json::Value;

use super::json::list;

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
