//! Decides which workloads to restart now, which wait and why, and which are left alone
//! (`workloads.restart: Rolling`).
//!
//! A restart creates new pods, which use the serving mode: that is what stale, missed and uncovered pods
//! lack. It is the only decision that disturbs running applications, so it is cautious: a workload that is
//! unavailable, rolling, paused or protected by a disruption budget waits, and no workload is restarted
//! twice for the same recipe. The restart itself records its purpose on the workload, so a crash at any
//! point changes nothing.

mod poll;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use crate::owners;
use crate::pods::WorkloadRef;

pub use poll::{NewPods, next_to_poll};
pub use workload::{Budget, KINDS, Workload, is_marked, is_restartable, patch, release};

/// What is observed of the workloads of one `OtelAgent`.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Owners of stale, missed or uncovered pods.
    pub candidates: BTreeSet<WorkloadRef>,
    /// Workloads labelled as being restarted.
    pub marked: Vec<Workload>,
    /// Candidates as just read.
    pub seen: Vec<Workload>,
    /// Candidates that were looked for and do not exist.
    pub gone: BTreeSet<WorkloadRef>,
    /// The verdicts on candidates when they were read last.
    pub known: BTreeMap<WorkloadRef, Verdict>,
    /// Candidates that must not be restarted now, and why: the API server refused it, or new pods would be
    /// no better.
    pub blocked: BTreeMap<WorkloadRef, String>,
    /// Candidates whose restart would be in vain, and why.
    pub in_vain: BTreeMap<WorkloadRef, String>,
    /// What a restart would be for: `OtelAgent` and recipe, see [`purpose`].
    pub purpose: String,
    /// How many may be restarted at a time.
    pub at_a_time: usize,
}

/// Why a workload is not restarted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is being restarted.
    Running,
    /// It will be restarted when this is over.
    Waits(String),
    /// It was restarted for this recipe, and its pods are unchanged.
    Stuck,
    /// The operator does not restart it, for this reason.
    NotRestartable(String),
}

/// What to do, and the verdict on each workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Workloads to restart now.
    pub restart: Vec<WorkloadRef>,
    /// Workloads whose label is removed: their restart is over.
    pub release: Vec<WorkloadRef>,
    /// The verdict on each candidate and on each workload being restarted.
    pub verdicts: BTreeMap<WorkloadRef, Verdict>,
}

/// What a restart is for, as the workload records it.
pub fn purpose(agent: &str, recipe: &str) -> String {
    format!("{agent}/{recipe}")
}

/// What the running restarts leave for others.
struct Places<'a> {
    free: usize,
    /// Budgets whose pods are being replaced.
    budgets: BTreeSet<(&'a str, &'a str)>,
}

/// Decides what to restart now.
pub fn decide(observed: &Round) -> Decision {
    let mut decision = Decision::default();
    let mut budgets = BTreeSet::new();
    for workload in &observed.marked {
        if workload.unsettled.is_none() {
            decision.release.push(workload.owner.clone());
        } else {
            budgets.extend(workload.budgets());
            let owner = workload.owner.clone();
            decision.verdicts.insert(owner, Verdict::Running);
        }
    }
    let mut places = Places {
        free: observed.at_a_time.saturating_sub(decision.verdicts.len()),
        budgets,
    };
    for owner in &observed.candidates {
        if decision.verdicts.contains_key(owner) {
            continue;
        }
        let seen = observed.seen.iter().find(|seen| seen.owner == *owner);
        let verdict = match (never(owner, observed), seen) {
            (Some(why), _) => Verdict::NotRestartable(why),
            (None, None) => remembered(observed.known.get(owner)),
            (None, Some(workload)) => judge(workload, observed, &decision.release, &mut places),
        };
        if verdict == Verdict::Running {
            decision.restart.push(owner.clone());
        }
        decision.verdicts.insert(owner.clone(), verdict);
    }
    decision
}

/// Why a candidate is not restarted, whatever its state.
fn never(owner: &WorkloadRef, observed: &Round) -> Option<String> {
    if !is_restartable(owner) {
        return Some(beyond(owner));
    }
    if observed.gone.contains(owner) {
        return Some("it does not exist, so nothing would replace its pods: delete them".into());
    }
    observed.in_vain.get(owner).cloned()
}

/// The verdict on a candidate that was not read this time.
fn remembered(known: Option<&Verdict>) -> Verdict {
    let known = known.filter(|known| **known != Verdict::Running).cloned();
    known.unwrap_or_else(|| Verdict::Waits("it has not been checked yet".into()))
}

