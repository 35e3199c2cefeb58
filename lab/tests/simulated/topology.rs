//! The five topologies and their ordered pairs.

use serde_json::{Value, json};

/// Where agents run and how they are reached, as a user says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    /// For people.
    pub(super) name: &'static str,
    /// `spec.mode`.
    pub(super) mode: &'static str,
    routing: &'static str,
}

const fn topology(name: &'static str, mode: &'static str, routing: &'static str) -> Topology {
    Topology {
        name,
        mode,
        routing,
    }
}

/// All of them.
pub(super) const ALL: [Topology; 5] = [
    topology("Sidecar", "Sidecar", "Require"),
    topology("HostPort", "HostPort", "Require"),
    topology("HostNetwork", "HostNetwork", "Require"),
    topology("NodeLocal-Require", "NodeLocal", "Require"),
    topology("NodeLocal-Prefer", "NodeLocal", "Prefer"),
];

impl Topology {
    /// The fields of the spec that say so.
    pub(super) fn spec(self) -> Value {
        json!({"mode": self.mode, "nodeLocal": {"routing": self.routing}, "hostMetadata": false})
    }
}

/// The twenty ordered pairs.
pub(super) fn pairs() -> Vec<(Topology, Topology)> {
    ALL.into_iter()
        .flat_map(|from| ALL.into_iter().map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .collect()
}
