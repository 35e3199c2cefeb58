//! What the steps of a reconcile achieved, and the facts for the status.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use otelagent_api::Mode;

use super::active::Active;
use super::observation::{Observation, ObservedWorkload, Subject};
use super::plan::workload_state;
use super::step::Plan;
use crate::build::{Desired, Problem, ValidAgent};
use crate::inject::namespace_limits::breach;
use crate::inject::{Namespaces, Recipe};
use crate::pods::PodReport;
use crate::quantity::MaxUnready;
use crate::status::{Delivery, Facts, InjectionState, NamespaceLimit, Upgrade};
use crate::switching::{self, WorkloadState};

/// After this time the operator reconciles a settled object again.
const RESYNC: Duration = Duration::from_mins(5);
/// After this time the operator retries injection that failed or could not be confirmed.
const RETRY: Duration = Duration::from_secs(30);

/// What the steps achieved so far.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The state of injection.
    pub injection: InjectionState,
    /// What new pods get now.
    pub active: Active,
    /// Names of the objects of its own namespace that were applied.
    pub applied: BTreeSet<String>,
    /// When to reconcile again even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Outcome {
    /// Before any step is executed.
    pub fn before(observation: &Observation<'_>, plan: &Plan) -> Self {
        let is_revoked = plan.injection == InjectionState::Revoked;
        let is_not_wanted = plan.injection == InjectionState::NotWanted && plan.switch.is_some();
        Self {
            injection: plan.injection.clone(),
            active: if is_revoked || is_not_wanted {
                Active::default()
            } else {
                observation.active.clone()
            },
            applied: BTreeSet::new(),
            requeue_after: plan.requeue_after,
        }
    }

    /// Asks for another reconcile within this time.
    pub fn requeue_within(&mut self, time: Option<Duration>) {
        self.requeue_after = self.requeue_after.into_iter().chain(time).min();
    }

    /// When to reconcile again, for everything that waits only for time to pass.
    pub fn next(&self) -> Duration {
        use InjectionState::{Failed, Unconfirmed};
        let is_open = matches!(self.injection, Failed { .. } | Unconfirmed { .. });
        let retry = if is_open { RETRY } else { RESYNC };
        self.requeue_after.map_or(retry, |sooner| sooner.min(retry))
    }
}

/// The facts about an object whose spec is valid.
pub fn facts(
    observation: &Observation<'_>,
    subject: &Subject<'_>,
    desired: &Desired,
    plan: &Plan,
    outcome: &Outcome,
) -> Facts {
    let valid = subject.valid;
    let wanted = valid.wanted();
    let switch = plan.switch.as_ref();
    let planned = switch.and_then(|switch| switch.serving);
    let serving = if valid.selection.is_some() {
        outcome.active.mode
    } else {
        planned
    };
    let state = |mode| workload_state(observation, valid, desired, mode);
    let recipe = desired.recipe(serving.unwrap_or(wanted));
    Facts {
        serving: serving.map(|mode| (mode, desired.shown_endpoint(mode))),
        serving_workload: serving.and_then(state),
        wanted_workload: (serving != Some(wanted))
            .then(|| wanted_state(plan, wanted, state(wanted)))
            .flatten(),
        older_routes: switch
            .map(|switch| switch.older_routes(wanted))
            .unwrap_or_default(),
        routes: switch
            .map(switching::SwitchPlan::node_modes)
            .unwrap_or_default(),
        namespace_limits: namespace_limits(observation, subject, desired),
        recipe_reason: outcome.active.reason.clone(),
        upgrade: upgrade(observation, subject, desired, plan, outcome),
        selects_nothing: selects_nothing(observation, valid),
        ..common(observation, outcome, recipe)
    }
}

/// The facts about an object whose spec was refused.
pub fn refused(observation: &Observation<'_>, problems: Vec<Problem>, outcome: &Outcome) -> Facts {
    let status = observation.agent.status.as_ref();
    let endpoint = status.and_then(|status| status.endpoint.clone());
    let mode = observation.last_mode();
    let recipe = mode.map(Recipe::of_mode);
    let state = |mode: Mode| {
        let found = observation.workloads.get(&mode)?;
        let template = &found.workload.template;
        let any = MaxUnready::default();
        Some(found.workload.state(&observation.nodes, template, any))
    };
    Facts {
        problems,
        serving: mode.map(|mode| (mode, endpoint.unwrap_or_default())),
        serving_workload: mode.and_then(state),
        routes: observation.reported_routes(),
        recipe_reason: outcome.active.reason.clone(),
        ..common(observation, outcome, recipe.as_ref())
    }
}

