//! Facts → conditions, and conditions → events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::pods::name_owners;
use super::{Facts, InjectionState};
use crate::api::{ACCEPTED, AgentCounts, INJECTED, OtelAgentStatus, READY, SWITCHING};
use crate::switching::VehicleState;

/// How many nodes a message names.
const NAMED: usize = 3;
/// Longest message, in characters; the API allows 32768 but people read a line or two.
const MAX_MESSAGE: usize = 1024;

/// A verdict before it becomes a condition.
struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

fn verdict(status: bool, reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict {
        status,
        reason,
        message: message.into(),
    }
}

/// The status that says these facts. Conditions whose status did not change keep their
/// `lastTransitionTime`.
pub fn report(facts: &Facts, previous: Option<&OtelAgentStatus>) -> OtelAgentStatus {
    let verdicts = [
        (ACCEPTED, accepted(facts)),
        (READY, ready(facts)),
        (SWITCHING, switching(facts)),
        (INJECTED, injected(facts)),
    ];
    let old = previous
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    OtelAgentStatus {
        observed_generation: facts.generation,
        mode: facts.serving.as_ref().map(|(mode, _)| *mode),
        endpoint: facts.serving.as_ref().map(|(_, endpoint)| endpoint.clone()),
        agents: Some(agents(facts)),
        pods: Some(facts.pods.counts.clone()),
        conditions: verdicts
            .into_iter()
            .map(|(type_, verdict)| condition(facts, old, type_, &verdict))
            .collect(),
    }
}

fn condition(facts: &Facts, old: &[Condition], type_: &str, verdict: &Verdict) -> Condition {
    let status = if verdict.status { "True" } else { "False" };
    let unchanged = old
        .iter()
        .find(|condition| condition.type_ == type_ && condition.status == status);
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: verdict.reason.into(),
        message: verdict.message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: facts.generation,
        last_transition_time: unchanged.map_or(Time(facts.now), |condition| {
            condition.last_transition_time.clone()
        }),
    }
}

fn agents(facts: &Facts) -> AgentCounts {
    match (&facts.serving_vehicle, &facts.serving) {
        (Some(vehicle), _) => AgentCounts {
            desired: vehicle.desired,
            ready: vehicle.ready,
            updated: vehicle.updated,
        },
        // Sidecars run in the pods themselves: one each, and as ready as the pod.
        (None, Some((mode, _))) => {
            let pods = facts
                .pods
                .counts
                .by_mode
                .get(mode.as_str())
                .copied()
                .unwrap_or_default();
            let ready = facts.pods.ready.get(mode).copied().unwrap_or_default();
            AgentCounts {
                desired: pods,
                ready,
                updated: facts.pods.counts.current,
            }
        }
        (None, None) => {
            facts
                .wanted_vehicle
                .as_ref()
                .map_or_else(AgentCounts::default, |vehicle| AgentCounts {
                    desired: vehicle.desired,
                    ready: vehicle.ready,
                    updated: vehicle.updated,
                })
        }
    }
}

fn accepted(facts: &Facts) -> Verdict {
    match facts.problems.first() {
        None => verdict(true, "Valid", "the spec can be carried out"),
        Some(first) => {
            let all: Vec<&str> = facts
                .problems
                .iter()
                .map(|problem| problem.message.as_str())
                .collect();
            verdict(false, first.reason, all.join("; "))
        }
    }
}

/// Whether a pod created now would be served.
fn ready(facts: &Facts) -> Verdict {
    if let Some(failure) = &facts.failure {
        return verdict(false, failure.reason, failure.message.clone());
    }
    let Some((serving, _)) = &facts.serving else {
        let waiting = facts
            .wanted_vehicle
            .as_ref()
            .map(waiting)
            .unwrap_or_default();
        return verdict(
            false,
            "VehicleNotReady",
            format!("no agent serves yet: {waiting}"),
        );
    };
    if let Some(vehicle) = facts
        .serving_vehicle
        .as_ref()
        .filter(|vehicle| !vehicle.is_ready_everywhere())
    {
        return verdict(
            false,
            "AgentsNotReady",
            format!("{serving}: {}", waiting(vehicle)),
        );
    }
    match &facts.injection {
        InjectionState::InForce => verdict(
            true,
            "Serving",
            format!("a pod created now is served in mode {serving}"),
        ),
        InjectionState::NotWanted => verdict(
            true,
            "Serving",
            format!("agents serve in mode {serving}; no workloads are selected"),
        ),
        InjectionState::WaitingForVehicle => verdict(
            false,
            "VehicleNotReady",
            "injection waits for the first agents",
        ),
        InjectionState::Failed { reason, message } => verdict(false, reason, message.clone()),
    }
}

