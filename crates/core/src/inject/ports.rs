//! Finds port conflicts of a sidecar with the other containers of its pod.
//!
//! Only declared ports are visible. Each rule exists twice, as a function and as CEL, as in [`super::reason`].

use serde_json::Value;

use super::cel::quoted;
use super::containers::{CONTAINERS, containers};
use super::json::{list, text};
use super::recipe::{Moved, Recipe};

/// The first of a sidecar's ports that another container declares.
pub(super) fn clash(pod: &Value, sidecar: &Value) -> Option<u64> {
    let name = text(sidecar, "name");
    let others = || containers(pod).filter(|container| text(container, "name") != name);
    taken(sidecar)
        .into_iter()
        .find(|port| others().any(|other| declared(other).any(|own| own == *port)))
}

/// The recipe's other ports, if the pod uses the usual ones.
pub(super) fn moved<'a>(pod: &Value, recipe: &'a Recipe) -> Option<&'a Moved> {
    let sidecar = recipe.sidecar.as_ref()?;
    recipe
        .moved
        .as_ref()
        .filter(|_| clash(pod, sidecar).is_some())
}

/// TCP ports on which a sidecar listens: the declared ones, and that of its probe.
fn taken(sidecar: &Value) -> Vec<u64> {
    let probed = sidecar
        .pointer("/startupProbe/httpGet/port")
        .and_then(Value::as_u64);
    declared(sidecar).chain(probed).collect()
}

fn declared(container: &Value) -> impl Iterator<Item = u64> {
    let tcp = list(container, "ports")
        .iter()
        .filter(|port| matches!(text(port, "protocol"), "" | "TCP"));
    tcp.filter_map(|port| port.get("containerPort").and_then(Value::as_u64))
}

/// The ports of [`taken`] as a list in CEL.
pub(super) fn ports_in_cel(sidecar: &Value) -> String {
    let ports: Vec<String> = taken(sidecar).iter().map(u64::to_string).collect();
    format!("[{}]", ports.join(", "))
}

/// In CEL: whether a container other than the sidecar declares a port for which a condition on `p` holds.
pub(super) fn declared_in_cel(sidecar: &Value, condition: &str) -> String {
    let name = quoted(text(sidecar, "name"));
    format!(
        "{CONTAINERS}.exists(c, c.name != {name} && c.?ports.orValue([])\
         .exists(p, p.containerPort {condition} && p.?protocol.orValue(\"TCP\") == \"TCP\"))"
    )
}

/// In CEL: whether [`clash`] finds a port.
pub(super) fn clash_in_cel(sidecar: &Value) -> String {
    declared_in_cel(sidecar, &format!("in {}", ports_in_cel(sidecar)))
}

/// In CEL: whether the pod gets the recipe's other ports; `None` if the recipe has none.
pub(super) fn moved_in_cel(recipe: &Recipe) -> Option<String> {
    recipe.moved.as_ref()?;
    Some(clash_in_cel(recipe.sidecar.as_ref()?))
}
