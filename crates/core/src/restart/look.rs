//! Whether new pods would be any better now, and which workloads are worth a look.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use super::{State, Verdict, Workload, is_restartable};
use crate::status::{Facts, InjectionState, WorkloadRef};
use crate::switching::{PROPAGATION, WorkloadState, remaining};

/// Why nothing is restarted at all now: new pods would not be any better. `bound_at` is since when the
/// recipe is in force.
pub fn hold(facts: &Facts, bound_at: Option<Timestamp>) -> Option<&'static str> {
    let serves = facts.serving.as_ref().map(|(mode, _)| *mode);
    let workload = facts.serving_workload.as_ref();
    if facts.injection != InjectionState::InForce {
        Some("injection is not in force")
    } else if serves != Some(facts.wanted) {
        Some("the wanted mode does not serve yet")
    } else if !workload.is_none_or(WorkloadState::is_ready_everywhere) {
        Some("agents are not ready on every node")
    } else if bound_at.is_none_or(|at| remaining(at, facts.now, PROPAGATION).is_some()) {
        Some("some API server may not have the new recipe yet")
    } else {
        None
    }
}

/// Candidates that would gain nothing now, and why: their pods are only uncovered, and nodes are let off
/// (`switchover.maxUnready`) on which new pods may be as well.
pub fn held_back(facts: &Facts) -> BTreeMap<WorkloadRef, String> {
    let workload = facts.serving_workload.as_ref();
    if workload.is_none_or(|workload| workload.waiting_for().is_empty()) {
        return BTreeMap::new();
    }
    let pods = &facts.pods;
    let behind =
        |owner: &WorkloadRef| pods.stale.contains_key(owner) || pods.missed.contains_key(owner);
    let why = "not every node has a ready agent, so new pods may be uncovered too";
    let owners = pods.uncovered.keys().filter(|owner| !behind(owner));
    owners
        .map(|owner| (owner.clone(), why.to_owned()))
        .collect()
}

/// Which of the candidates to look at now, at most `most`, beginning after the one that was looked at
/// last so that all get their turn. While no further one may be restarted only those are looked at of
/// which nothing is known.
pub fn next_to_look_at<'a>(
    candidates: &'a BTreeSet<WorkloadRef>,
    known: &BTreeMap<WorkloadRef, Verdict>,
    marked: &[Workload],
    at_a_time: usize,
    last: Option<&WorkloadRef>,
    most: usize,
) -> Vec<&'a WorkloadRef> {
    let under_way = marked
        .iter()
        .filter(|workload| workload.state != State::Settled);
    let full = under_way.count() >= at_a_time;
    let (after, before): (Vec<&WorkloadRef>, Vec<&WorkloadRef>) = candidates
        .iter()
        .filter(|owner| is_restartable(owner) && !(full && known.contains_key(owner)))
        .partition(|owner| last.is_none_or(|last| *owner > last));
    after.into_iter().chain(before).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> WorkloadRef {
        WorkloadRef::of_shop("Deployment", name)
    }

    fn names(owners: &[&WorkloadRef]) -> String {
        owners.iter().map(|owner| owner.name.as_str()).collect()
    }

    #[test]
    fn all_candidates_get_their_turn_and_while_places_are_taken_only_unknown_ones_are_read() {
        let mut candidates: BTreeSet<WorkloadRef> = ["a", "b", "c", "d"].map(owner).into();
        candidates.insert(WorkloadRef {
            kind: "Pod".into(),
            api_version: "v1".into(),
            ..owner("bare")
        });
        let (b, nothing) = (owner("b"), BTreeMap::new());
        let first = next_to_look_at(&candidates, &nothing, &[], 1, None, 2);
        assert_eq!(names(&first), "ab");
        let then = next_to_look_at(&candidates, &nothing, &[], 1, Some(&b), 3);
        assert_eq!(names(&then), "cda");

        let rolls = Workload {
            owner: owner("z"),
            state: State::Unsettled("it rolls".into()),
            not_restartable: None,
            restarted_for: None,
            guards: Vec::new(),
        };
        let known = BTreeMap::from([(b, Verdict::Stuck)]);
        let meanwhile = next_to_look_at(&candidates, &known, &[rolls], 1, None, 9);
        assert_eq!(names(&meanwhile), "acd");
    }
}
