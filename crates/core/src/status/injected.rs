//! The condition `Injected`: whether new pods are injected, and which running pods were not.

use super::message::{Assessment, assess, first_few, name_owners, unknown};
use super::{Facts, InjectionState};
use crate::pods::PodsOfOthers;
use otelagent_api::Mode;

/// Reasons of the condition while injection is active.
pub(super) const ACTIVE: [&str; 9] = [
    "Active",
    CA_NOT_KEPT,
    LIMITS_UNKNOWN,
    "OlderConfiguration",
    "PodsMissed",
    "PodsNotInjectable",
    "PodsOrphaned",
    "PodsRefused",
    "SelectsNothing",
];
/// The reason while pods are injected by a webhook whose CA cannot be kept up to date.
pub(super) const CA_NOT_KEPT: &str = "CaNotKept";
/// The reason while the operator may not read what refuses sidecars.
pub(super) const LIMITS_UNKNOWN: &str = "LimitsUnknown";

pub(super) fn injected(facts: &Facts) -> Assessment {
    match &facts.injection {
        InjectionState::NotWanted => assess(
            true,
            "NoWorkloads",
            "spec.workloads is not set, so no pods are injected; configure applications with status.endpoint",
        ),
        InjectionState::Revoked => assess(
            false,
            "NotAPlatformNamespace",
            "pods of other namespaces are not injected, because this namespace is no platform namespace (any more); see \
             condition Accepted",
        ),
        InjectionState::Unknown => assess(
            false,
            "NotEstablished",
            "it is not known yet whether new pods are injected; the operator tries again",
        ),
        InjectionState::WaitingForAgents => assess(
            false,
            "FirstAgentsNotReady",
            "injection starts when the first agents are ready",
        ),
        InjectionState::Failed { reason, message } => assess(false, reason, message.clone()),
        InjectionState::Active => active(facts),
        InjectionState::Unconfirmed {
            was_active: true,
            message,
        } => {
            let found = active(facts);
            let message = format!("{}; this could not be confirmed: {message}", found.message);
            Assessment { message, ..found }
        }
        InjectionState::Unconfirmed { message, .. } => unknown(
            "NotConfirmed",
            format!("it is not known whether new pods are injected: {message}"),
        ),
    }
}

