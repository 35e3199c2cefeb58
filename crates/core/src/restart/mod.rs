//! Pure. Which workloads are restarted now, which wait and why, which are only told of
//! (`workloads.restart: Rolling`).
//!
//! A restart makes new pods, which are given the serving path: that is what stale, missed and uncovered
//! pods lack. It is the only thing here that moves running applications, so it errs on the side of leaving
//! them alone: one that is not well, rolls already, is paused or guarded by a budget waits, and none is
//! restarted twice for the same recipe. What must be remembered stands on the workload itself, written
//! together with the restart: a crash at any point changes nothing.
//!
//! Must not know how workloads are read or written.

mod poll;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use crate::pods::WorkloadRef;

pub use poll::{NewPods, next_to_poll};
pub use workload::{Budget, Guard, KINDS, State, Workload, is_restartable, patch, release};

/// What is observed of the workloads of one `OtelAgent`.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Owners of stale, missed or uncovered pods.
    pub candidates: BTreeSet<WorkloadRef>,
    /// Workloads that bear the mark of a restart under way.
    pub marked: Vec<Workload>,
    /// Candidates as they are now; those that could not be found are absent.
    pub seen: Vec<Workload>,
    /// What was so of candidates when they were looked at last.
    pub known: BTreeMap<WorkloadRef, Verdict>,
    /// Candidates that must not be restarted now, and why: the server refused it, or new pods would be
    /// no better.
    pub blocked: BTreeMap<WorkloadRef, String>,
    /// What a restart would be for: `OtelAgent` and recipe, see [`purpose`].
    pub purpose: String,
    /// How many may be restarted at a time.
    pub at_a_time: usize,
}

/// Why a workload is not restarted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is restarted, or was and is not done.
    Running,
    /// It will be, when this is over.
    Waits(String),
    /// It was restarted for this recipe already, and its pods are as they were.
    Stuck,
    /// It is somebody else's to restart.
    NotRestartable(String),
}

/// What to do, and what to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Workloads to restart now.
    pub restart: Vec<WorkloadRef>,
    /// Workloads whose mark is to be taken off: their restart is over.
    pub release: Vec<WorkloadRef>,
    /// What is so of each candidate and each workload under way.
    pub verdicts: BTreeMap<WorkloadRef, Verdict>,
}

/// What a restart is for, as it is remembered on the workload.
pub fn purpose(agent: &str, recipe: &str) -> String {
    format!("{agent}/{recipe}")
}

/// What restarts under way leave for others.
struct Places<'a> {
    free: usize,
    /// Budgets whose pods go already.
    budgets: BTreeSet<(&'a str, &'a str)>,
}

/// Decides.
pub fn decide(observed: &Round) -> Decision {
    let mut decision = Decision::default();
    let mut places = Places {
        free: observed.at_a_time,
        budgets: BTreeSet::new(),
    };
    for workload in &observed.marked {
        if workload.state == State::Settled {
            decision.release.push(workload.owner.clone());
        } else {
            places.budgets.extend(workload.budgets());
            let owner = workload.owner.clone();
            decision.verdicts.insert(owner, Verdict::Running);
        }
    }
    places.free = places.free.saturating_sub(decision.verdicts.len());
    for owner in &observed.candidates {
        if decision.verdicts.contains_key(owner) {
            continue;
        }
        let verdict = match observed.seen.iter().find(|seen| seen.owner == *owner) {
            _ if !is_restartable(owner) => Verdict::NotRestartable(beyond(owner)),
            None => remembered(observed.known.get(owner)),
            Some(workload) => judge(workload, observed, &decision.release, &mut places),
        };
        if verdict == Verdict::Running {
            decision.restart.push(owner.clone());
        }
        decision.verdicts.insert(owner.clone(), verdict);
    }
    decision
}