fn judge<'a>(
    workload: &'a Workload,
    observed: &Round,
    released: &[WorkloadRef],
    places: &mut Places<'a>,
) -> Verdict {
    let waits = |why: &str| Verdict::Waits(why.to_owned());
    if let Some(why) = &workload.not_restartable {
        return Verdict::NotRestartable(why.clone());
    }
    if let Some(why) = &workload.unsettled {
        return waits(why);
    }
    if workload.restarted_for.as_deref() == Some(&observed.purpose) {
        // The workload may be settled in the cache before its old pods are gone from it.
        return if released.contains(&workload.owner) {
            waits("it has just been restarted")
        } else {
            Verdict::Stuck
        };
    }
    if let Some(why) = observed.blocked.get(&workload.owner) {
        return waits(why);
    }
    if let Some(why) = &workload.stalled {
        return waits(why);
    }
    if let Some(budget) = workload.guarded_by() {
        return Verdict::Waits(format!(
            "PodDisruptionBudget {budget} allows no disruption now"
        ));
    }
    if places.free == 0 {
        return waits("other restarts run first");
    }
    let mut budgets = workload.budgets();
    if budgets.any(|budget| places.budgets.contains(&budget)) {
        return waits("another workload of its PodDisruptionBudget is being restarted");
    }
    places.free -= 1;
    places.budgets.extend(workload.budgets());
    Verdict::Running
}

