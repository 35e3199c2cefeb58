//! The condition `Injected`: whether pods that are created now get what is injected, and which did not.

use super::conditions::{Assessment, assess, first_few};
use super::{Facts, InjectionState};
use crate::pods::name_owners;

pub(super) fn injected(facts: &Facts) -> Assessment {
    match &facts.injection {
        InjectionState::NotWanted => assess(
            true,
            "NoWorkloads",
            "no workloads are selected; the endpoint is in status",
        ),
        InjectionState::Unknown => assess(
            false,
            "NotEstablished",
            "whether new pods are injected is not known yet",
        ),
        InjectionState::WaitingForAgents => assess(
            false,
            "VehicleNotReady",
            "nothing is injected before the first agents are ready",
        ),
        InjectionState::Failed { reason, message } => assess(false, reason, message.clone()),
        InjectionState::Active => in_force(facts),
    }
}

fn in_force(facts: &Facts) -> Assessment {
    let missed = (facts.pods.counts.missed > 0).then(|| missed(facts));
    if !facts.namespace_limits.is_empty() {
        let all: Vec<String> = [obstructed(facts)].into_iter().chain(missed).collect();
        return assess(false, "PodsRefused", all.join("; "));
    }
    if let Some(missed) = missed {
        return assess(false, "PodsMissed", missed);
    }
    if !facts.pods.outdated.is_empty() {
        let pods: usize = facts.pods.outdated.values().sum();
        let owners = name_owners(&facts.pods.outdated);
        return assess(
            true,
            "OlderConfiguration",
            format!(
                "selected pods are injected when they are created; {pods} have an older configuration than that of {} \
                 until they are restarted ({owners})",
                facts.recipe_reason.as_deref().unwrap_or("the present spec"),
            ),
        );
    }
    let served = "selected pods are injected when they are created";
    if facts.overlapping.is_empty() {
        return assess(true, "InForce", served);
    }
    let winners = first_few(&facts.overlapping, ", ");
    assess(
        true,
        "InForce",
        format!("{served}, but those that {winners} selects too are its own: the older wins"),
    )
}

fn missed(facts: &Facts) -> String {
    let owners = name_owners(&facts.pods.missed);
    let missed = facts.pods.counts.missed;
    format!("{missed} selected pods were not injected and need a restart ({owners})")
}

/// Where pods cannot be created any more, and what to do about it.
fn obstructed(facts: &Facts) -> String {
    let told: Vec<String> = facts
        .namespace_limits
        .iter()
        .map(|found| {
            format!(
                "in namespace {}, {} {}",
                found.namespace, found.object, found.breach
            )
        })
        .collect();
    format!(
        "pods would be refused because of their sidecar: {}; change spec.agent.resources or these objects, or choose a \
         mode on nodes",
        first_few(&told, "; ")
    )
}