/// What is told of a candidate that was not looked at this time.
fn remembered(known: Option<&Verdict>) -> Verdict {
    let known = known.filter(|known| **known != Verdict::Running).cloned();
    known.unwrap_or_else(|| Verdict::Waits("it has not been looked at yet".into()))
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
    if let State::Unsettled(why) = &workload.state {
        return waits(why);
    }
    if workload.restarted_for.as_deref() == Some(&observed.purpose) {
        // Its workload may be seen settled before the end of its old pods is.
        return if released.contains(&workload.owner) {
            waits("it has just been restarted")
        } else {
            Verdict::Stuck
        };
    }
    if let Some(why) = observed.blocked.get(&workload.owner) {
        return waits(why);
    }
    if let Some(budget) = workload.guarded_by() {
        return Verdict::Waits(format!(
            "PodDisruptionBudget {budget} allows no disruption now"
        ));
    }
    if places.free == 0 {
        return waits("its turn has not come");
    }
    if workload
        .budgets()
        .any(|name| places.budgets.contains(&name))
    {
        return waits("another workload of its PodDisruptionBudget is being restarted");
    }
    places.free -= 1;
    places.budgets.extend(workload.budgets());
    Verdict::Running
}

/// Why a kind of owner is left alone.
fn beyond(owner: &WorkloadRef) -> String {
    match owner.kind.as_str() {
        "Pod" => "nothing would make the pod again".into(),
        "Job" | "CronJob" => "a Job ends by itself".into(),
        kind => format!("restart it as its own kind ({kind}) wants it"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(kind: &str, name: &str) -> WorkloadRef {
        WorkloadRef::of_shop(kind, name)
    }

    fn settled(name: &str) -> Workload {
        Workload {
            owner: owner("Deployment", name),
            state: State::Settled,
            not_restartable: None,
            restarted_for: None,
            guards: Vec::new(),
        }
    }

    fn guard(budget: &str, allows: bool) -> Guard {
        Guard {
            budget: budget.into(),
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
    fn as_many_as_may_be_are_restarted_and_the_others_wait() {
        let mut observed = observed(vec![settled("a"), settled("b"), settled("c")]);
        observed.at_a_time = 2;
        let decision = decide(&observed);
        assert_eq!(
            decision.restart,
            [owner("Deployment", "a"), owner("Deployment", "b")]
        );
        assert!(matches!(
            decision.verdicts[&owner("Deployment", "c")],
            Verdict::Waits(_)
        ));
    }

    #[test]
    fn one_under_way_holds_its_place_until_it_is_settled_and_is_then_let_go() {
        let mut observed = observed(vec![settled("b")]);
        observed.marked = vec![Workload {
            state: State::Unsettled("1 of 2 are available".into()),
            ..settled("a")
        }];
        assert_eq!(decide(&observed).restart, []);
        observed.marked[0].state = State::Settled;
        let decision = decide(&observed);
        assert_eq!(decision.release, [owner("Deployment", "a")]);
        assert_eq!(decision.restart, [owner("Deployment", "b")]);
    }

    #[test]
    fn a_workload_that_stays_stale_after_its_restart_is_told_and_not_restarted_again() {
        let mut workload = settled("a");
        workload.restarted_for = Some("a.b/r2".into());
        let decision = decide(&observed(vec![workload.clone()]));
        assert_eq!(decision.restart, []);
        assert_eq!(decision.verdicts[&workload.owner], Verdict::Stuck);
        workload.restarted_for = Some("a.b/r1".into());
        assert_eq!(decide(&observed(vec![workload])).restart.len(), 1);
    }

    #[test]
    fn one_whose_old_pods_may_still_be_seen_is_not_called_stuck_at_once() {
        let mut workload = settled("a");
        workload.restarted_for = Some("a.b/r2".into());
        let mut observed = observed(vec![workload.clone()]);
        observed.marked = vec![workload.clone()];
        let decision = decide(&observed);
        assert_eq!(decision.release, std::slice::from_ref(&workload.owner));
        assert!(matches!(
            decision.verdicts[&workload.owner],
            Verdict::Waits(_)
        ));
    }

    #[test]
    fn workloads_of_one_budget_follow_each_other_also_where_several_may_be_restarted() {
        let of = |name: &str, budget: &str| Workload {
            guards: vec![guard(budget, true)],
            ..settled(name)
        };
        let mut observed = observed(vec![of("a", "x"), of("b", "x"), of("c", "y")]);
        observed.at_a_time = 3;
        let (a, c) = (owner("Deployment", "a"), owner("Deployment", "c"));
        assert_eq!(decide(&observed).restart, [a.clone(), c]);
        observed.candidates.remove(&a);
        observed.marked = vec![Workload {
            state: State::Unsettled("it rolls".into()),
            ..of("a", "x")
        }];
        assert_eq!(decide(&observed).restart, [owner("Deployment", "c")]);
    }

    #[test]
    fn one_that_is_held_back_keeps_nobody_else_from_being_restarted() {
        let mut observed = observed(vec![settled("a"), settled("b")]);
        let refused = (owner("Deployment", "a"), "a webhook refused it".to_owned());
        observed.blocked = BTreeMap::from([refused]);
        let decision = decide(&observed);
        assert_eq!(decision.restart, [owner("Deployment", "b")]);
        assert_eq!(
            decision.verdicts[&owner("Deployment", "a")],
            Verdict::Waits("a webhook refused it".into())
        );
    }

    #[test]
    fn what_is_paused_unwell_guarded_or_bare_is_left_alone_with_the_reason() {
        let guarded = Workload {
            guards: vec![guard("strict", false)],
            ..settled("guarded")
        };
        let unwell = Workload {
            state: State::Unsettled("1 of 2 are available".into()),
            ..settled("unwell")
        };
        let paused = Workload {
            not_restartable: Some("it is paused".into()),
            ..settled("paused")
        };
        let mut observed = observed(vec![guarded, unwell, paused]);
        observed.candidates.insert(owner("Pod", "bare"));
        let decision = decide(&observed);
        assert_eq!(decision.restart, []);
        let told: Vec<String> = decision
            .verdicts
            .iter()
            .map(|(owner, verdict)| format!("{}: {verdict:?}", owner.name))
            .collect();
        assert_eq!(
            told,
            [
                "guarded: Waits(\"PodDisruptionBudget strict allows no disruption now\")",
                "paused: NotRestartable(\"it is paused\")",
                "unwell: Waits(\"1 of 2 are available\")",
                "bare: NotRestartable(\"nothing would make the pod again\")",
            ]
        );
    }

    fn workload() -> impl Strategy<Value = Workload> {
        (
            0u8..9,
            any::<bool>(),
            any::<bool>(),
            proptest::option::of(0u8..2),
            any::<bool>(),
        )
            .prop_map(|(name, is_settled, can, restarted, guarded)| Workload {
                state: if is_settled {
                    State::Settled
                } else {
                    State::Unsettled("rolls".into())
                },
                not_restartable: (!can).then(|| "paused".into()),
                restarted_for: restarted.map(|recipe| format!("a.b/r{recipe}")),
                guards: guarded
                    .then(|| guard("strict", false))
                    .into_iter()
                    .collect(),
                ..settled(&name.to_string())
            })
    }

    proptest! {
        #[test]
        fn never_more_than_may_be_never_twice_never_unwell_and_never_none_without_a_reason(
            seen in proptest::collection::vec(workload(), 0..9),
            marked in proptest::collection::vec(workload(), 0..4),
            at_a_time in 1usize..4,
        ) {
            let observed = Round { marked, purpose: "a.b/r1".into(), at_a_time, ..observed(seen) };
            let decision = decide(&observed);
            let under_way: BTreeSet<&WorkloadRef> = observed.marked.iter()
                .filter(|workload| workload.state != State::Settled)
                .map(|workload| &workload.owner)
                .collect();
            prop_assert!(decision.restart.is_empty() || decision.restart.len() + under_way.len() <= at_a_time);
            let may = |workload: &&Workload| workload.state == State::Settled
                && workload.not_restartable.is_none()
                && workload.restarted_for.as_deref() != Some("a.b/r1")
                && workload.guarded_by().is_none()
                && !under_way.contains(&workload.owner);
            for owner in &decision.restart {
                let found = observed.seen.iter().find(|workload| workload.owner == *owner).unwrap();
                prop_assert!(may(&found));
            }
            // The first of each name counts: a candidate is seen once.
            let mut names = BTreeSet::new();
            let waiting = observed.seen.iter().filter(|workload| names.insert(&workload.owner)).filter(may).count();
            let places = at_a_time.saturating_sub(under_way.len());
            prop_assert_eq!(decision.restart.len(), waiting.min(places));
        }
    }
}