fn switching(facts: &Facts) -> Verdict {
    if !facts.problems.is_empty() {
        return verdict(
            false,
            "NotAccepted",
            "the spec was not accepted; the last good topology keeps running",
        );
    }
    let wanted = facts.wanted;
    if let (Some((serving, _)), Some(vehicle)) = (&facts.serving, &facts.wanted_vehicle)
        && *serving != wanted
    {
        return verdict(
            true,
            "VehicleNotReady",
            format!(
                "{wanted} is not ready, {serving} serves on: {}",
                waiting(vehicle)
            ),
        );
    }
    let counts = &facts.pods.counts;
    let on_older_paths: Vec<String> = counts
        .by_mode
        .iter()
        .filter(|(mode, _)| {
            facts
                .serving
                .as_ref()
                .is_some_and(|(serving, _)| serving.as_str() != mode.as_str())
        })
        .map(|(mode, pods)| format!("{pods} of {} pods still use {mode}", counts.injected))
        .collect();
    if !on_older_paths.is_empty() {
        let owners = name_owners(&facts.pods.stale);
        return verdict(
            true,
            "OldPathInUse",
            format!("{} ({owners})", on_older_paths.join(", ")),
        );
    }
    if !facts.held.is_empty() {
        let held: Vec<&str> = facts.held.iter().map(|mode| mode.as_str()).collect();
        return verdict(
            true,
            "OldPathHeld",
            format!(
                "no running pod uses {} any more; it stays until the last has ended, and a little longer",
                held.join(", ")
            ),
        );
    }
    if facts.serving.is_none() {
        return verdict(
            true,
            "FirstVehicle",
            format!("{wanted} is being made ready for the first time"),
        );
    }
    verdict(
        false,
        "Settled",
        format!("{wanted} serves and no older path is left"),
    )
}

fn injected(facts: &Facts) -> Verdict {
    let missed = facts.pods.counts.missed;
    match &facts.injection {
        InjectionState::NotWanted => verdict(
            true,
            "NoWorkloads",
            "no workloads are selected; the endpoint is in status",
        ),
        InjectionState::WaitingForVehicle => verdict(
            false,
            "VehicleNotReady",
            "nothing is injected before the first agents are ready",
        ),
        InjectionState::Failed { reason, message } => verdict(false, reason, message.clone()),
        InjectionState::InForce if missed > 0 => {
            let owners = name_owners(&facts.pods.missed);
            verdict(
                false,
                "PodsMissed",
                format!("{missed} selected pods were not injected and need a restart ({owners})"),
            )
        }
        InjectionState::InForce if !facts.winners.is_empty() => {
            let winners = facts.winners.join(", ");
            verdict(
                true,
                "InForce",
                format!(
                    "selected pods are injected when they are created, but those that {winners} selects too are its own: the older wins"
                ),
            )
        }
        InjectionState::InForce => verdict(
            true,
            "InForce",
            "selected pods are injected when they are created",
        ),
    }
}

fn waiting(vehicle: &VehicleState) -> String {
    let named: Vec<&str> = vehicle
        .waiting_for
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect();
    let rest = vehicle.waiting_for.len().saturating_sub(NAMED);
    if rest == 0 {
        named.join("; ")
    } else {
        format!("{} and {rest} more", named.join("; "))
    }
}

/// One event worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether someone should look.
    pub warning: bool,
    /// Stable word, the condition's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

