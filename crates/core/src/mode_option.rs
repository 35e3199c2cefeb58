//! The modes between which a person chooses: each with its routing, where that matters.

use std::fmt;

use otelagent_api::{Mode, OtelAgentSpec, Routing};

/// One of the five topologies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModeOption {
    /// Mode `NodeLocal` with routing `Require`.
    NodeLocalRequire,
    /// Mode `NodeLocal` with routing `Prefer`.
    NodeLocalPrefer,
    /// Mode `HostPort`.
    HostPort,
    /// Mode `HostNetwork`.
    HostNetwork,
    /// Mode `Sidecar`.
    Sidecar,
}

impl ModeOption {
    /// All of them, in the order in which they are preferred where nothing else decides.
    pub const ALL: [Self; 5] = [
        Self::NodeLocalRequire,
        Self::NodeLocalPrefer,
        Self::HostPort,
        Self::HostNetwork,
        Self::Sidecar,
    ];

    /// What a spec asks for.
    pub fn of(spec: &OtelAgentSpec) -> Self {
        Self::of_mode(spec.mode, spec.node_local.routing)
    }

    /// A mode with the routing that it has if it is `NodeLocal`.
    pub fn of_mode(mode: Mode, routing: Routing) -> Self {
        match (mode, routing) {
            (Mode::NodeLocal, Routing::Require) => Self::NodeLocalRequire,
            (Mode::NodeLocal, Routing::Prefer) => Self::NodeLocalPrefer,
            (Mode::HostPort, _) => Self::HostPort,
            (Mode::HostNetwork, _) => Self::HostNetwork,
            (Mode::Sidecar, _) => Self::Sidecar,
        }
    }

    /// The value of `spec.mode`.
    pub fn mode(self) -> Mode {
        match self {
            Self::NodeLocalRequire | Self::NodeLocalPrefer => Mode::NodeLocal,
            Self::HostPort => Mode::HostPort,
            Self::HostNetwork => Mode::HostNetwork,
            Self::Sidecar => Mode::Sidecar,
        }
    }

    /// The value of `spec.nodeLocal.routing`.
    pub fn routing(self) -> Routing {
        match self {
            Self::NodeLocalPrefer => Routing::Prefer,
            Self::NodeLocalRequire | Self::HostPort | Self::HostNetwork | Self::Sidecar => {
                Routing::Require
            }
        }
    }

    /// Asks for it in a spec.
    pub fn choose(self, spec: &mut OtelAgentSpec) {
        spec.mode = self.mode();
        spec.node_local.routing = self.routing();
    }
}

/// As the documentation writes it.
impl fmt::Display for ModeOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeLocalRequire => f.write_str("NodeLocal (Require)"),
            Self::NodeLocalPrefer => f.write_str("NodeLocal (Prefer)"),
            Self::HostPort | Self::HostNetwork | Self::Sidecar => self.mode().fmt(f),
        }
    }
}
