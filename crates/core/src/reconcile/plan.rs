//! From what is observed to what is desired: the steps of one reconcile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use otelagent_api::Mode;
use serde_json::Value;

use super::injection::{self, Engines};
use super::observation::{Observation, Subject};
use super::step::{Intent, Plan, Removal, Step};
use crate::build::{Desired, Environment, Object, ValidAgent, is_as_wanted};
use crate::names;
use crate::switching::{self, Situation, WorkloadState, used};

/// When to check again what the API server has not confirmed yet.
const SOON: Duration = Duration::from_secs(1);

/// The modes whose objects the plan may need: the wanted and the serving one, those that exist, and those
/// that pods use.
pub fn modes(observation: &Observation<'_>, subject: &Subject<'_>) -> BTreeSet<Mode> {
    let used = users(observation, subject).into_keys();
    let serving = serving(observation, subject);
    let existing = observation.workloads.keys().copied();
    let wanted = [subject.valid.wanted()].into_iter();
    wanted.chain(serving).chain(existing).chain(used).collect()
}

/// Plans from scratch, without the previous plan.
pub fn plan(
    observation: &Observation<'_>,
    subject: &Subject<'_>,
    desired: &Desired,
    engines: &Engines<'_>,
) -> Plan {
    let situation = situation(observation, subject, desired);
    let mut switch = switching::plan(&situation);
    let mut steps = writes(observation, subject, desired, &switch);
    let recipe = switch.serving.and_then(|mode| desired.recipe(mode));
    let mut plan = match &subject.valid.selection {
        None => injection::withdraw(observation),
        Some(selection) => injection::activate(observation, subject, engines, recipe, selection),
    };
    let cuts_over = switch.serving != situation.serving;
    steps.extend(switch.serving.filter(|_| cuts_over).map(Step::CutOver));
    steps.append(&mut plan.steps);
    steps.extend(removals(observation, desired, &switch));
    plan.steps = steps;
    let unconfirmed = observation.unconfirmed.contains(&subject.valid.wanted());
    let waits = [
        switch.requeue_after.take(),
        plan.requeue_after,
        unconfirmed.then_some(SOON),
    ];
    plan.requeue_after = waits.into_iter().flatten().min();
    plan.switch = Some(switch);
    plan
}

/// The state of a mode's agent workload against the template it should have; `None` in mode Sidecar. One
/// that does not exist yet is waited for.
pub(crate) fn workload_state(
    observation: &Observation<'_>,
    valid: &ValidAgent,
    desired: &Desired,
    mode: Mode,
) -> Option<WorkloadState> {
    if !mode.on_nodes() {
        return None;
    }
    let Some(found) = observation.workloads.get(&mode) else {
        return Some(WorkloadState::pending("it does not exist yet"));
    };
    let (nodes, template) = (&observation.nodes, desired.template(mode));
    Some(found.workload.state(nodes, template, valid.max_unready))
}

/// Checks that the status is plausible: the owner of an object may write its status too.
fn may_be(subject: &Subject<'_>) -> impl Fn(&Mode) -> bool {
    let is_platform = subject.environment.is_platform(&subject.valid.namespace);
    move |mode| is_platform || !mode.on_nodes()
}

fn serving(observation: &Observation<'_>, subject: &Subject<'_>) -> Option<Mode> {
    observation.last_mode().filter(may_be(subject))
}

fn users(observation: &Observation<'_>, subject: &Subject<'_>) -> BTreeMap<Mode, usize> {
    let reported = observation.reported_routes().into_iter();
    let existing = observation.workloads.keys().copied();
    let known = reported
        .filter(may_be(subject))
        .chain(serving(observation, subject))
        .chain(existing);
    let mut users = used(observation.pods.users().clone(), &known.collect());
    let asked = observation.used.iter();
    users.extend(asked.map(|(mode, used)| (*mode, usize::from(*used))));
    users
}

fn situation(observation: &Observation<'_>, subject: &Subject<'_>, desired: &Desired) -> Situation {
    let valid = subject.valid;
    let wanted = valid.wanted();
    let state = workload_state(observation, valid, desired, wanted);
    let workloads = || observation.workloads.iter();
    let outdated = workloads().filter(|(mode, found)| {
        let template = desired.template(**mode);
        **mode != wanted && found.workload.is_outdated(&observation.nodes, template)
    });
    Situation {
        now: observation.now,
        wanted,
        serving: serving(observation, subject),
        wanted_ready: state.is_none_or(|state| state.is_ready_everywhere())
            && !observation.unconfirmed.contains(&wanted),
        users: users(observation, subject),
        workloads: workloads()
            .map(|(mode, found)| (*mode, found.unused_since))
            .collect(),
        outdated: outdated.map(|(mode, _)| *mode).collect(),
        hold_old: valid.hold_old,
    }
}

/// Adds steps that apply the changed objects of the modes that must exist.
fn writes(
    observation: &Observation<'_>,
    subject: &Subject<'_>,
    desired: &Desired,
    switch: &switching::SwitchPlan,
) -> Vec<Step> {
    let owner = observation.owner();
    let mut steps = Vec::new();
    for (mode, unused_since) in &switch.keep {
        for object in desired.objects(*mode) {
            let live = live(observation, *mode, object);
            let ours = live.filter(|live| owner.is_named_by(live));
            let body = annotated(object, subject.environment, *unused_since);
            let intent = Intent::sealed(object.kind(), body, ours);
            if !ours.is_some_and(|live| is_as_wanted(live, &intent.body)) {
                steps.push(Step::Apply(intent));
            }
        }
    }
    steps
}

fn annotated(object: &Object, environment: &Environment, unused: Option<Timestamp>) -> Value {
    let mut body = object.to_json();
    if matches!(object, Object::DaemonSet(_)) {
        let annotations = &mut body["metadata"]["annotations"];
        annotations[names::ANNOTATION_OPERATOR] = environment.operator_version.clone().into();
        if let Some(since) = unused {
            annotations[names::ANNOTATION_UNUSED_SINCE] = since.to_string().into();
        }
    }
    body
}

/// The observed object of that name, even if it belongs to somebody else.
fn live<'a>(observation: &'a Observation<'_>, mode: Mode, object: &Object) -> Option<&'a Value> {
    match object {
        Object::DaemonSet(_) => observation.workloads.get(&mode).map(|found| &found.object),
        Object::Service(_) => observation.service.as_ref(),
    }
}

/// Adds steps that remove the modes that no pod uses any more: the Service first, then the agent workload.
fn removals(
    observation: &Observation<'_>,
    desired: &Desired,
    switch: &switching::SwitchPlan,
) -> Vec<Step> {
    let removal = |mode: &Mode| {
        let mode = *mode;
        let found = |object: &Object| {
            let live = live(observation, mode, object)?;
            Some((object.kind(), live.clone()))
        };
        let objects = desired
            .objects(mode)
            .iter()
            .rev()
            .filter_map(found)
            .collect();
        Step::Remove(Removal { mode, objects })
    };
    switch.remove.iter().map(removal).collect()
}
