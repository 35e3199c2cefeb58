//! Turns what the controller observed into `OtelAgent.status`, and its changes into events.

mod conditions;
pub mod crd_fields;
mod delivering;
mod injected;
mod message;
mod progress;
mod ready;
mod renamed;
mod restarts;
mod switching;

pub use conditions::{Note, is_as_wished, report, says_active, transitions, unfinished, upgrade};

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::build::Problem;
use crate::delivery::DeliverySummary;
use crate::pods::{PodReport, WorkloadRef};
use crate::restart::Verdict;
use crate::switching::WorkloadState;
use otelagent_api::{Mode, OtelAgentStatus};

/// Everything that the status needs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The moment of the report.
    pub now: Timestamp,
    /// Generation of the spec that was acted on.
    pub generation: Option<i64>,
    /// The mode asked for.
    pub wanted: Mode,
    /// What is wrong with the spec.
    pub problems: Vec<Problem>,
    /// The mode of new pods, and where they send.
    pub serving: Option<(Mode, String)>,
    /// The serving mode's workload; `None` for mode Sidecar.
    pub serving_workload: Option<WorkloadState>,
    /// The wanted mode's workload, where it differs from the serving one.
    pub wanted_workload: Option<WorkloadState>,
    /// Modes that are kept although they are neither wanted nor serving, because pods may still use them.
    pub older_routes: Vec<Mode>,
    /// Node modes whose agents exist, or are about to.
    pub routes: Vec<Mode>,
    /// The pods.
    pub pods: PodReport,
    /// Of the nodes of uncovered pods, those that no agent is for, and why.
    pub left_out: BTreeMap<String, String>,
    /// The state of injection.
    pub injection: InjectionState,
    /// Older `OtelAgent`s that select some of the same pods and take precedence.
    pub overlapping: Vec<String>,
    /// Namespaces in which the API server would refuse pods because of the injected container.
    pub namespace_limits: Vec<NamespaceLimit>,
    /// What the operator may not do, so that it does not know whether limits refuse a sidecar.
    pub limits_unknown: Option<String>,
    /// Why the webhook's CA cannot be kept up to date, if it has not been for a while.
    pub ca_problem: Option<String>,
    /// What to do if no namespace is selected.
    pub selects_nothing: Option<String>,
    /// Why the active recipe became active, for a person.
    pub recipe_reason: Option<String>,
    /// Agents that are replaced although the spec has not changed.
    pub upgrade: Option<Upgrade>,
    /// What agents said when they were asked whether they deliver.
    pub delivery: Delivery,
    /// Restarts of workloads; `None` where `workloads.restart` is Never.
    pub restarts: Option<Restarts>,
    /// Why objects could not be written, if so.
    pub failure: Option<Failure>,
}

impl Facts {
    /// The same after a failure: objects that could not be removed still exist.
    pub fn failed(mut self, failure: Failure, previous: Option<&OtelAgentStatus>) -> Self {
        let reported = previous.map(|status| status.paths.as_slice());
        self.routes.extend(reported.unwrap_or_default());
        self.routes.sort_unstable();
        self.routes.dedup();
        self.failure = Some(failure);
        self
    }
}

/// Whether agents deliver, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// This process has not asked all of them yet: the condition stays as it was.
    #[default]
    Pending,
    /// They run this image, which is not the operator's.
    OtherImage(String),
    /// What they said.
    Known(DeliverySummary),
}

/// The workloads that own stale, missed or uncovered pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restarts {
    /// For each, whether it is restarted, and why not.
    pub verdicts: BTreeMap<WorkloadRef, Verdict>,
    /// Why none could be restarted.
    pub failure: Option<Failure>,
}

/// A `LimitRange` or quota that the injected container breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceLimit {
    /// The namespace.
    pub namespace: String,
    /// Kind and name of the object.
    pub object: String,
    /// What it demands, as a sentence without the object's name.
    pub breach: String,
}

/// Agents whose pod template another version of the operator changes.
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
    /// A stable word for the condition.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
}

/// The state of injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectionState {
    /// The object selects no workloads.
    NotWanted,
    /// Injection into other namespaces has ended, because its namespace is no platform namespace any more.
    Revoked,
    /// A dry-run pod was injected as the recipe says.
    Active,
    /// No agents have been ready yet, so nothing is injected.
    WaitingForAgents,
    /// This reconcile did not determine it: the condition stays as it was.
    Unknown,
    /// Others refuse the dry-run pods that would show it.
    Unconfirmed {
        /// Whether injection was active when the status was last written. Nothing suggests a change.
        was_active: bool,
        /// Who refuses them and what to do.
        message: String,
    },
    /// Injection is not active.
    Failed {
        /// A stable word for the condition.
        reason: &'static str,
        /// What happened and what to do.
        message: String,
    },
}

impl InjectionState {
    /// Whether pods created now are injected, as far as it is known.
    pub fn is_active(&self) -> bool {
        use InjectionState::{Active, Unconfirmed};
        matches!(
            self,
            Active
                | Unconfirmed {
                    was_active: true,
                    ..
                }
        )
    }
}
