//! Turns facts into conditions, and changes of conditions into events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::delivering::{QUIET, delivering, not_asked};
use super::injected::{ACTIVE, injected};
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
    let progress = progress(facts, &accepted, &ready, &switching)
        .map(|(type_, assessment)| as_condition((type_, &assessment)));
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
            .chain(progress)
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

/// The events of a change from one status to another: for a condition whose status changed, or whose reason
/// changed while it needs attention. A renamed reason is not a change.
pub fn transitions(previous: Option<&OtelAgentStatus>, current: &OtelAgentStatus) -> Vec<Note> {
    let old = conditions(previous);
    let note = |new: &Condition| {
        let is_movement = [SWITCHING, RESTARTING].contains(&new.type_.as_str());
        let is_good = match new.type_.as_str() {
            RESTARTING => new.reason == "Done",
            DELIVERING if QUIET.contains(&new.reason.as_str()) => true,
            _ => (new.status == "True") != is_movement,
        };
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
pub(super) mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::pods::{PodReport, WorkloadRef};
    use crate::status::Upgrade;
    use crate::switching::WorkloadState;
    use otelagent_api::Mode;

    pub(in crate::status) fn facts(second: i64) -> Facts {
        Facts {
            now: Timestamp::from_second(second).unwrap(),
            generation: Some(1),
            wanted: Mode::NodeLocal,
            problems: Vec::new(),
            serving: Some((Mode::NodeLocal, "http://node.x.svc:4317".into())),
            serving_workload: Some(on_one_node()),
            wanted_workload: None,
            older_routes: Vec::new(),
            routes: Vec::new(),
            pods: PodReport::default(),
            left_out: BTreeMap::new(),
            injection: InjectionState::Active,
            overlapping: Vec::new(),
            namespace_limits: Vec::new(),
            selects_nothing: None,
            recipe_reason: None,
            upgrade: None,
            delivery: Delivery::Pending,
            restarts: None,
            failure: None,
        }
    }

    fn on_one_node() -> WorkloadState {
        WorkloadState {
            counts: AgentCounts {
                desired: 1,
                ready: 1,
                updated: 1,
            },
            ..WorkloadState::default()
        }
    }

    fn owner(kind: &str, name: &str) -> WorkloadRef {
        WorkloadRef::of_shop(kind, name)
    }

    fn failed() -> InjectionState {
        InjectionState::Failed {
            reason: "VerificationFailed",
            message: "why".into(),
        }
    }

    fn reported(facts: &Facts, type_: &str) -> Condition {
        find(&report(facts, None).conditions, type_)
            .unwrap()
            .clone()
    }

    /// Status and reason of the condition `Ready`.
    fn readiness(facts: &Facts) -> String {
        let ready = reported(facts, READY);
        format!("{} {}", ready.status, ready.reason)
    }

    #[test]
    fn failed_reconcile_keeps_what_was_reported_of_restarts() {
        let mut restarting = facts(100);
        restarting.restarts = Some(super::super::Restarts::default());
        let before = report(&restarting, None);
        assert!(before.restarts.is_some());
        let failure = Failure {
            reason: "Timeout",
            message: "why".into(),
        };
        let failed = facts(200).failed(failure, Some(&before));
        let after = report(&failed, Some(&before));
        assert_eq!(after.restarts, before.restarts);
        let of = |status: &OtelAgentStatus| find(&status.conditions, RESTARTING).cloned();
        assert_eq!(of(&after), of(&before));
        assert!(report(&facts(300), Some(&after)).restarts.is_none());
    }

    fn asked(delivering: i32, failing: i32) -> Delivery {
        let counts = DeliveryCounts {
            asked: delivering + failing,
            delivering,
            failing,
            ..DeliveryCounts::default()
        };
        Delivery::Known(crate::delivery::DeliverySummary {
            counts,
            ..Default::default()
        })
    }

    #[test]
    fn new_operator_keeps_what_was_reported_of_delivery_until_it_has_asked() {
        let mut known = facts(100);
        known.delivery = asked(2, 0);
        let before = report(&known, None);
        assert_eq!(before.delivery.as_ref().map(|counts| counts.asked), Some(2));
        let after = report(&facts(200), Some(&before));
        assert_eq!(after, before);
        assert_eq!(reported(&facts(0), DELIVERING).reason, "NotAsked");
    }

    #[test]
    fn failing_delivery_is_an_event_and_waiting_for_telemetry_no_warning() {
        let idle = report(&facts(0), None);
        assert_eq!(transitions(None, &idle), []);
        let mut broken = facts(1);
        broken.delivery = asked(1, 1);
        let broken = report(&broken, Some(&idle));
        let mut works = facts(2);
        works.delivery = asked(2, 0);
        let works = report(&works, Some(&broken));
        for (from, to, warning, reason) in [
            (&idle, &broken, true, "DeliveryFails"),
            (&broken, &works, false, "Delivering"),
            (&works, &idle, false, "NotAsked"),
        ] {
            let notes = transitions(Some(from), to);
            assert_eq!(notes.len(), 1, "{notes:?}");
            assert_eq!(
                (notes[0].warning, notes[0].reason.as_str()),
                (warning, reason)
            );
        }
    }

    #[test]
    fn condition_keeps_its_time_until_its_status_changes() {
        let first = report(&facts(100), None);
        let second = report(&facts(200), Some(&first));
        assert_eq!(first, second);

        let mut broken = facts(300);
        broken.injection = failed();
        let third = report(&broken, Some(&second));
        let since = |type_| find(&third.conditions, type_).map(|c| c.last_transition_time.0);
        assert_eq!(since(READY), Some(broken.now));
        assert_eq!(since(ACCEPTED), Some(facts(100).now));
    }

    #[test]
    fn ready_needs_both_agents_and_injection() {
        assert_eq!(reported(&facts(0), READY).status, "True");
        let mut lacking = facts(0);
        lacking.serving_workload.as_mut().unwrap().unready =
            vec!["node n1: agent a is not ready".into()];
        assert_eq!(readiness(&lacking), "False AgentsNotReady");
    }

    #[test]
    fn injection_that_others_hide_stays_as_it_was_and_says_why() {
        let hidden = |was_active| {
            let mut hidden = facts(0);
            hidden.injection = InjectionState::Unconfirmed {
                was_active,
                message: "exempt otelagent-canary".into(),
            };
            hidden
        };
        let active = hidden(true);
        assert!(active.injection.is_active());
        assert_eq!(readiness(&active), "True Serving");
        let injected = reported(&active, INJECTED);
        assert_eq!((&*injected.status, &*injected.reason), ("True", "Active"));
        assert!(injected.message.ends_with("exempt otelagent-canary"));
        assert!(says_active(&report(&active, None)));

        let unknown = hidden(false);
        assert!(!unknown.injection.is_active());
        assert_eq!(readiness(&unknown), "Unknown NotConfirmed");
        assert_eq!(reported(&unknown, INJECTED).status, "Unknown");
        assert!(!says_active(&report(&unknown, None)));
        assert!(!says_active(&report(
            &Facts {
                injection: failed(),
                ..facts(0)
            },
            None
        )));
    }

    #[test]
    fn wanted_mode_that_is_not_ready_leaves_the_serving_one_ready() {
        let mut midway = facts(0);
        midway.wanted = Mode::HostPort;
        midway.wanted_workload = Some(WorkloadState {
            counts: AgentCounts {
                desired: 2,
                ..AgentCounts::default()
            },
            missing: 1,
            ..WorkloadState::default()
        });
        assert_eq!(reported(&midway, READY).status, "True");
        let switching = reported(&midway, SWITCHING);
        assert_eq!(switching.reason, "AgentsNotReady");
        let named = "NodeLocal keeps serving: 1 of 2 nodes";
        assert!(switching.message.contains(named));
    }

    #[test]
    fn uncovered_pods_make_it_not_ready_and_are_named() {
        let mut lacking = facts(0);
        let pods = &mut lacking.pods;
        (pods.counts.injected, pods.counts.uncovered) = (5, 2);
        pods.uncovered.insert(owner("Deployment", "cart"), 2);
        pods.uncovered_nodes.insert("n9".into());
        assert_eq!(readiness(&lacking), "False PodsUncovered");
        let named = "2 of 5 pods run on nodes without a ready agent of their mode (Deployment shop/cart: 2; n9)";
        let message = reported(&lacking, READY).message;
        assert!(message.starts_with(named), "{message}");
        lacking.serving_workload.as_mut().unwrap().unready = vec!["node n9: no agent".into()];
        assert_eq!(readiness(&lacking), "False AgentsNotReady");
        let message = reported(&lacking, READY).message;
        assert!(message.contains(named), "{message}");
    }

    #[test]
    fn node_that_the_agents_leave_out_is_told_with_its_uncovered_pods() {
        let mut lacking = facts(0);
        let pods = &mut lacking.pods;
        (pods.counts.injected, pods.counts.uncovered) = (5, 1);
        pods.uncovered.insert(owner("Deployment", "cart"), 1);
        pods.uncovered_nodes.insert("vk".into());
        let why = "its taint virtual-kubelet.io/provider is not tolerated";
        lacking.left_out.insert("vk".into(), why.into());
        let message = reported(&lacking, READY).message;
        let named = format!("vk, which the agents leave out: {why}); change agent.tolerations");
        assert!(message.contains(&named), "{message}");
    }

    #[test]
    fn agents_that_cannot_be_updated_serve_on_and_the_reason_is_named() {
        let mut blocked = facts(0);
        let workload = blocked.serving_workload.as_mut().unwrap();
        workload.outdated = vec!["node n1: agent a has an older configuration".into()];
        workload.cannot_create = Some("agent pods cannot be created: no PriorityClass".into());
        assert_eq!(readiness(&blocked), "True NotRolledOut");
        let expected = "new pods use NodeLocal; the new configuration is not rolled out: agent pods cannot be created: no PriorityClass";
        let message = reported(&blocked, READY).message;
        assert!(message.starts_with(expected), "{message}");
        // Without any ready agent, nothing serves.
        let workload = blocked.serving_workload.as_mut().unwrap();
        workload.counts.ready = 0;
        assert_eq!(readiness(&blocked), "False AgentsNotReady");
    }

    #[test]
    fn wanted_mode_that_is_ready_but_not_injected_is_told_without_an_empty_reason() {
        let mut waiting = facts(0);
        waiting.wanted = Mode::HostPort;
        waiting.wanted_workload = Some(on_one_node());
        waiting.injection = failed();
        let message = reported(&waiting, SWITCHING).message;
        assert!(message.ends_with("(see condition Injected)"), "{message}");
    }

    #[test]
    fn tolerated_nodes_without_an_agent_are_named_while_ready() {
        let mut tolerating = facts(0);
        let workload = tolerating.serving_workload.as_mut().unwrap();
        workload.unready = vec!["node n1: agent a is not ready".into()];
        workload.max_unready = 1;
        let ready = reported(&tolerating, READY);
        assert_eq!(ready.status, "True");
        assert!(ready.message.contains("node n1: agent a is not ready"));
    }

    #[test]
    fn upgrade_that_outdates_pods_or_replaces_agents_is_named() {
        let mut upgraded = facts(0);
        upgraded.recipe_reason = Some("the upgrade of the operator from 1 to 2".into());
        upgraded.pods.outdated.insert(owner("Pod", "one"), 1);
        let injected = reported(&upgraded, INJECTED);
        assert_eq!(injected.reason, "OlderConfiguration");
        let named = "from before the upgrade of the operator from 1 to 2 until it is restarted (Pod shop/one: 1)";
        assert!(injected.message.contains(named), "{}", injected.message);

        assert_eq!(upgrade(&upgraded), None);
        upgraded.upgrade = Some(Upgrade {
            before: "1".into(),
            version: "2".into(),
            modes: vec![Mode::HostPort],
        });
        let expected = "operator 2 changes the agent's pod template: agents of HostPort that operator 1 rendered are replaced";
        assert_eq!(upgrade(&upgraded).unwrap().message, expected);
    }

    #[test]
    fn object_that_was_never_accepted_says_why_nothing_serves() {
        let mut refused = facts(0);
        refused.serving = None;
        refused.problems = vec![crate::build::Problem {
            reason: "NotAPlatformNamespace",
            message: "x".into(),
        }];
        assert_eq!(reported(&refused, READY).reason, "NotAccepted");
    }

    #[test]
    fn only_transitions_are_events() {
        let first = report(&facts(0), None);
        assert_eq!(
            transitions(None, &first),
            [],
            "a settled object is no event"
        );
        let later = report(&facts(9), Some(&first));
        assert_eq!(transitions(Some(&first), &later), []);
        let mut broken = facts(10);
        broken.injection = failed();
        let notes = transitions(Some(&first), &report(&broken, Some(&first)));
        let reasons: Vec<&str> = notes.iter().map(|note| note.reason.as_str()).collect();
        assert_eq!(reasons, ["VerificationFailed", "VerificationFailed"]);
        assert!(notes.iter().all(|note| note.warning));
    }

    /// The same status as the previous release wrote it, with the old names of reasons.
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
    fn renamed_reason_is_rewritten_without_event_or_new_time() {
        let mut first = facts(100);
        (first.serving, first.injection) = (None, InjectionState::WaitingForAgents);
        let mut switching = facts(100);
        switching.pods.counts.by_mode.insert("HostPort".into(), 1);
        let mut broken = facts(100);
        broken.injection = failed();
        for mut facts in [first, switching, broken] {
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
