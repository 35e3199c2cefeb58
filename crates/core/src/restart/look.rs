//! Whether new pods would be any better now, and which workloads are worth a look.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use super::{State, Verdict, Workload, is_restartable};
use crate::status::{Facts, InjectionState, Owner};
use crate::switching::{PROPAGATION, VehicleState, remaining};

/// Why nothing is restarted at all now: new pods would not be any better. `bound_at` is since when the
/// recipe is in force.
pub fn hold(facts: &Facts, bound_at: Option<Timestamp>) -> Option<&'static str> {
    let serves = facts.serving.as_ref().map(|(mode, _)| *mode);
    let vehicle = facts.serving_vehicle.as_ref();
    if facts.injection != InjectionState::InForce {
        Some("injection is not in force")
    } else if serves != Some(facts.wanted) {
        Some("the wanted mode does not serve yet")
    } else if !vehicle.is_none_or(VehicleState::is_ready_everywhere) {
        Some("agents are not ready on every node")
    } else if bound_at.is_none_or(|at| remaining(at, facts.now, PROPAGATION).is_some()) {
        Some("some API server may not have the new recipe yet")
    } else {
        None
    }
}

/// Candidates that would gain nothing now, and why: their pods are only uncovered, and nodes are let off
/// (`switchover.maxUnready`) on which new pods may be as well.
pub fn held_back(facts: &Facts) -> BTreeMap<Owner, String> {
    let vehicle = facts.serving_vehicle.as_ref();
    if vehicle.is_none_or(|vehicle| vehicle.waiting_for().is_empty()) {
        return BTreeMap::new();
    }
    let pods = &facts.pods;
    let behind = |owner: &Owner| pods.stale.contains_key(owner) || pods.missed.contains_key(owner);
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
    candidates: &'a BTreeSet<Owner>,
    known: &BTreeMap<Owner, Verdict>,
    marked: &[Workload],
    at_a_time: usize,
    last: Option<&Owner>,
    most: usize,
) -> Vec<&'a Owner> {
    let under_way = marked
        .iter()
        .filter(|workload| workload.state != State::Settled);
    let full = under_way.count() >= at_a_time;
    let (after, before): (Vec<&Owner>, Vec<&Owner>) = candidates
        .iter()
        .filter(|owner| is_restartable(owner) && !(full && known.contains_key(owner)))
        .partition(|owner| last.is_none_or(|last| *owner > last));
    after.into_iter().chain(before).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner::of_shop("Deployment", name)
    }

    fn names(owners: &[&Owner]) -> String {
        owners.iter().map(|owner| owner.name.as_str()).collect()
    }

    #[test]
    fn all_candidates_get_their_turn_and_while_places_are_taken_only_unknown_ones_are_read() {
        let mut candidates: BTreeSet<Owner> = ["a", "b", "c", "d"].map(owner).into();
        candidates.insert(Owner {
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
