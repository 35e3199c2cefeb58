//! The condition `Switching`: whether an older route still has users, or a new one is not ready yet.

use super::Facts;
use super::injected::lost_by_restart;
use super::message::{Assessment, all_of, assess, name_owners, waiting};

pub(super) fn switching(facts: &Facts) -> Assessment {
    let wanted = facts.wanted;
    if !facts.problems.is_empty() {
        return assess(
            false,
            "NotAccepted",
            "the spec is not valid (see condition Accepted); what ran before keeps running",
        );
    }
    if let (Some((serving, _)), Some(workload)) = (&facts.serving, &facts.wanted_workload)
        && *serving != wanted
    {
        let waiting = waiting(workload);
        let message = if workload.is_ready_everywhere() {
            format!(
                "{wanted} is ready, {serving} keeps serving until new pods are injected for {wanted} (see condition Injected)"
            )
        } else {
            format!("{wanted} is not ready, {serving} keeps serving: {waiting}")
        };
        return assess(true, "AgentsNotReady", message);
    }
    let in_use = older_routes_in_use(facts);
    if !in_use.is_empty() {
        let owners = name_owners(&facts.pods.stale);
        let in_use = format!("{} ({owners})", in_use.join(", "));
        let parts: Vec<String> = [in_use].into_iter().chain(lost_by_restart(facts)).collect();
        return assess(true, "OldRouteInUse", parts.join("; "));
    }
    if !facts.older_routes.is_empty() {
        let message = format!(
            "no running pod uses {}; it is kept until the last pod using it has terminated, plus switchover.holdOld",
            all_of(&facts.older_routes)
        );
        return assess(true, "OldRouteHeld", message);
    }
    if facts.serving.is_none() {
        let message = if facts.wanted_workload.is_some() {
            format!("the first agents, of mode {wanted}, are starting")
        } else {
            format!("{wanted} serves once injection is active (see condition Injected)")
        };
        return assess(true, "FirstAgents", message);
    }
    let message = format!("{wanted} serves and no older route is left");
    assess(false, "Settled", message)
}

/// Of each mode that does not serve, how many pods use it.
fn older_routes_in_use(facts: &Facts) -> Vec<String> {
    let Some((serving, _)) = &facts.serving else {
        return Vec::new();
    };
    let counts = &facts.pods.counts;
    counts
        .by_mode
        .iter()
        .filter(|(mode, _)| serving.as_str() != mode.as_str())
        .map(|(mode, pods)| format!("{pods} of {} pods still use {mode}", counts.injected))
        .collect()
}
