//! What is asked of a cluster before anything is judged.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use otelagent_core::build::ServerVersion;
use serde_json::Value;

use super::ports::PortsOfPod;
use crate::error::Right;
use crate::snapshot::Snapshot;

/// An object, or why there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Access<T> {
    /// It does not exist.
    #[default]
    Absent,
    /// It may not be read.
    Denied(Right),
    /// It exists.
    Found(T),
}

impl<T> Access<T> {
    /// What is made of a found object.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Access<U> {
        match self {
            Self::Found(found) => Access::Found(map(found)),
            Self::Denied(right) => Access::Denied(right),
            Self::Absent => Access::Absent,
        }
    }
}

/// A right that is needed for something, and whether the user has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The right.
    pub right: Right,
    /// Whether the user has it.
    pub is_granted: bool,
}

/// Who holds the operator's Lease, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The name of its pod; empty if nobody holds it.
    pub name: String,
    /// When it was renewed last.
    pub renewed: Option<Timestamp>,
    /// How long that lasts, in seconds.
    pub seconds: i64,
}

/// The answers of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The moment.
    pub now: Timestamp,
    /// Version of the API server; `None` if that is no number.
    pub server: Option<ServerVersion>,
    /// Whether the server has mutating admission policies.
    pub offers_policies: bool,
    /// Nodes: their labels, and the versions of their kubelets.
    pub nodes: Access<Vec<(BTreeMap<String, String>, String)>>,
    /// The CRD.
    pub crd: Access<Value>,
    /// Rights that are needed.
    pub rights: Vec<Needed>,
    /// Ports that pods take of their nodes.
    pub ports: Access<Vec<PortsOfPod>>,
    /// What was read of the installation.
    pub snapshot: Snapshot,
    /// The operator's Lease.
    pub holder: Access<Holder>,
    /// The `ClusterRole` that owns what is written for the whole cluster.
    pub owner: Access<()>,
    /// The webhook's Deployment: ready pods, and how many there should be.
    pub webhook: Access<(i32, i32)>,
    /// The CA certificates that webhook configurations trust, as PEM.
    pub trusted: Access<String>,
}