/// Why the operator does not restart owners of this kind.
fn beyond(owner: &WorkloadRef) -> String {
    match owner.kind.as_str() {
        "Pod" => "no controller would recreate the pod".into(),
        "Job" | "CronJob" => "a Job finishes on its own".into(),
        owners::UNKNOWN => "its controller is of a kind that the operator does not know".into(),
        kind => format!("the operator cannot restart a {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use otelagent_api::Selector;
    use proptest::prelude::*;

    use super::*;

    fn owner(name: &str) -> WorkloadRef {
        WorkloadRef::of_shop("Deployment", name)
    }

    fn unsettled(name: &str) -> Workload {
        Workload {
            unsettled: Some("1 of 2 are available".into()),
            ..settled(name)
        }
    }

    fn waits(decision: &Decision, name: &str) -> bool {
        matches!(decision.verdicts[&owner(name)], Verdict::Waits(_))
    }

    fn settled(name: &str) -> Workload {
        Workload {
            owner: owner(name),
            unsettled: None,
            not_restartable: None,
            stalled: None,
            restarted_for: None,
            guards: Vec::new(),
        }
    }

    fn guard(name: &str, allows: bool) -> Budget {
        Budget {
            name: name.into(),
            selector: Selector::default(),
            allows,
        }
    }

    fn observed(seen: Vec<Workload>) -> Round {
        Round {
            candidates: seen.iter().map(|seen| seen.owner.clone()).collect(),
            seen,
            purpose: "a.b/r2".into(),
            at_a_time: 1,
            ..Round::default()
        }
    }

    #[test]
    fn restarts_beyond_the_limit_wait() {
        let mut observed = observed(vec![settled("a"), settled("b"), settled("c")]);
        observed.at_a_time = 2;
        let decision = decide(&observed);
        assert_eq!(decision.restart, [owner("a"), owner("b")]);
        assert!(waits(&decision, "c"));
    }

    #[test]
    fn running_restart_counts_until_its_workload_is_settled() {
        let mut observed = observed(vec![settled("b")]);
        observed.marked = vec![unsettled("a")];
        assert_eq!(decide(&observed).restart, []);
        observed.marked[0].unsettled = None;
        let decision = decide(&observed);
        assert_eq!(decision.release, [owner("a")]);
        assert_eq!(decision.restart, [owner("b")]);
    }

    #[test]
    fn workload_unchanged_by_its_restart_is_not_retried() {
        let mut workload = settled("a");
        workload.restarted_for = Some("a.b/r2".into());
        let decision = decide(&observed(vec![workload.clone()]));
        assert_eq!(decision.restart, []);
        assert_eq!(decision.verdicts[&workload.owner], Verdict::Stuck);
        workload.restarted_for = Some("a.b/r1".into());
        assert_eq!(decide(&observed(vec![workload])).restart.len(), 1);
    }

    #[test]
    fn just_released_workload_is_not_stuck_at_once() {
        let mut workload = settled("a");
        workload.restarted_for = Some("a.b/r2".into());
        let mut observed = observed(vec![workload.clone()]);
        observed.marked = vec![workload.clone()];
        let decision = decide(&observed);
        assert_eq!(decision.release, std::slice::from_ref(&workload.owner));
        assert!(waits(&decision, "a"));
    }

    #[test]
    fn workloads_of_one_budget_restart_one_after_another() {
        let of = |name: &str, budget: &str| Workload {
            guards: vec![guard(budget, true)],
            ..settled(name)
        };
        let mut observed = observed(vec![of("a", "x"), of("b", "x"), of("c", "y")]);
        observed.at_a_time = 3;
        let (a, c) = (owner("a"), owner("c"));
        assert_eq!(decide(&observed).restart, [a.clone(), c]);
        observed.candidates.remove(&a);
        observed.marked = vec![Workload {
            unsettled: Some("it rolls".into()),
            ..of("a", "x")
        }];
        assert_eq!(decide(&observed).restart, [owner("c")]);
    }

    #[test]
    fn blocked_workload_does_not_block_the_others() {
        let mut observed = observed(vec![settled("a"), settled("b")]);
        let refused = (owner("a"), "a webhook refused it".to_owned());
        observed.blocked = BTreeMap::from([refused]);
        let decision = decide(&observed);
        assert_eq!(decision.restart, [owner("b")]);
        let waits = Verdict::Waits("a webhook refused it".into());
        assert_eq!(decision.verdicts[&owner("a")], waits);
    }

    #[test]
    fn paused_unavailable_guarded_and_bare_owners_are_not_restarted() {
        let guarded = Workload {
            guards: vec![guard("strict", false)],
            ..settled("guarded")
        };
        let paused = Workload {
            not_restartable: Some("its rollout is paused".into()),
            ..settled("paused")
        };
        let mut observed = observed(vec![guarded, unsettled("unwell"), paused]);
        let bare = WorkloadRef::of_shop("Pod", "bare");
        observed.candidates.insert(bare);
        let decision = decide(&observed);
        assert_eq!(decision.restart, []);
        let verdicts = decision.verdicts.iter();
        let verdicts = verdicts.map(|(owner, verdict)| format!("{}: {verdict:?}", owner.name));
        assert_eq!(
            verdicts.collect::<Vec<_>>(),
            [
                "guarded: Waits(\"PodDisruptionBudget strict allows no disruption now\")",
                "paused: NotRestartable(\"its rollout is paused\")",
                "unwell: Waits(\"1 of 2 are available\")",
                "bare: NotRestartable(\"no controller would recreate the pod\")",
            ]
        );
    }

    #[test]
    fn workload_that_does_not_exist_is_left_to_the_user() {
        let observed = Round {
            candidates: BTreeSet::from([owner("gone")]),
            gone: BTreeSet::from([owner("gone")]),
            at_a_time: 1,
            ..Round::default()
        };
        let verdicts = decide(&observed).verdicts;
        assert!(
            matches!(&verdicts[&owner("gone")], Verdict::NotRestartable(why) if why.contains("does not exist"))
        );
    }

    #[test]
    fn workload_whose_restart_would_be_in_vain_is_left_to_the_user() {
        let mut observed = observed(vec![settled("a"), settled("b")]);
        let why = "its new pods would not be injected: it is on the host network";
        observed.in_vain = BTreeMap::from([(owner("a"), why.to_owned())]);
        let decision = decide(&observed);
        assert_eq!(decision.restart, [owner("b")]);
        let expected = Verdict::NotRestartable(why.into());
        assert_eq!(decision.verdicts[&owner("a")], expected);
        observed.marked = vec![unsettled("a")];
        let verdicts = decide(&observed).verdicts;
        assert_eq!(verdicts[&owner("a")], Verdict::Running, "it is under way");
    }

    #[test]
    fn workload_whose_rollout_would_not_progress_waits_and_blocks_no_other() {
        let stalled = Workload {
            stalled: Some("1 node is down".into()),
            ..settled("a")
        };
        let decision = decide(&observed(vec![stalled, settled("b")]));
        assert_eq!(decision.restart, [owner("b")]);
        assert!(waits(&decision, "a"));
    }

    fn workload() -> impl Strategy<Value = Workload> {
        use proptest::option::of;
        let guard = Just(()).prop_map(|()| guard("strict", false));
        let guards = proptest::collection::vec(guard, 0..2);
        let parts = (0u8..9, of("rolls"), of("paused"), of(0u8..2), guards);
        parts.prop_map(
            |(name, unsettled, not_restartable, restarted, guards)| Workload {
                unsettled,
                not_restartable,
                restarted_for: restarted.map(|recipe| format!("a.b/r{recipe}")),
                guards,
                ..settled(&name.to_string())
            },
        )
    }

    proptest! {
        #[test]
        fn restarts_keep_every_limit_and_use_every_free_place(
            seen in proptest::collection::vec(workload(), 0..9),
            marked in proptest::collection::vec(workload(), 0..4),
            at_a_time in 1usize..4,
        ) {
            let observed = Round { marked, purpose: "a.b/r1".into(), at_a_time, ..observed(seen) };
            let decision = decide(&observed);
            let under_way: BTreeSet<&WorkloadRef> = observed.marked.iter()
                .filter(|workload| workload.unsettled.is_some())
                .map(|workload| &workload.owner)
                .collect();
            prop_assert!(decision.restart.is_empty() || decision.restart.len() + under_way.len() <= at_a_time);
            let may = |workload: &&Workload| workload.unsettled.is_none()
                && workload.not_restartable.is_none()
                && workload.restarted_for.as_deref() != Some("a.b/r1")
                && workload.guarded_by().is_none()
                && !under_way.contains(&workload.owner);
            for owner in &decision.restart {
                let found = observed.seen.iter().find(|workload| workload.owner == *owner).unwrap();
                prop_assert!(may(&found));
            }
            // Only the first of each name counts, because each candidate is read once.
            let mut names = BTreeSet::new();
            let waiting = observed.seen.iter().filter(|workload| names.insert(&workload.owner)).filter(may).count();
            let places = at_a_time.saturating_sub(under_way.len());
            prop_assert_eq!(decision.restart.len(), waiting.min(places));
        }
    }
}
