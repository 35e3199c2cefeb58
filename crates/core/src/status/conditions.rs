//! Turns facts into conditions, and changes of conditions into events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::delivering::{QUIET, delivering, not_asked};
use super::injected::{ACTIVE, CA_NOT_KEPT, LIMITS_UNKNOWN, injected};
use super::message::{Assessment, all_of, assess};
use super::progress::progress;
use super::ready::ready;
use super::renamed::present_reason;
use super::switching::switching;
use super::{Delivery, Facts, Failure, InjectionState, restarts};
use otelagent_api::{
    ACCEPTED, AgentCounts, DELIVERING, DeliveryCounts, INJECTED, OtelAgentStatus, READY,
    RECONCILING, RESTARTING, STALLED, SWITCHING,
};

/// Longest message, in characters; the API allows 32768 but people read a line or two.
const MAX_MESSAGE: usize = 1024;

/// The status that these facts make. A condition whose status did not change keeps its
/// `lastTransitionTime`.
pub fn report(facts: &Facts, previous: Option<&OtelAgentStatus>) -> OtelAgentStatus {
    let (accepted, ready, switching) = (accepted(facts), ready(facts), switching(facts));
    let is_unknown = facts.injection == InjectionState::Unknown;
    let restarting = facts.restarts.as_ref().map(restarts::restarting);
    let old = conditions(previous);
    let as_condition = |(type_, assessment): (&str, &Assessment)| {
        condition(type_, assessment, facts.generation, facts.now, old)
    };
    let progress = progress(facts, &accepted, &ready, &switching);
    let injected = injected(facts);
    let assessments = [
        (ACCEPTED, &accepted),
        (READY, &ready),
        (SWITCHING, &switching),
        (INJECTED, &injected),
    ];
    // A reconcile that failed did not come to the restarts.
    let is_kept = facts.failure.is_some() && facts.restarts.is_none();
    let kept = previous.filter(|_| is_kept);
    OtelAgentStatus {
        observed_generation: facts.generation,
        mode: facts.serving.as_ref().map(|(mode, _)| *mode),
        endpoint: facts.serving.as_ref().map(|(_, endpoint)| endpoint.clone()),
        paths: facts.routes.clone(),
        agents: agents(facts),
        pods: Some(facts.pods.counts.clone()),
        delivery: delivery_counts(facts, previous),
        restarts: match &facts.restarts {
            Some(restarts) => Some(restarts::counts(restarts)),
            None => kept.and_then(|status| status.restarts.clone()),
        },
        conditions: assessments
            .into_iter()
            .map(|(type_, assessment)| match find(old, INJECTED) {
                // A condition that was not determined stays as last reported.
                Some(before) if type_ == INJECTED && is_unknown => before.clone(),
                _ => as_condition((type_, assessment)),
            })
            .chain([delivering_condition(facts, old)])
            .chain(restarting.map(|assessment| as_condition((RESTARTING, &assessment))))
            .chain(kept.and_then(|_| find(old, RESTARTING).cloned()))
            .chain(progress.map(|(type_, assessment)| as_condition((type_, &assessment))))
            .collect(),
    }
}

fn delivering_condition(facts: &Facts, old: &[Condition]) -> Condition {
    match (delivering(facts), find(old, DELIVERING)) {
        (None, Some(before)) => Condition {
            observed_generation: facts.generation,
            ..before.clone()
        },
        (assessment, _) => {
            let assessment = assessment.unwrap_or_else(not_asked);
            condition(DELIVERING, &assessment, facts.generation, facts.now, old)
        }
    }
}

fn delivery_counts(facts: &Facts, previous: Option<&OtelAgentStatus>) -> Option<DeliveryCounts> {
    match &facts.delivery {
        _ if facts.serving.is_none() => None,
        Delivery::OtherImage(_) => None,
        Delivery::Pending => previous.and_then(|status| status.delivery.clone()),
        Delivery::Known(summary) => Some(&summary.counts)
            .filter(|counts| counts.asked > 0)
            .cloned(),
    }
}

/// The status after a reconcile that failed before it had any facts: unchanged but not ready.
/// `observedGeneration` stays, because nothing was decided about the current spec.
pub fn unfinished(
    failure: &Failure,
    generation: Option<i64>,
    now: Timestamp,
    previous: Option<&OtelAgentStatus>,
) -> OtelAgentStatus {
    let mut status = previous.cloned().unwrap_or_default();
    let failed = assess(false, failure.reason, failure.message.clone());
    let ready = condition(READY, &failed, generation, now, &status.conditions);
    let mut conditions = status.conditions.iter_mut();
    match conditions.find(|condition| condition.type_ == READY) {
        Some(before) => *before = ready,
        None => status.conditions.push(ready),
    }
    status
}

