//! Facts of restarts → counts and a condition.

use std::collections::BTreeMap;

use super::Restarts;
use super::conditions::{Assessment, assess, first_few};
use crate::pods::WorkloadRef;
use crate::restart::Verdict;
use otelagent_api::RestartCounts;

/// What the role is called that lets the operator restart workloads.
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

/// True while workloads are restarted or wait for it; False once that is over, with what is left.
pub(super) fn restarting(restarts: &Restarts) -> Assessment {
    if let Some(failure) = &restarts.failure {
        return if failure.reason == "Forbidden" {
            let message = format!(
                "the operator may not restart workloads here; allow it (kubectl apply -k {MANIFEST}), or use restart Never: {}",
                failure.message
            );
            assess(false, "NotAllowed", message)
        } else {
            assess(false, failure.reason, failure.message.clone())
        };
    }
    let counts = counts(restarts);
    let parts = parts(&restarts.verdicts).join("; ");
    if counts.running > 0 {
        assess(true, "Rolling", parts)
    } else if counts.waiting > 0 {
        assess(true, "Waiting", parts)
    } else if counts.stuck > 0 {
        assess(false, "StaleAfterRestart", parts)
    } else if counts.not_restartable > 0 {
        assess(false, "NotRestartable", parts)
    } else {
        assess(false, "Done", "no workload needs a restart")
    }
}

fn parts(verdicts: &BTreeMap<WorkloadRef, Verdict>) -> Vec<String> {
    let of = |tell: fn(&WorkloadRef, &Verdict) -> Option<String>| -> Vec<String> {
        verdicts
            .iter()
            .filter_map(|(owner, verdict)| tell(owner, verdict))
            .collect()
    };
    let running = of(|owner, verdict| (*verdict == Verdict::Running).then(|| owner.to_string()));
    let waits = of(|owner, verdict| match verdict {
        Verdict::Waits(why) => Some(format!("{owner}: {why}")),
        _ => None,
    });
    let stuck = of(|owner, verdict| (*verdict == Verdict::Stuck).then(|| owner.to_string()));
    let others = of(|owner, verdict| match verdict {
        Verdict::NotRestartable(why) => Some(format!("{owner}: {why}")),
        _ => None,
    });
    [
        ("being restarted", running),
        ("waiting", waits),
        ("as they were after a restart, not restarted again", stuck),
        ("left to you", others),
    ]
    .into_iter()
    .filter(|(_, owners)| !owners.is_empty())
    .map(|(what, owners)| format!("{} {what} ({})", owners.len(), first_few(&owners, ", ")))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Failure;

    fn owner(name: &str) -> WorkloadRef {
        WorkloadRef::of_shop("Deployment", name)
    }

    fn told(verdicts: &[(&str, Verdict)]) -> (bool, &'static str, String) {
        let verdicts = verdicts.iter().cloned();
        let told = restarting(&Restarts {
            verdicts: verdicts
                .map(|(name, verdict)| (owner(name), verdict))
                .collect(),
            failure: None,
        });
        (told.status, told.reason, told.message)
    }

    #[test]
    fn what_runs_waits_and_is_left_is_named_with_the_reason() {
        let all = [
            ("a", Verdict::Running),
            ("b", Verdict::Waits("its turn has not come".into())),
            ("c", Verdict::Stuck),
            ("d", Verdict::NotRestartable("it is paused".into())),
        ];
        let (status, reason, message) = told(&all);
        assert_eq!((status, reason), (true, "Rolling"));
        assert_eq!(
            message,
            "1 being restarted (Deployment shop/a); 1 waiting (Deployment shop/b: its turn has not come); \
             1 as they were after a restart, not restarted again (Deployment shop/c); \
             1 left to you (Deployment shop/d: it is paused)"
        );
        assert_eq!(told(&all[1..]).1, "Waiting");
        assert_eq!(told(&all[2..]).1, "StaleAfterRestart");
        assert_eq!(told(&all[3..]).1, "NotRestartable");
        assert_eq!(told(&[]).1, "Done");
    }

    #[test]
    fn a_right_that_is_lacking_is_told_with_the_manifest_that_grants_it() {
        let told = restarting(&Restarts {
            failure: Some(Failure {
                reason: "Forbidden",
                message: "x".into(),
            }),
            ..Restarts::default()
        });
        assert_eq!(told.reason, "NotAllowed");
        assert!(told.message.contains("kubectl apply -k manifests/restart"));
    }
}