fn active(facts: &Facts) -> Assessment {
    let limits = (!facts.namespace_limits.is_empty()).then(|| refused(facts));
    let [orphaned, missed] = [orphaned(facts), missed(facts)];
    let reason = if limits.is_some() {
        "PodsRefused"
    } else if orphaned.is_some() {
        "PodsOrphaned"
    } else if missed.is_some() {
        "PodsMissed"
    } else {
        return served(facts);
    };
    let parts = [
        limits,
        orphaned,
        missed,
        outdated(facts),
        ca_problem(facts),
        limits_unknown(facts),
        uninjectable(facts),
        lost_by_restart(facts),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    assess(false, reason, parts.join("; "))
}

/// No pod lacks what a restart would give it.
fn served(facts: &Facts) -> Assessment {
    let (status, reason, message) = if let Some(why) = &facts.selects_nothing {
        (false, "SelectsNothing", why.clone())
    } else if !facts.pods.outdated.is_empty() {
        (true, "OlderConfiguration", except_overlapping(facts))
    } else {
        let reason = if facts.pods.uninjectable.is_empty() {
            "Active"
        } else {
            "PodsNotInjectable"
        };
        (true, reason, except_overlapping(facts))
    };
    let ca = ca_problem(facts);
    let limits = limits_unknown(facts);
    let reason = match (&ca, &limits) {
        (Some(_), _) if status => CA_NOT_KEPT,
        (None, Some(_)) if status => LIMITS_UNKNOWN,
        _ => reason,
    };
    let parts = [
        Some(message),
        outdated(facts),
        ca,
        limits,
        uninjectable(facts),
        lost_by_restart(facts),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    assess(status, reason, parts.join("; "))
}

/// What becomes of injection without the webhook's CA, and what to do about it.
fn ca_problem(facts: &Facts) -> Option<String> {
    let why = facts.ca_problem.as_ref()?;
    Some(format!(
        "the webhook's CA cannot be kept up to date, so injection ends with its certificates or when its replicas restart \
         ({why}); apply manifests/webhook again (with Helm, upgrade the release), or restore the file of --webhook-ca-file"
    ))
}

/// Why pods may be refused without a word here: only sidecars have to fit into limits.
fn limits_unknown(facts: &Facts) -> Option<String> {
    let what = facts.limits_unknown.as_ref()?;
    (facts.wanted == Mode::Sidecar).then(|| {
        format!(
            "whether a LimitRange or ResourceQuota refuses the sidecar is not known, because the operator may not {what}; \
             apply manifests/default again (with Helm, upgrade the release)"
        )
    })
}

const SERVED: &str = "selected pods are injected when they are created";

/// Pods of the serving mode with an older configuration.
fn outdated(facts: &Facts) -> Option<String> {
    let pods: usize = facts.pods.outdated.values().sum();
    let owners = name_owners(&facts.pods.outdated);
    (pods > 0).then(|| {
        format!(
            "{pods} {} a configuration from before {} until {} restarted ({owners})",
            if pods == 1 { "pod has" } else { "pods have" },
            facts.recipe_reason.as_deref().unwrap_or("the present spec"),
            if pods == 1 { "it is" } else { "they are" },
        )
    })
}

fn except_overlapping(facts: &Facts) -> String {
    if facts.overlapping.is_empty() {
        return SERVED.into();
    }
    let older = first_few(&facts.overlapping, ", ");
    format!("{SERVED}, except those that {older} also selects: the oldest OtelAgent wins")
}

/// Pods that a restart would inject, and pods that another `OtelAgent` injected.
fn missed(facts: &Facts) -> Option<String> {
    let pods = &facts.pods;
    let count: usize = pods.missed.values().sum();
    let missed = (count > 0).then(|| {
        let owners = name_owners(&pods.missed);
        match count {
            1 => format!("1 selected pod was not injected and needs a restart ({owners})"),
            _ => format!("{count} selected pods were not injected and need a restart ({owners})"),
        }
    });
    let others = of_others(&pods.of_others, |agents| {
        format!("{agents}, which does not select them any more or is younger")
    });
    let parts: Vec<String> = missed.into_iter().chain(others).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn orphaned(facts: &Facts) -> Option<String> {
    of_others(&facts.pods.orphaned, |agents| {
        format!("{agents}, which does not exist")
    })
}

fn of_others(pods: &PodsOfOthers, whose: impl Fn(&str) -> String) -> Option<String> {
    let count: usize = pods.owners.values().sum();
    let agents: Vec<String> = pods.agents.iter().cloned().collect();
    let agents = whose(&first_few(&agents, ", "));
    let owners = name_owners(&pods.owners);
    match count {
        0 => None,
        1 => Some(format!(
            "1 selected pod was injected for OtelAgent {agents}, and needs a restart ({owners})"
        )),
        _ => Some(format!(
            "{count} selected pods were injected for OtelAgent {agents}, and need a restart ({owners})"
        )),
    }
}

/// Pods for which a restart would change nothing, with the reasons.
fn uninjectable(facts: &Facts) -> Option<String> {
    let owners = &facts.pods.uninjectable;
    let count: usize = owners.values().map(|(pods, _)| pods).sum();
    let named = owners
        .iter()
        .map(|(owner, (_, reason))| format!("{owner}: {reason}"));
    let named = first_few(&named.collect::<Vec<_>>(), ", ");
    let what = if count == 1 { "pod" } else { "pods" };
    (count > 0).then(|| {
        format!(
            "{count} selected {what} cannot be injected ({named}); to leave pods out, set their label \
             otelagent.dev/inject to \"false\""
        )
    })
}

/// Pods with an older mode or configuration that a restart would leave without any.
pub(super) fn lost_by_restart(facts: &Facts) -> Option<String> {
    let owners = &facts.pods.unrepeatable;
    let count: usize = owners.values().map(|(pods, _)| pods).sum();
    let named = owners
        .iter()
        .map(|(owner, (_, why))| format!("{owner}: {why}"));
    let named = first_few(&named.collect::<Vec<_>>(), ", ");
    let what = if count == 1 { "pod" } else { "pods" };
    (count > 0).then(|| {
        format!("{count} {what} would not be injected again if they were restarted ({named})")
    })
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::inject::Reason;
    use crate::pods::{NotAgain, WorkloadRef};
    use crate::status::NamespaceLimit;
    use crate::status::conditions::tests::facts;

    fn owner(name: &str) -> WorkloadRef {
        WorkloadRef::of_shop("Deployment", name)
    }

    fn said(facts: &Facts) -> (bool, &'static str, String) {
        let found = injected(facts);
        (found.status == "True", found.reason, found.message)
    }

    #[test]
    fn pods_that_cannot_be_injected_are_named_with_the_reason_and_are_no_alarm() {
        let mut facts = facts(0);
        let cannot = (2, Reason::HostNetwork);
        facts.pods.uninjectable = BTreeMap::from([(owner("cni"), cannot)]);
        let (status, reason, message) = said(&facts);
        assert_eq!((status, reason), (true, "PodsNotInjectable"));
        let named =
            "2 selected pods cannot be injected (Deployment shop/cni: it is on the host network";
        assert!(message.contains(named), "{message}");
        facts.pods.missed.insert(owner("cart"), 1);
        let (status, reason, both) = said(&facts);
        assert_eq!((status, reason), (false, "PodsMissed"));
        assert!(both.starts_with(
            "1 selected pod was not injected and needs a restart (Deployment shop/cart: 1); "
        ));
        assert!(both.contains(named), "{both}");
    }

    #[test]
    fn pods_that_a_restart_would_leave_uninjected_are_named_with_the_reason() {
        let mut facts = facts(0);
        facts.pods.outdated.insert(owner("cart"), 1);
        let why = (2, NotAgain::Uninjectable(Reason::HostNetwork));
        facts.pods.unrepeatable.insert(owner("cni"), why);
        let (status, reason, message) = said(&facts);
        assert_eq!((status, reason), (true, "OlderConfiguration"));
        let named = "; 2 pods would not be injected again if they were restarted (Deployment shop/cni: it is on the host network";
        assert!(message.contains(named), "{message}");
    }

    #[test]
    fn outdated_pods_are_named_whatever_else_is_told() {
        let mut facts = facts(0);
        facts.pods.outdated.insert(owner("cart"), 1);
        let named = "1 pod has a configuration from before the present spec until it is restarted (Deployment shop/cart: 1)";
        for (change, expected) in [
            ((|_| {}) as fn(&mut Facts), "OlderConfiguration"),
            (
                |facts| facts.selects_nothing = Some("label it".into()),
                "SelectsNothing",
            ),
            (
                |facts| {
                    facts.namespace_limits.push(NamespaceLimit {
                        namespace: "shop".into(),
                        object: "LimitRange it".into(),
                        breach: "allows less".into(),
                    });
                },
                "PodsRefused",
            ),
        ] {
            change(&mut facts);
            let (_, reason, message) = said(&facts);
            assert_eq!(reason, expected);
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn orphaned_pods_are_named_with_the_agent_that_is_gone() {
        let mut facts = facts(0);
        facts.pods.orphaned = PodsOfOthers {
            owners: BTreeMap::from([(owner("cart"), 3)]),
            agents: BTreeSet::from(["platform.old".to_owned()]),
        };
        let (status, reason, message) = said(&facts);
        assert_eq!((status, reason), (false, "PodsOrphaned"));
        assert_eq!(
            message,
            "3 selected pods were injected for OtelAgent platform.old, which does not exist, and need a restart \
             (Deployment shop/cart: 3)"
        );
    }

    #[test]
    fn every_reason_while_injection_is_active_is_known_as_one() {
        let changes: [fn(&mut Facts); 9] = [
            |_| {},
            |facts| facts.ca_problem = Some("why".into()),
            |facts| {
                facts.wanted = Mode::Sidecar;
                facts.limits_unknown = Some("list limitranges".into());
            },
            |facts| {
                facts.pods.outdated.insert(owner("a"), 1);
            },
            |facts| {
                facts.pods.missed.insert(owner("a"), 1);
            },
            |facts| {
                let why = (1, Reason::HostNetwork);
                facts.pods.uninjectable.insert(owner("a"), why);
            },
            |facts| {
                facts.pods.orphaned.owners.insert(owner("a"), 1);
            },
            |facts| {
                facts.namespace_limits.push(NamespaceLimit {
                    namespace: "shop".into(),
                    object: "LimitRange it".into(),
                    breach: "allows less".into(),
                });
            },
            |facts| facts.selects_nothing = Some("label it".into()),
        ];
        let mut seen = BTreeSet::new();
        for change in changes {
            let mut facts = facts(0);
            change(&mut facts);
            seen.insert(said(&facts).1);
        }
        assert_eq!(seen, ACTIVE.into());
    }

    #[test]
    fn ca_that_cannot_be_kept_is_told_while_pods_are_injected() {
        let mut facts = facts(0);
        facts.ca_problem = Some("read the webhook's CA: not found".into());
        facts.pods.outdated.insert(owner("cart"), 1);
        let (status, reason, message) = said(&facts);
        assert_eq!((status, reason), (true, CA_NOT_KEPT));
        for named in [
            "Deployment shop/cart: 1",
            "not found",
            "apply manifests/webhook",
        ] {
            assert!(message.contains(named), "{named}: {message}");
        }
        facts.pods.missed.insert(owner("till"), 1);
        let (status, reason, message) = said(&facts);
        assert_eq!((status, reason), (false, "PodsMissed"));
        assert!(message.contains("not found"), "{message}");
    }

    #[test]
    fn selection_without_a_namespace_says_what_to_label() {
        let mut facts = facts(0);
        facts.selects_nothing = Some("run kubectl label namespace".into());
        let (status, reason, message) = said(&facts);
        assert_eq!((status, reason), (false, "SelectsNothing"));
        assert_eq!(message, "run kubectl label namespace");
    }
}