/// The transitions between two statuses: a condition whose status changed, or whose reason changed
/// while it is a cause for concern. Nothing else is an event.
pub fn transitions(previous: Option<&OtelAgentStatus>, current: &OtelAgentStatus) -> Vec<Note> {
    let old = previous
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    current
        .conditions
        .iter()
        .filter_map(|new| {
            let before = old.iter().find(|condition| condition.type_ == new.type_);
            let is_good = (new.status == "True") != (new.type_ == SWITCHING);
            let changed = before.is_none_or(|before| before.status != new.status);
            let worse = !is_good && before.is_some_and(|before| before.reason != new.reason);
            // The first report of a settled object is no news.
            let is_news = if before.is_none() {
                !is_good
            } else {
                changed || worse
            };
            is_news.then(|| Note {
                warning: !is_good && new.type_ != SWITCHING,
                reason: new.reason.clone(),
                message: new.message.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::api::Mode;
    use crate::status::PodReport;

    fn facts(second: i64) -> Facts {
        let ready = VehicleState {
            desired: 2,
            ready: 2,
            updated: 2,
            waiting_for: Vec::new(),
        };
        Facts {
            now: Timestamp::from_second(second).unwrap(),
            generation: Some(1),
            wanted: Mode::NodeLocal,
            problems: Vec::new(),
            serving: Some((Mode::NodeLocal, "http://node.x.svc:4317".into())),
            serving_vehicle: Some(ready),
            wanted_vehicle: None,
            held: Vec::new(),
            pods: PodReport::default(),
            injection: InjectionState::InForce,
            winners: Vec::new(),
            failure: None,
        }
    }

    fn find<'a>(status: &'a OtelAgentStatus, type_: &str) -> &'a Condition {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
            .unwrap()
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = report(&facts(100), None);
        let second = report(&facts(200), Some(&first));
        assert_eq!(first, second);

        let mut broken = facts(300);
        broken.injection = InjectionState::Failed {
            reason: "ProofFailed",
            message: "x".into(),
        };
        let third = report(&broken, Some(&second));
        assert_eq!(find(&third, READY).last_transition_time.0.as_second(), 300);
        assert_eq!(
            find(&third, ACCEPTED).last_transition_time.0.as_second(),
            100
        );
    }

    #[test]
    fn ready_needs_both_agents_and_injection() {
        assert_eq!(find(&report(&facts(0), None), READY).status, "True");
        let mut lacking = facts(0);
        lacking.serving_vehicle.as_mut().unwrap().waiting_for =
            vec!["node n1: agent a is not ready".into()];
        let status = report(&lacking, None);
        assert_eq!(
            (
                find(&status, READY).status.as_str(),
                find(&status, READY).reason.as_str()
            ),
            ("False", "AgentsNotReady")
        );
    }

    #[test]
    fn a_wanted_mode_that_is_not_ready_leaves_the_serving_one_ready() {
        let mut midway = facts(0);
        midway.wanted = Mode::HostPort;
        midway.wanted_vehicle = Some(VehicleState {
            waiting_for: vec!["1 of 2 nodes have no agent yet".into()],
            ..VehicleState::default()
        });
        let status = report(&midway, None);
        assert_eq!(find(&status, READY).status, "True");
        assert_eq!(find(&status, SWITCHING).reason, "VehicleNotReady");
        assert!(
            find(&status, SWITCHING)
                .message
                .contains("NodeLocal serves on: 1 of 2 nodes")
        );
    }

    #[test]
    fn events_are_told_on_transitions_only() {
        let first = report(&facts(0), None);
        assert_eq!(transitions(None, &first), [], "a settled object is no news");
        assert_eq!(
            transitions(Some(&first), &report(&facts(9), Some(&first))),
            []
        );
        let mut broken = facts(10);
        broken.injection = InjectionState::Failed {
            reason: "ProofFailed",
            message: "why".into(),
        };
        let notes = transitions(Some(&first), &report(&broken, Some(&first)));
        assert_eq!(
            notes
                .iter()
                .map(|note| note.reason.as_str())
                .collect::<Vec<_>>(),
            ["ProofFailed", "ProofFailed"]
        );
        assert!(notes.iter().all(|note| note.warning));
    }
}
