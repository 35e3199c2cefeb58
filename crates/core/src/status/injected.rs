//! The condition `Injected`: whether new pods are injected, and which running pods were not.

use super::message::{Assessment, assess, first_few, name_owners};
use super::{Facts, InjectionState};

pub(super) fn injected(facts: &Facts) -> Assessment {
    match &facts.injection {
        InjectionState::NotWanted => assess(
            true,
            "NoWorkloads",
            "spec.workloads is not set, so no pods are injected; configure applications with status.endpoint",
        ),
        InjectionState::WaitingForAgents => assess(
            false,
            "FirstAgentsNotReady",
            "injection starts when the first agents are ready",
        ),
        InjectionState::Failed { reason, message } => assess(false, reason, message.clone()),
        InjectionState::Active => active(facts),
    }
}

fn active(facts: &Facts) -> Assessment {
    let missed = (facts.pods.counts.missed > 0).then(|| missed(facts));
    if !facts.namespace_limits.is_empty() {
        let all: Vec<String> = [refused(facts)].into_iter().chain(missed).collect();
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
                "selected pods are injected when they are created; {pods} {} a configuration from before {} until {} \
                 restarted ({owners})",
                if pods == 1 { "pod has" } else { "pods have" },
                facts.recipe_reason.as_deref().unwrap_or("the present spec"),
                if pods == 1 { "it is" } else { "they are" },
            ),
        );
    }
    let served = "selected pods are injected when they are created";
    if facts.overlapping.is_empty() {
        return assess(true, "Active", served);
    }
    let older = first_few(&facts.overlapping, ", ");
    assess(
        true,
        "Active",
        format!("{served}, except those that {older} also selects: the oldest OtelAgent wins"),
    )
}

fn missed(facts: &Facts) -> String {
    let owners = name_owners(&facts.pods.missed);
    match facts.pods.counts.missed {
        1 => format!("1 selected pod was not injected and needs a restart ({owners})"),
        missed => format!("{missed} selected pods were not injected and need a restart ({owners})"),
    }
}

/// Where the API server refuses injected pods, and what to do about it.
fn refused(facts: &Facts) -> String {
    let limits: Vec<String> = facts
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
        "pods would be refused because of their sidecar: {}; change agent.resources or these objects, or use a node mode",
        first_few(&limits, "; ")
    )
}
