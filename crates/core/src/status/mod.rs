//! Pure. What is so, as `OtelAgent.status`, and which transitions are worth an event.
//!
//! Says nothing that was not observed. Times are given, never read.

mod conditions;
mod injected;
mod pods;
mod restarts;

pub use conditions::{Note, report, transitions, upgrade};
pub use pods::{Controller, Coverage, LivePod, PodReport, Serving, WorkloadRef, count};

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::build::Problem;
use crate::inject::namespace_limits::Breach;
use crate::restart::Verdict;
use crate::switching::WorkloadState;
use otelagent_api::Mode;

/// Everything a status is made of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The moment of the report.
    pub now: Timestamp,
    /// Generation of the spec that was acted on.
    pub generation: Option<i64>,
    /// The mode asked for.
    pub wanted: Mode,
    /// What keeps the spec from being carried out.
    pub problems: Vec<Problem>,
    /// The mode that new pods are given, and where they send.
    pub serving: Option<(Mode, String)>,
    /// The serving mode's workload; `None` for mode Sidecar.
    pub serving_workload: Option<WorkloadState>,
    /// The wanted mode's workload, where it differs from the serving one.
    pub wanted_workload: Option<WorkloadState>,
    /// Modes that stand though neither wanted nor serving: an older path may still be used.
    pub held: Vec<Mode>,
    /// Node modes whose agents stand, or are about to.
    pub paths: Vec<Mode>,
    /// The pods.
    pub pods: PodReport,
    /// What is so of injection.
    pub injection: InjectionState,
    /// Older `OtelAgent`s that select some of the same pods, and get them.
    pub winners: Vec<String>,
    /// What would keep pods out of namespaces because of the container that is injected.
    pub obstacles: Vec<Obstacle>,
    /// What made the recipe in force the one it is, in words.
    pub because: Option<String>,
    /// Agents that are about to be replaced though the spec is as it was.
    pub upgrade: Option<Upgrade>,
    /// What is so of restarts; `None` where workloads are left alone.
    pub restarts: Option<Restarts>,
    /// What kept the objects from being written, if anything did.
    pub failure: Option<Failure>,
}

/// What is so of the workloads that own stale, missed or uncovered pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restarts {
    /// Of each, whether it is restarted, and why not.
    pub verdicts: BTreeMap<WorkloadRef, Verdict>,
    /// Why none could be restarted.
    pub failure: Option<Failure>,
}

/// What a namespace demands and the injected container does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The namespace.
    pub namespace: String,
    /// Kind and name of the object that demands it.
    pub object: String,
    /// What is demanded.
    pub breach: Breach,
}

/// Agents that another version of the operator renders otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The version that wrote them.
    pub before: String,
    /// The version that writes them now.
    pub version: String,
    /// Their modes.
    pub modes: Vec<Mode>,
}

/// Why objects could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Stable word.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
}

/// What is so of injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectionState {
    /// The object selects no workloads.
    NotWanted,
    /// A dry-run pod was injected as the recipe says.
    InForce,
    /// No vehicle has ever been ready, so nothing may be injected yet.
    WaitingForAgents,
    /// Injection is not in force: stable reason and message.
    Failed {
        /// Stable word.
        reason: &'static str,
        /// What happened and what to do.
        message: String,
    },
}
