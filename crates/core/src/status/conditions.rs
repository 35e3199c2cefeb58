//! Turns facts into conditions, and changes of conditions into events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::injected::injected;
use super::message::{Assessment, assess};
use super::ready::ready;
use super::renamed::present_reason;
use super::switching::switching;
use super::{Facts, restarts};
use otelagent_api::{
    ACCEPTED, AgentCounts, INJECTED, OtelAgentStatus, READY, RESTARTING, SWITCHING,
};

/// Longest message, in characters; the API allows 32768 but people read a line or two.
const MAX_MESSAGE: usize = 1024;

/// The status that these facts make. A condition whose status did not change keeps its
/// `lastTransitionTime`.
pub fn report(facts: &Facts, previous: Option<&OtelAgentStatus>) -> OtelAgentStatus {
    let assessments = [
        (ACCEPTED, accepted(facts)),
        (READY, ready(facts)),
        (SWITCHING, switching(facts)),
        (INJECTED, injected(facts)),
    ];
    let restarting = facts.restarts.as_ref().map(restarts::restarting);
    let restarting = restarting.map(|assessment| (RESTARTING, assessment));
    let old = previous
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    OtelAgentStatus {
        observed_generation: facts.generation,
        mode: facts.serving.as_ref().map(|(mode, _)| *mode),
        endpoint: facts.serving.as_ref().map(|(_, endpoint)| endpoint.clone()),
        paths: facts.routes.clone(),
        agents: Some(agents(facts)),
        pods: Some(facts.pods.counts.clone()),
        restarts: facts.restarts.as_ref().map(restarts::counts),
        conditions: assessments
            .into_iter()
            .chain(restarting)
            .map(|(type_, assessment)| condition(facts, old, type_, &assessment))
            .collect(),
    }
}

fn condition(facts: &Facts, old: &[Condition], type_: &str, assessment: &Assessment) -> Condition {
    let status = if assessment.status { "True" } else { "False" };
    let unchanged = old
        .iter()
        .find(|condition| condition.type_ == type_ && condition.status == status);
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: assessment.reason.into(),
        message: assessment.message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: facts.generation,
        last_transition_time: unchanged.map_or(Time(facts.now), |condition| {
            condition.last_transition_time.clone()
        }),
    }
}

fn agents(facts: &Facts) -> AgentCounts {
    match (&facts.serving_workload, &facts.serving) {
        (Some(workload), _) => AgentCounts {
            desired: workload.desired,
            ready: workload.ready,
            updated: workload.updated,
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
                .wanted_workload
                .as_ref()
                .map_or_else(AgentCounts::default, |workload| AgentCounts {
                    desired: workload.desired,
                    ready: workload.ready,
                    updated: workload.updated,
                })
        }
    }
}

fn accepted(facts: &Facts) -> Assessment {
    match facts.problems.first() {
        None => assess(true, "Valid", "the spec is valid"),
        Some(first) => {
            let all: Vec<&str> = facts
                .problems
                .iter()
                .map(|problem| problem.message.as_str())
                .collect();
            assess(false, first.reason, all.join("; "))
        }
    }
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
    let modes: Vec<&str> = upgrade.modes.iter().map(|mode| mode.as_str()).collect();
    Some(Note {
        warning: false,
        reason: "OperatorUpgraded".into(),
        message: format!(
            "operator {} changes the agent's pod template: agents of {} that operator {} rendered are replaced",
            upgrade.version,
            modes.join(", "),
            upgrade.before
        ),
    })
}

