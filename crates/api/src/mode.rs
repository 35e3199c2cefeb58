//! The mode: where the agent runs and how applications reach it.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Where the agent runs and how applications reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// A native sidecar in each pod, reached over loopback.
    Sidecar,
    /// A `DaemonSet` with `hostPort`, reached by the address of the node.
    HostPort,
    /// A `DaemonSet` on the host network, reached by the address of the node.
    HostNetwork,
    /// A `DaemonSet` behind a Service that keeps traffic on the node.
    NodeLocal,
}

impl Mode {
    /// Every mode, in the order of the documentation.
    pub const ALL: [Self; 4] = [
        Self::Sidecar,
        Self::HostPort,
        Self::HostNetwork,
        Self::NodeLocal,
    ];

    /// The name in specs and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "Sidecar",
            Self::HostPort => "HostPort",
            Self::HostNetwork => "HostNetwork",
            Self::NodeLocal => "NodeLocal",
        }
    }

    /// The name in names of objects.
    pub fn kebab(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::HostPort => "host-port",
            Self::HostNetwork => "host-network",
            Self::NodeLocal => "node-local",
        }
    }

    /// The mode that a label's value names, if any.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }

    /// Whether the agent workload is a `DaemonSet` and not a container in each pod.
    pub fn on_nodes(self) -> bool {
        self != Self::Sidecar
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The schema has no `enum`: the API server would answer "unsupported value" before a rule could say why
/// `NodePort` is refused. A rule lists the values instead.
impl JsonSchema for Mode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "x-kubernetes-validations": [
                {
                    "rule": "self != 'NodePort'",
                    "message": "NodePort is not offered: it is for traffic from outside the cluster and does not keep \
                                telemetry on the node; use NodeLocal (a node-local Service), or HostPort (the node's \
                                address)",
                },
                {
                    "rule": "self in ['Sidecar', 'HostPort', 'HostNetwork', 'NodeLocal', 'NodePort']",
                    "message": "mode must be Sidecar, HostPort, HostNetwork or NodeLocal",
                },
            ],
        })
    }

    fn inline_schema() -> bool {
        true
    }
}
