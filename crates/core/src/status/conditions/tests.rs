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
        ca_problem: None,
        limits_unknown: None,
        selects_nothing: None,
        recipe_reason: None,
        upgrade: None,
        configurations: std::collections::BTreeSet::new(),
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

#[test]
fn ca_that_cannot_be_kept_is_a_warning_before_anything_is_missed() {
    let before = report(&facts(0), None);
    let mut broken = facts(1);
    broken.ca_problem = Some("not found".into());
    let broken = report(&broken, Some(&before));
    let notes = transitions(Some(&before), &broken);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!((notes[0].warning, &*notes[0].reason), (true, CA_NOT_KEPT));
    assert_eq!(transitions(Some(&broken), &broken), []);
    assert_eq!(transitions(Some(&broken), &before), []);
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
