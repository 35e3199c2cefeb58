//! The condition `Restarting`, and the counts of `status.restarts`.

use super::Restarts;
use super::message::{Assessment, assess, first_few};
use crate::restart::Verdict;
use otelagent_api::RestartCounts;

/// The manifests with the role that lets the operator restart workloads.
const MANIFEST: &str = "manifests/restart";

/// How many there are of each.
pub(super) fn counts(restarts: &Restarts) -> RestartCounts {
    let mut counts = RestartCounts::default();
    for verdict in restarts.verdicts.values() {
        *match verdict {
            Verdict::Running => &mut counts.running,
            Verdict::Waits(_) => &mut counts.waiting,
            Verdict::Stuck => &mut counts.stuck,
            Verdict::NotRestartable(_) => &mut counts.not_restartable,
        } += 1;
    }
    counts
}

/// True while workloads restart or wait for it; False once that is over, with the workloads that are left.
pub(super) fn restarting(restarts: &Restarts) -> Assessment {
    if let Some(failure) = &restarts.failure {
        return if failure.reason == "Forbidden" {
            let message = format!(
                "the operator may not restart workloads here; run kubectl apply -k {MANIFEST} (with Helm, set \
                 restart.enabled), or set workloads.restart to Never: {}",
                failure.message
            );
            assess(false, "NotAllowed", message)
        } else {
            assess(false, failure.reason, failure.message.clone())
        };
    }
    let (mut running, mut waiting, mut stuck, mut left) =
        <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for (owner, verdict) in &restarts.verdicts {
        match verdict {
            Verdict::Running => running.push(owner.to_string()),
            Verdict::Waits(why) => waiting.push(format!("{owner}: {why}")),
            Verdict::Stuck => stuck.push(owner.to_string()),
            Verdict::NotRestartable(why) => left.push(format!("{owner}: {why}")),
        }
    }
    let after = [
        "unchanged after its restart (not retried)",
        "unchanged after their restart (not retried)",
    ];
    let mut groups = vec![
        (true, "Rolling", ["restarting"; 2], running),
        (true, "Waiting", ["waiting"; 2], waiting),
        (false, "StaleAfterRestart", after, stuck),
        (false, "NotRestartable", ["left alone"; 2], left),
    ];
    groups.retain(|(.., owners)| !owners.is_empty());
    let part = |[one, several]: [&str; 2], owners: &[String]| {
        let what = if owners.len() == 1 { one } else { several };
        format!("{} {what} ({})", owners.len(), first_few(owners, ", "))
    };
    let parts = groups
        .iter()
        .map(|(_, _, what, owners)| part(*what, owners));
    let parts = parts.collect::<Vec<_>>().join("; ");
    match groups.first() {
        Some((status, reason, ..)) => assess(*status, reason, parts),
        None => assess(false, "Done", "no workload needs a restart"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::WorkloadRef;
    use crate::status::Failure;

    fn assessed(verdicts: &[(&str, Verdict)]) -> (&'static str, &'static str, String) {
        let owner = |name| WorkloadRef::of_shop("Deployment", name);
        let verdicts = verdicts.iter().cloned();
        let found = restarting(&Restarts {
            verdicts: verdicts
                .map(|(name, verdict)| (owner(name), verdict))
                .collect(),
            failure: None,
        });
        (found.status, found.reason, found.message)
    }

    #[test]
    fn each_workload_is_named_with_what_becomes_of_it() {
        let all = [
            ("a", Verdict::Running),
            ("b", Verdict::Waits("other restarts run first".into())),
            ("c", Verdict::Stuck),
            ("d", Verdict::NotRestartable("its rollout is paused".into())),
        ];
        let (status, reason, message) = assessed(&all);
        assert_eq!((status, reason), ("True", "Rolling"));
        assert_eq!(
            message,
            "1 restarting (Deployment shop/a); 1 waiting (Deployment shop/b: other restarts run first); \
             1 unchanged after its restart (not retried) (Deployment shop/c); \
             1 left alone (Deployment shop/d: its rollout is paused)"
        );
        assert_eq!(assessed(&all[1..]).1, "Waiting");
        assert_eq!(assessed(&all[2..]).1, "StaleAfterRestart");
        assert_eq!(assessed(&all[3..]).1, "NotRestartable");
        assert_eq!(assessed(&[]).1, "Done");
    }

    #[test]
    fn missing_permission_names_the_manifest_that_grants_it() {
        let found = restarting(&Restarts {
            failure: Some(Failure {
                reason: "Forbidden",
                message: "x".into(),
            }),
            ..Restarts::default()
        });
        assert_eq!(found.reason, "NotAllowed");
        assert!(found.message.contains("kubectl apply -k manifests/restart"));
    }
}
