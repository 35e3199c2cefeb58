//! Whether a restart would help now, and which workloads to read next.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use super::{Verdict, Workload, is_restartable};
use crate::pods::{PodReport, WorkloadRef};
use crate::switching::{PROPAGATION, WorkloadState, remaining};
use otelagent_api::Mode;

/// What pods created now would get, which decides whether a restart helps.
#[derive(Clone, Copy, Debug)]
pub struct NewPods<'a> {
    /// The moment of observation.
    pub now: Timestamp,
    /// The mode asked for.
    pub wanted: Mode,
    /// The serving mode.
    pub serving: Option<Mode>,
    /// The agent workload of the serving mode; `None` for mode Sidecar.
    pub agents: Option<&'a WorkloadState>,
    /// Whether injection is active.
    pub are_injected: bool,
    /// Since when the recipe is active.
    pub bound_at: Option<Timestamp>,
}

impl NewPods<'_> {
    /// Why no workload is restarted now: new pods would be no better than the old ones.
    pub fn block_all(&self) -> Option<&'static str> {
        let is_recent = |at| remaining(at, self.now, PROPAGATION).is_some();
        if !self.are_injected {
            Some("injection is not active")
        } else if self.serving != Some(self.wanted) {
            Some("the wanted mode does not serve yet")
        } else if !self.agents.is_none_or(WorkloadState::is_ready_everywhere) {
            Some("agents are not ready on every node")
        } else if self.bound_at.is_none_or(is_recent) {
            Some("some API server may not have the new recipe yet")
        } else {
            None
        }
    }

    /// Candidates that a restart would not help now, and why: their pods are only uncovered, and new pods
    /// may land on a node without a ready agent too (`switchover.maxUnready`); or the API server would refuse
    /// new pods of their namespace, for a reason in `refused_in`.
    pub fn blocked(
        &self,
        pods: &PodReport,
        refused_in: &BTreeMap<&str, String>,
    ) -> BTreeMap<WorkloadRef, String> {
        let are_everywhere = |agents: &WorkloadState| agents.waiting_for().is_empty();
        let may_be_uncovered = !self.agents.is_none_or(are_everywhere);
        let why = "not every node has a ready agent, so new pods may be uncovered too";
        let uncovered = pods.only_uncovered().filter(|_| may_be_uncovered);
        let uncovered = uncovered.map(|owner| (owner.clone(), why.to_owned()));
        let refused = pods.to_restart().into_iter().filter_map(|owner| {
            let why = refused_in.get(owner.namespace.as_str())?;
            Some((owner, format!("its new pods would be refused: {why}")))
        });
        uncovered.chain(refused).collect()
    }
}

/// Which candidates to read now, at most `most`. Reading starts after the candidate that was read last, so
/// that every one has its turn. While the limit of restarts is reached, only candidates without a verdict
/// are read.
pub fn next_to_poll<'a>(
    candidates: &'a BTreeSet<WorkloadRef>,
    known: &BTreeMap<WorkloadRef, Verdict>,
    marked: &[Workload],
    at_a_time: usize,
    last: Option<&WorkloadRef>,
    most: usize,
) -> Vec<&'a WorkloadRef> {
    let under_way = marked.iter().filter(|found| found.unsettled.is_some());
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
    fn candidates_wait_where_new_pods_may_be_uncovered_or_would_be_refused() {
        let pods = PodReport {
            stale: BTreeMap::from([(owner("stale"), 1)]),
            uncovered: BTreeMap::from([(owner("uncovered"), 1)]),
            ..PodReport::default()
        };
        let lacking = WorkloadState {
            unready: vec!["node n1".into()],
            max_unready: 1,
            ..WorkloadState::default()
        };
        let blocked = |agents, refused_in: &BTreeMap<&str, String>| {
            let new_pods = NewPods {
                now: Timestamp::UNIX_EPOCH,
                wanted: Mode::NodeLocal,
                serving: Some(Mode::NodeLocal),
                agents,
                are_injected: true,
                bound_at: None,
            };
            let blocked = new_pods.blocked(&pods, refused_in).into_iter();
            let blocked = blocked.map(|(owner, why)| format!("{}: {why}", owner.name));
            blocked.collect::<Vec<_>>()
        };
        let nowhere = BTreeMap::new();
        assert!(blocked(None, &nowhere).is_empty());
        assert_eq!(
            blocked(Some(&lacking), &nowhere),
            ["uncovered: not every node has a ready agent, so new pods may be uncovered too"]
        );
        let in_shop = BTreeMap::from([("shop", "LimitRange it allows less".to_owned())]);
        assert_eq!(
            blocked(None, &in_shop),
            ["stale", "uncovered"].map(|name| format!(
                "{name}: its new pods would be refused: LimitRange it allows less"
            ))
        );
        let elsewhere = BTreeMap::from([("bank", String::new())]);
        assert!(blocked(None, &elsewhere).is_empty());
    }

    #[test]
    fn every_candidate_is_read_in_turn_and_only_unknown_ones_at_the_limit() {
        let mut candidates: BTreeSet<WorkloadRef> = ["a", "b", "c", "d"].map(owner).into();
        candidates.insert(WorkloadRef::of_shop("Pod", "bare"));
        let (b, nothing) = (owner("b"), BTreeMap::new());
        let first = next_to_poll(&candidates, &nothing, &[], 1, None, 2);
        assert_eq!(names(&first), "ab");
        let then = next_to_poll(&candidates, &nothing, &[], 1, Some(&b), 3);
        assert_eq!(names(&then), "cda");

        let rolls = Workload {
            owner: owner("z"),
            unsettled: Some("its rollout is in progress".into()),
            not_restartable: None,
            stalled: None,
            restarted_for: None,
            guards: Vec::new(),
        };
        let known = BTreeMap::from([(b, Verdict::Stuck)]);
        let meanwhile = next_to_poll(&candidates, &known, &[rolls], 1, None, 9);
        assert_eq!(names(&meanwhile), "acd");
    }
}
