//! Facts → conditions, and conditions → events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::injected::injected;
use super::{Facts, Failure, InjectionState, restarts};
use crate::pods::name_owners;
use crate::switching::WorkloadState;
use otelagent_api::{
    ACCEPTED, AgentCounts, INJECTED, OtelAgentStatus, READY, RESTARTING, SWITCHING,
};

/// How many nodes a message names.
const NAMED: usize = 3;
/// Longest message, in characters; the API allows 32768 but people read a line or two.
const MAX_MESSAGE: usize = 1024;

/// A verdict before it becomes a condition.
pub(super) struct Assessment {
    pub(super) status: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

pub(super) fn assess(status: bool, reason: &'static str, message: impl Into<String>) -> Assessment {
    Assessment {
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
    let restarting = facts.restarts.as_ref().map(restarts::restarting);
    let restarting = restarting.map(|verdict| (RESTARTING, verdict));
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
        conditions: verdicts
            .into_iter()
            .chain(restarting)
            .map(|(type_, verdict)| condition(facts, old, type_, &verdict))
            .collect(),
    }
}

/// The status where a reconcile failed before anything was found out: as it was, but not ready.
/// `observedGeneration` stays, since nothing was decided about the present spec.
pub fn unfinished(
    failure: &Failure,
    generation: Option<i64>,
    now: Timestamp,
    previous: Option<&OtelAgentStatus>,
) -> OtelAgentStatus {
    let mut status = previous.cloned().unwrap_or_default();
    let mut old = status.conditions.iter();
    let transition = match old.find(|condition| condition.type_ == READY) {
        Some(before) if before.status == "False" => before.last_transition_time.clone(),
        _ => Time(now),
    };
    let ready = Condition {
        type_: READY.into(),
        status: "False".into(),
        reason: failure.reason.into(),
        message: failure.message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: generation,
        last_transition_time: transition,
    };
    let mut conditions = status.conditions.iter_mut();
    match conditions.find(|condition| condition.type_ == READY) {
        Some(before) => *before = ready,
        None => status.conditions.push(ready),
    }
    status
}

fn condition(facts: &Facts, old: &[Condition], type_: &str, verdict: &Assessment) -> Condition {
    // What was not asked this time is as it was reported last.
    if type_ == INJECTED
        && facts.injection == InjectionState::Unknown
        && let Some(before) = old.iter().find(|condition| condition.type_ == type_)
    {
        return before.clone();
    }
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
        None => assess(true, "Valid", "the spec can be carried out"),
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

/// Whether a pod created now would be served.
fn ready(facts: &Facts) -> Assessment {
    if let Some(failure) = &facts.failure {
        return assess(false, failure.reason, failure.message.clone());
    }
    if facts.serving.is_none() && !facts.problems.is_empty() {
        return assess(
            false,
            "NotAccepted",
            "no agent serves yet: the spec was not accepted",
        );
    }
    let Some((serving, _)) = &facts.serving else {
        let waiting = facts
            .wanted_workload
            .as_ref()
            .map(waiting)
            .unwrap_or_default();
        return assess(
            false,
            "VehicleNotReady",
            format!("no agent serves yet: {waiting}"),
        );
    };
    if let Some(workload) = facts
        .serving_workload
        .as_ref()
        .filter(|workload| !workload.is_ready_everywhere())
    {
        return assess(
            false,
            "AgentsNotReady",
            format!("{serving}: {}", waiting(workload)),
        );
    }
    if facts.pods.counts.uncovered > 0 {
        return assess(false, "PodsUncovered", uncovered(facts));
    }
    let served = match &facts.injection {
        InjectionState::Active => format!("a pod created now is served in mode {serving}"),
        InjectionState::NotWanted => {
            format!("agents serve in mode {serving}; no workloads are selected")
        }
        InjectionState::Unknown => {
            return assess(
                false,
                "NotEstablished",
                "whether new pods are injected is not known yet",
            );
        }
        InjectionState::WaitingForAgents => {
            return assess(
                false,
                "VehicleNotReady",
                "injection waits for the first agents",
            );
        }
        InjectionState::Failed { reason, message } => {
            return assess(false, reason, message.clone());
        }
    };
    // Nodes that may be without a ready agent are named all the same.
    let tolerated = facts.serving_workload.as_ref().map(waiting);
    match tolerated.filter(|named| !named.is_empty()) {
        Some(named) => assess(
            true,
            "Serving",
            format!("{served}, but for what switchover.maxUnready allows: {named}"),
        ),
        None => assess(true, "Serving", served),
    }
}

/// Pods whose path leads nowhere, and what to do about it.
fn uncovered(facts: &Facts) -> String {
    let nodes: Vec<String> = facts.pods.uncovered_nodes.iter().cloned().collect();
    format!(
        "{} of {} pods run where no agent of their mode is ready ({}; {}); let the agent tolerate the taints of these \
         nodes (agent.tolerations, agent.nodeSelector), or move the pods",
        facts.pods.counts.uncovered,
        facts.pods.counts.injected,
        name_owners(&facts.pods.uncovered),
        first_few(&nodes, ", "),
    )
}

fn switching(facts: &Facts) -> Assessment {
    if !facts.problems.is_empty() {
        return assess(
            false,
            "NotAccepted",
            "the spec was not accepted; the last good topology keeps running",
        );
    }
    let wanted = facts.wanted;
    if let (Some((serving, _)), Some(workload)) = (&facts.serving, &facts.wanted_workload)
        && *serving != wanted
    {
        return assess(
            true,
            "VehicleNotReady",
            format!(
                "{wanted} is not ready, {serving} serves on: {}",
                waiting(workload)
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
        return assess(
            true,
            "OldPathInUse",
            format!("{} ({owners})", on_older_paths.join(", ")),
        );
    }
    if !facts.older_routes.is_empty() {
        let older: Vec<&str> = facts
            .older_routes
            .iter()
            .map(|mode| mode.as_str())
            .collect();
        return assess(
            true,
            "OldPathHeld",
            format!(
                "no running pod uses {} any more; it stays until the last has ended, and a little longer",
                older.join(", ")
            ),
        );
    }
    if facts.serving.is_none() {
        return assess(
            true,
            "FirstVehicle",
            format!("{wanted} is being made ready for the first time"),
        );
    }
    assess(
        false,
        "Settled",
        format!("{wanted} serves and no older path is left"),
    )
}

fn waiting(workload: &WorkloadState) -> String {
    first_few(&workload.waiting_for(), "; ")
}

pub(super) fn first_few(all: &[String], separator: &str) -> String {
    let named = all[..all.len().min(NAMED)].join(separator);
    match all.len().saturating_sub(NAMED) {
        0 => named,
        rest => format!("{named} and {rest} more"),
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

/// What an upgrade of the operator does to agents, if it does anything.
pub fn upgrade(facts: &Facts) -> Option<Note> {
    let upgrade = facts.upgrade.as_ref()?;
    let modes: Vec<&str> = upgrade.modes.iter().map(|mode| mode.as_str()).collect();
    Some(Note {
        warning: false,
        reason: "OperatorUpgraded".into(),
        message: format!(
            "agents of {} are replaced: operator {} renders them otherwise than {} did",
            modes.join(", "),
            upgrade.version,
            upgrade.before
        ),
    })
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
            let is_movement = [SWITCHING, RESTARTING].contains(&new.type_.as_str());
            let is_good = if new.type_ == RESTARTING {
                new.reason == "Done"
            } else {
                (new.status == "True") != is_movement
            };
            let changed = before.is_none_or(|before| before.status != new.status);
            let worse = !is_good && before.is_some_and(|before| before.reason != new.reason);
            // The first report of a settled object is no news.
            let is_news = if before.is_none() {
                !is_good
            } else {
                changed || worse
            };
            is_news.then(|| Note {
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
    use crate::status::Upgrade;
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
        assert_eq!(find(&status, SWITCHING).reason, "VehicleNotReady");
        assert!(
            find(&status, SWITCHING)
                .message
                .contains("NodeLocal serves on: 1 of 2 nodes")
        );
    }

    #[test]
    fn pods_without_an_agent_on_their_node_make_it_not_ready_and_are_named_with_their_nodes() {
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
        let named =
            "2 of 5 pods run where no agent of their mode is ready (Deployment shop/cart: 2; n9)";
        assert!(ready.message.starts_with(named), "{}", ready.message);
    }

    #[test]
    fn nodes_that_may_be_without_an_agent_are_named_though_it_is_ready() {
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
    fn an_upgrade_that_makes_pods_stale_or_replaces_agents_is_named_as_the_reason() {
        let mut upgraded = facts(0);
        upgraded.recipe_reason = Some("the upgrade of the operator from 1 to 2".into());
        upgraded.pods.outdated.insert(owner("Pod", "one"), 1);
        let status = report(&upgraded, None);
        let injected = find(&status, INJECTED);
        assert_eq!(injected.reason, "OlderConfiguration");
        let named = "than that of the upgrade of the operator from 1 to 2 until they are restarted (Pod shop/one: 1)";
        assert!(injected.message.contains(named), "{}", injected.message);

        assert_eq!(upgrade(&upgraded), None);
        upgraded.upgrade = Some(Upgrade {
            before: "1".into(),
            version: "2".into(),
            modes: vec![Mode::HostPort],
        });
        assert_eq!(
            upgrade(&upgraded).map(|note| note.message).as_deref(),
            Some("agents of HostPort are replaced: operator 2 renders them otherwise than 1 did")
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