/// The events of a change from one status to another: for a condition whose status changed, or whose reason
/// changed while it is a cause for concern. A reason that only has another name now is no change.
pub fn transitions(previous: Option<&OtelAgentStatus>, current: &OtelAgentStatus) -> Vec<Note> {
    let old = previous
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    current
        .conditions
        .iter()
        .filter_map(|new| {
            let before = old.iter().find(|condition| condition.type_ == new.type_);
            let is_movement = [SWITCHING, RESTARTING].contains(&new.type_.as_str());
            let is_good = if new.type_ == RESTARTING {
                new.reason == "Done"
            } else {
                (new.status == "True") != is_movement
            };
            let changed = before.is_none_or(|before| before.status != new.status);
            let present =
                |before: &Condition| present_reason(&new.type_, &before.reason) == new.reason;
            let worse = !is_good && before.is_some_and(|before| !present(before));
            // The first report of a settled object is no event.
            let is_event = if before.is_none() {
                !is_good
            } else {
                changed || worse
            };
            is_event.then(|| Note {
                warning: !is_good && (!is_movement || new.status == "False"),
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
    use crate::pods::{PodReport, WorkloadRef};
    use crate::status::InjectionState;
    use crate::status::Upgrade;
    use crate::switching::WorkloadState;
    use otelagent_api::Mode;

    fn facts(second: i64) -> Facts {
        let ready = WorkloadState {
            desired: 2,
            ready: 2,
            updated: 2,
            ..WorkloadState::default()
        };
        Facts {
            now: Timestamp::from_second(second).unwrap(),
            generation: Some(1),
            wanted: Mode::NodeLocal,
            problems: Vec::new(),
            serving: Some((Mode::NodeLocal, "http://node.x.svc:4317".into())),
            serving_workload: Some(ready),
            wanted_workload: None,
            older_routes: Vec::new(),
            routes: Vec::new(),
            pods: PodReport::default(),
            injection: InjectionState::Active,
            overlapping: Vec::new(),
            namespace_limits: Vec::new(),
            recipe_reason: None,
            upgrade: None,
            restarts: None,
            failure: None,
        }
    }

    fn owner(kind: &str, name: &str) -> WorkloadRef {
        WorkloadRef::of_shop(kind, name)
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
            reason: "VerificationFailed",
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
        lacking.serving_workload.as_mut().unwrap().unready =
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
        midway.wanted_workload = Some(WorkloadState {
            desired: 2,
            missing: 1,
            ..WorkloadState::default()
        });
        let status = report(&midway, None);
        assert_eq!(find(&status, READY).status, "True");
        assert_eq!(find(&status, SWITCHING).reason, "AgentsNotReady");
        assert!(
            find(&status, SWITCHING)
                .message
                .contains("NodeLocal keeps serving: 1 of 2 nodes")
        );
    }

    #[test]
    fn uncovered_pods_make_it_not_ready_and_are_named() {
        let mut lacking = facts(0);
        lacking.pods.counts.injected = 5;
        lacking.pods.counts.uncovered = 2;
        lacking
            .pods
            .uncovered
            .insert(owner("Deployment", "cart"), 2);
        lacking.pods.uncovered_nodes.insert("n9".into());
        let status = report(&lacking, None);
        let ready = find(&status, READY);
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", "PodsUncovered")
        );
        let named = "2 of 5 pods run on nodes without a ready agent of their mode (Deployment shop/cart: 2; n9)";
        assert!(ready.message.starts_with(named), "{}", ready.message);
    }

    #[test]
    fn tolerated_nodes_without_an_agent_are_named_while_ready() {
        let mut tolerating = facts(0);
        let workload = tolerating.serving_workload.as_mut().unwrap();
        workload.unready = vec!["node n1: agent a is not ready".into()];
        workload.max_unready = 1;
        let status = report(&tolerating, None);
        assert_eq!(find(&status, READY).status, "True");
        assert!(
            find(&status, READY)
                .message
                .contains("node n1: agent a is not ready")
        );
    }

    #[test]
    fn an_upgrade_that_outdates_pods_or_replaces_agents_is_named() {
        let mut upgraded = facts(0);
        upgraded.recipe_reason = Some("the upgrade of the operator from 1 to 2".into());
        upgraded.pods.outdated.insert(owner("Pod", "one"), 1);
        let status = report(&upgraded, None);
        let injected = find(&status, INJECTED);
        assert_eq!(injected.reason, "OlderConfiguration");
        let named = "from before the upgrade of the operator from 1 to 2 until it is restarted (Pod shop/one: 1)";
        assert!(injected.message.contains(named), "{}", injected.message);

        assert_eq!(upgrade(&upgraded), None);
        upgraded.upgrade = Some(Upgrade {
            before: "1".into(),
            version: "2".into(),
            modes: vec![Mode::HostPort],
        });
        assert_eq!(
            upgrade(&upgraded).map(|note| note.message).as_deref(),
            Some(
                "operator 2 changes the agent's pod template: agents of HostPort that operator 1 rendered are replaced"
            )
        );
    }

    #[test]
    fn an_object_that_was_never_accepted_says_why_nothing_serves() {
        let mut refused = facts(0);
        refused.serving = None;
        refused.problems = vec![crate::build::Problem {
            field: "spec.mode",
            reason: "NotAPlatformNamespace",
            message: "x".into(),
        }];
        let status = report(&refused, None);
        assert_eq!(find(&status, READY).reason, "NotAccepted");
    }

    #[test]
    fn only_transitions_are_events() {
        let first = report(&facts(0), None);
        assert_eq!(
            transitions(None, &first),
            [],
            "a settled object is no event"
        );
        assert_eq!(
            transitions(Some(&first), &report(&facts(9), Some(&first))),
            []
        );
        let mut broken = facts(10);
        broken.injection = InjectionState::Failed {
            reason: "VerificationFailed",
            message: "why".into(),
        };
        let notes = transitions(Some(&first), &report(&broken, Some(&first)));
        assert_eq!(
            notes
                .iter()
                .map(|note| note.reason.as_str())
                .collect::<Vec<_>>(),
            ["VerificationFailed", "VerificationFailed"]
        );
        assert!(notes.iter().all(|note| note.warning));
    }

    /// A status as the release before wrote it: the same, with the old names of reasons.
    fn written_before(mut status: OtelAgentStatus) -> OtelAgentStatus {
        for condition in &mut status.conditions {
            let old = match (condition.type_.as_str(), condition.reason.as_str()) {
                (READY | INJECTED, "FirstAgentsNotReady") => "VehicleNotReady",
                (SWITCHING, "FirstAgents") => "FirstVehicle",
                (SWITCHING, "OldRouteInUse") => "OldPathInUse",
                (READY | INJECTED, "VerificationFailed") => "ProofFailed",
                (INJECTED, "Active") => "InForce",
                _ => continue,
            };
            condition.reason = old.into();
        }
        status
    }

    #[test]
    fn a_renamed_reason_is_rewritten_without_event_or_new_time() {
        let mut first = facts(100);
        (first.serving, first.injection) = (None, InjectionState::WaitingForAgents);
        let mut switching = facts(100);
        switching.pods.counts.by_mode.insert("HostPort".into(), 1);
        let mut failed = facts(100);
        failed.injection = InjectionState::Failed {
            reason: "VerificationFailed",
            message: "why".into(),
        };
        for mut facts in [first, switching, failed] {
            let present = report(&facts, None);
            let before = written_before(present.clone());
            assert_ne!(before, present);
            facts.now = Timestamp::from_second(200).unwrap();
            let after = report(&facts, Some(&before));
            assert_eq!(after, present);
            assert_eq!(transitions(Some(&before), &after), []);
        }
    }
}
