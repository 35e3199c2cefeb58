//! Which ports an agent takes in a pod, and whether the pod's other containers take one of them.
//!
//! Only declared ports can be seen. Stands here twice, as a function and as CEL, like [`super::reason`].

use serde_json::Value;

use super::cel::quoted;
use super::json::{list, text};
use super::pod::containers;
use super::{Moved, Recipe};

/// Every container of a pod, in CEL.
pub(super) const CONTAINERS: &str =
    "(object.spec.containers + object.spec.?initContainers.orValue([]))";

/// The first of a sidecar's ports that another container declares.
pub(super) fn clash(pod: &Value, sidecar: &Value) -> Option<u64> {
    let name = text(sidecar, "name");
    let others = || containers(pod).filter(|container| text(container, "name") != name);
    taken(sidecar)
        .into_iter()
        .find(|port| others().any(|other| declared(other).any(|own| own == *port)))
}

/// The recipe's other ports, where the pod takes the usual ones.
pub(super) fn moved<'a>(pod: &Value, recipe: &'a Recipe) -> Option<&'a Moved> {
    let sidecar = recipe.sidecar.as_ref()?;
    recipe
        .moved
        .as_ref()
        .filter(|_| clash(pod, sidecar).is_some())
}

/// TCP ports a sidecar listens at: the declared ones, and the one its probe asks.
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

/// In CEL: a sidecar's ports as a list, and whether the one called `port` is declared by another container.
pub(super) struct InCel {
    pub(super) ports: String,
    pub(super) used: String,
}

impl InCel {
    pub(super) fn of(sidecar: &Value) -> Self {
        let ports: Vec<String> = taken(sidecar).iter().map(u64::to_string).collect();
        Self {
            ports: format!("[{}]", ports.join(", ")),
            used: format!(
                "{CONTAINERS}.exists(c, c.name != {} && c.?ports.orValue([])\
                 .exists(p, p.containerPort == port && p.?protocol.orValue(\"TCP\") == \"TCP\"))",
                quoted(text(sidecar, "name"))
            ),
        }
    }

    /// Whether any of the ports is.
    pub(super) fn clash(&self) -> String {
        format!("{}.exists(port, {})", self.ports, self.used)
    }
}

/// In CEL, whether the pod is given the recipe's other ports; `None` where there are none.
pub(super) fn moved_in_cel(recipe: &Recipe) -> Option<String> {
    recipe.moved.as_ref()?;
    Some(InCel::of(recipe.sidecar.as_ref()?).clash())
}