fn common(observation: &Observation<'_>, outcome: &Outcome, recipe: Option<&Recipe>) -> Facts {
    let hash = outcome.active.recipe.as_deref();
    let serving = outcome.active.mode.zip(hash);
    let pods = observation.pods.report(serving, recipe);
    Facts {
        now: observation.now,
        generation: observation.agent.metadata.generation,
        wanted: observation.agent.spec.mode,
        problems: Vec::new(),
        serving: None,
        serving_workload: None,
        wanted_workload: None,
        older_routes: Vec::new(),
        routes: Vec::new(),
        left_out: left_out(observation, &pods),
        pods,
        injection: outcome.injection.clone(),
        overlapping: observation.preceding.clone(),
        namespace_limits: Vec::new(),
        ca_problem: None,
        limits_unknown: None,
        selects_nothing: None,
        recipe_reason: None,
        upgrade: None,
        delivery: Delivery::default(),
        restarts: None,
        failure: None,
    }
}

/// Of the nodes of uncovered pods, those that agents leave out, and why.
pub(crate) fn left_out(
    observation: &Observation<'_>,
    pods: &PodReport,
) -> BTreeMap<String, String> {
    let left_out = pods.uncovered_nodes.iter().filter_map(|node| {
        let mut workloads = observation.workloads.values();
        let why = workloads.find_map(|found| found.workload.leaves_out(&observation.nodes, node));
        Some((node.clone(), why?))
    });
    left_out.collect()
}

/// What to do where no namespace has the labels that a spec asks for.
pub(crate) fn selects_nothing(observation: &Observation<'_>, valid: &ValidAgent) -> Option<String> {
    let Namespaces::Labelled(selector) = &valid.selection.as_ref()?.namespaces else {
        return None;
    };
    let mut labels = selector.match_labels.iter();
    let labels = labels.next().map_or_else(
        || "KEY=VALUE".to_owned(),
        |(key, value)| format!("{key}={value}"),
    );
    (!observation.selects_namespaces).then(|| {
        format!(
            "workloads.namespaceSelector selects no namespace, so no pod is injected; run kubectl label namespace NAME \
             {labels}, or correct the selector"
        )
    })
}

/// The state of the wanted mode's agents while another one serves.
fn wanted_state(plan: &Plan, wanted: Mode, state: Option<WorkloadState>) -> Option<WorkloadState> {
    let switch = plan.switch.as_ref()?;
    if let Some(first) = switch.first {
        return Some(WorkloadState::pending(format!(
            "the agents of {first} are brought up to date first, so that every node has their image"
        )));
    }
    let state = state?;
    let is_unconfirmed = state.is_ready_everywhere() && switch.serving != Some(wanted);
    Some(if is_unconfirmed {
        WorkloadState::pending("its readiness is not confirmed yet")
    } else {
        state
    })
}

/// Limits in selected namespaces that would refuse pods because of the sidecar; node agents run in the
/// `OtelAgent`'s own namespace.
pub(crate) fn namespace_limits(
    observation: &Observation<'_>,
    subject: &Subject<'_>,
    desired: &Desired,
) -> Vec<NamespaceLimit> {
    let wanted = subject.valid.wanted();
    if wanted.on_nodes() || observation.namespace_limits.is_empty() {
        return Vec::new();
    }
    let amounts = desired.recipe(wanted).map(Recipe::amounts);
    let amounts = amounts.unwrap_or_default();
    let limits = observation.namespace_limits.iter();
    let limit = |(namespace, object, bounds): &(String, String, Vec<_>)| {
        Some(NamespaceLimit {
            namespace: namespace.clone(),
            object: object.clone(),
            breach: breach(bounds, &amounts)?,
        })
    };
    limits.filter_map(limit).collect()
}

/// Modes whose agents are replaced only because the operator's version has changed, and whose new template has just
/// been applied: while that fails, nothing is replaced.
fn upgrade(
    observation: &Observation<'_>,
    subject: &Subject<'_>,
    desired: &Desired,
    plan: &Plan,
    outcome: &Outcome,
) -> Option<Upgrade> {
    let version = &subject.environment.operator_version;
    let is_applied = |found: &ObservedWorkload| {
        let name = found.object["metadata"]["name"].as_str();
        name.is_some_and(|name| outcome.applied.contains(name))
    };
    let before = |mode: &Mode| {
        let found = observation.workloads.get(mode);
        let found = found.filter(|found| is_applied(found))?;
        let before = found.written_by.clone()?;
        let differs = found.workload.template != desired.template(*mode);
        (differs && before != *version).then_some((before, *mode))
    };
    let kept = plan.switch.as_ref()?.keep.keys();
    let found: Vec<(String, Mode)> = kept.filter_map(before).collect();
    Some(Upgrade {
        before: found.first()?.0.clone(),
        version: version.clone(),
        modes: found.into_iter().map(|(_, mode)| mode).collect(),
    })
}