/// Whether a status says that pods are injected when they are created, whatever it says of running ones.
pub fn says_active(status: &OtelAgentStatus) -> bool {
    let injected = find(&status.conditions, INJECTED);
    injected.is_some_and(|injected| ACTIVE.contains(&present_reason(INJECTED, &injected.reason)))
}

fn conditions(status: Option<&OtelAgentStatus>) -> &[Condition] {
    status.map_or(&[], |status| &status.conditions)
}

fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn condition(
    type_: &str,
    assessment: &Assessment,
    generation: Option<i64>,
    now: Timestamp,
    old: &[Condition],
) -> Condition {
    let status = assessment.status;
    let unchanged = find(old, type_).filter(|before| before.status == status);
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: assessment.reason.into(),
        message: assessment.message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: generation,
        last_transition_time: unchanged
            .map_or(Time(now), |before| before.last_transition_time.clone()),
    }
}

/// Of the serving mode, or of the wanted one as long as it has agents and none serves.
fn agents(facts: &Facts) -> Option<AgentCounts> {
    let workload = match (&facts.serving_workload, &facts.serving) {
        // Sidecars run in the pods themselves: one each, and as ready as the pod.
        (None, Some((mode, _))) => {
            let counts = &facts.pods.counts;
            return Some(AgentCounts {
                desired: counts.by_mode.get(mode.as_str()).map_or(0, |pods| *pods),
                ready: facts.pods.ready.get(mode).map_or(0, |pods| *pods),
                updated: counts.current,
            });
        }
        (None, None) => &facts.wanted_workload,
        (serving, _) => serving,
    };
    let counts = workload.as_ref().map(|workload| workload.counts.clone());
    counts.filter(|counts| facts.serving.is_some() || counts.desired > 0)
}

fn accepted(facts: &Facts) -> Assessment {
    let Some(first) = facts.problems.first() else {
        return assess(true, "Valid", "the spec is valid");
    };
    let all = facts.problems.iter().map(|problem| &*problem.message);
    assess(false, first.reason, all.collect::<Vec<_>>().join("; "))
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it is a warning.
    pub warning: bool,
    /// Stable word, the condition's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

/// The event that an upgrade of the operator replaces agents, if it does.
pub fn upgrade(facts: &Facts) -> Option<Note> {
    let upgrade = facts.upgrade.as_ref()?;
    Some(Note {
        warning: false,
        reason: "OperatorUpgraded".into(),
        message: format!(
            "operator {} changes the agent's pod template: agents of {} that operator {} rendered are replaced",
            upgrade.version,
            all_of(&upgrade.modes),
            upgrade.before
        ),
    })
}

/// Whether a condition says what its `OtelAgent`'s owner wishes: nothing is wrong, and nothing is under way.
pub fn is_as_wished(condition: &Condition) -> bool {
    let (is_true, reason) = (condition.status == "True", condition.reason.as_str());
    match condition.type_.as_str() {
        RESTARTING => reason == "Done",
        DELIVERING if QUIET.contains(&reason) => true,
        INJECTED if [CA_NOT_KEPT, LIMITS_UNKNOWN].contains(&reason) => false,
        SWITCHING | RECONCILING | STALLED => !is_true,
        _ => is_true,
    }
}

/// The events of a change from one status to another: for a condition whose status changed, or whose reason
/// changed while it needs attention. A renamed reason is not a change.
pub fn transitions(previous: Option<&OtelAgentStatus>, current: &OtelAgentStatus) -> Vec<Note> {
    let old = conditions(previous);
    let note = |new: &Condition| {
        let is_movement = [SWITCHING, RESTARTING].contains(&new.type_.as_str());
        let is_good = is_as_wished(new);
        let is_event = match find(old, &new.type_) {
            // The first report of a settled object is no event.
            None => !is_good,
            Some(before) => {
                let is_same = present_reason(&new.type_, &before.reason) == new.reason;
                before.status != new.status || !is_good && !is_same
            }
        };
        is_event.then(|| Note {
            warning: !is_good && (!is_movement || new.status == "False"),
            reason: new.reason.clone(),
            message: new.message.clone(),
        })
    };
    // These two repeat what others say.
    let repeats = |new: &&Condition| [RECONCILING, STALLED].contains(&new.type_.as_str());
    let news = current.conditions.iter().filter(|new| !repeats(new));
    news.filter_map(note).collect()
}

#[cfg(test)]
pub(super) mod tests;
