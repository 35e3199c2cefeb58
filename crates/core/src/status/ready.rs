//! The condition `Ready`: whether new pods reach an agent.

use super::injected::injected;
use super::message::{Assessment, assess, first_few, name_owners, waiting};
use super::{Facts, InjectionState};
use crate::switching::WorkloadState;

pub(super) fn ready(facts: &Facts) -> Assessment {
    if let Some(failure) = &facts.failure {
        return assess(false, failure.reason, failure.message.clone());
    }
    let Some((serving, _)) = &facts.serving else {
        return none_serve(facts);
    };
    let workload = facts.serving_workload.as_ref();
    if let Some(workload) = workload.filter(|workload| !workload.serves()) {
        let message = format!("{serving}: {}", waiting(workload));
        let uncovered = (facts.pods.counts.uncovered > 0).then(|| uncovered(facts));
        let parts: Vec<String> = [message].into_iter().chain(uncovered).collect();
        return assess(false, "AgentsNotReady", parts.join("; "));
    }
    if facts.pods.counts.uncovered > 0 {
        return assess(false, "PodsUncovered", uncovered(facts));
    }
    match &facts.injection {
        state if state.is_active() => serves(facts, &format!("new pods use {serving}")),
        InjectionState::NotWanted => {
            let message = format!(
                "agents serve in mode {serving}; spec.workloads is not set, so no pods are injected"
            );
            serves(facts, &message)
        }
        // New pods reach no agent for the reason that they are not injected.
        _ => injected(facts),
    }
}

fn none_serve(facts: &Facts) -> Assessment {
    if !facts.problems.is_empty() {
        return assess(
            false,
            "NotAccepted",
            "no agents serve: the spec is not valid (see condition Accepted)",
        );
    }
    let waiting = facts.wanted_workload.as_ref().map(waiting);
    match (waiting.filter(|named| !named.is_empty()), &facts.injection) {
        (Some(named), _) => {
            let message = format!("no agents serve yet: {named}");
            assess(false, "FirstAgentsNotReady", message)
        }
        // A mode serves once new pods are sent to it.
        (None, InjectionState::Failed { reason, message }) => {
            assess(false, reason, message.clone())
        }
        (None, _) => assess(
            false,
            "FirstAgentsNotReady",
            "no agents serve yet: new pods are not injected yet (see condition Injected)",
        ),
    }
}

/// Names what lacks although new pods are served: nodes that may be without a ready agent, or agents that are still
/// of an older configuration.
fn serves(facts: &Facts, message: &str) -> Assessment {
    let workload = facts.serving_workload.as_ref();
    let lacking = workload.map(waiting).filter(|named| !named.is_empty());
    let is_rolled_out = workload.is_none_or(WorkloadState::is_ready_everywhere);
    match lacking {
        Some(named) if is_rolled_out => {
            let except = "except where switchover.maxUnready tolerates it";
            assess(true, "Serving", format!("{message}, {except}: {named}"))
        }
        Some(named) => {
            let message = format!("{message}; the new configuration is not rolled out: {named}");
            assess(true, "NotRolledOut", message)
        }
        None => assess(true, "Serving", message),
    }
}

/// Pods whose route ends at no agent, and what to do about it.
fn uncovered(facts: &Facts) -> String {
    let nodes = facts.pods.uncovered_nodes.iter();
    let nodes = nodes.map(|node| match facts.left_out.get(node) {
        Some(why) => format!("{node}, which the agents leave out: {why}"),
        None => node.clone(),
    });
    let nodes: Vec<String> = nodes.collect();
    format!(
        "{} of {} pods run on nodes without a ready agent of their mode ({}; {}); change agent.tolerations or \
         agent.nodeSelector to include these nodes, or move the pods",
        facts.pods.counts.uncovered,
        facts.pods.counts.injected,
        name_owners(&facts.pods.uncovered),
        first_few(&nodes, "; "),
    )
}
