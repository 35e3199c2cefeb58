//! What the operator remembers between two polls of the workloads that it restarts for one `OtelAgent`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use otelagent_core::pods::WorkloadRef;
use otelagent_core::restart::Verdict;
use otelagent_core::status::{Failure, Restarts};

/// Shortest time between two polls.
const POLL_PACE: Duration = Duration::from_secs(2);
/// How long a webhook that may have been down must answer before the operator restarts anything. Its
/// replicas do not come back at the same time, and a workload whose pods are missed again is not restarted
/// again.
const STEADY: Duration = Duration::from_secs(5);

/// Remembered between polls to save requests; losing it only costs more of them.
#[derive(Default)]
pub(crate) struct RestartMemory {
    polled_at: Option<Instant>,
    /// Since when the webhook has answered at every poll with candidates.
    answers_since: Option<Instant>,
    /// Whether it is known that no restart is in progress.
    pub(crate) idle: bool,
    /// The candidate read last, so that each one gets its turn.
    pub(crate) last: Option<WorkloadRef>,
    pub(crate) known: BTreeMap<WorkloadRef, Verdict>,
    /// Why the last poll failed, if it did.
    pub(crate) failure: Option<Failure>,
    /// Workloads with the label of a restart; `None` while a list must find them.
    pub(crate) marked: Option<BTreeSet<WorkloadRef>>,
}

impl RestartMemory {
    /// Begins a poll of these candidates. If none is to begin now, returns what the last one found instead, in
    /// which what has become a candidate since waits, and when to begin the next, if one is needed.
    pub(crate) fn begin_poll(
        &mut self,
        candidates: &BTreeSet<WorkloadRef>,
    ) -> Option<(Restarts, Option<Duration>)> {
        if candidates.is_empty() {
            self.answers_since = None;
        }
        let is_needed = !candidates.is_empty() || !self.idle;
        let ago = self.polled_at.map(|at| at.elapsed());
        let left = ago.and_then(|ago| POLL_PACE.checked_sub(ago));
        let left = left.filter(|left| !left.is_zero());
        if is_needed && left.is_none() {
            self.polled_at = Some(Instant::now());
            return None;
        }
        let mut verdicts = self.known.clone();
        verdicts
            .retain(|owner, verdict| candidates.contains(owner) || *verdict == Verdict::Running);
        for owner in candidates {
            let waits = || Verdict::Waits("the operator reads it in a moment".into());
            verdicts.entry(owner.clone()).or_insert_with(waits);
        }
        let failure = self.failure.clone().filter(|_| is_needed);
        Some((Restarts { verdicts, failure }, left.filter(|_| is_needed)))
    }

    /// Notes whether the webhook answers now; returns whether it has answered for long enough.
    pub(crate) fn is_steady(&mut self, answers: bool) -> bool {
        let now = Instant::now();
        self.answers_since = answers.then(|| self.answers_since.unwrap_or(now));
        self.answers_since
            .is_some_and(|since| now - since >= STEADY)
    }

    pub(crate) fn is_about_to_be_steady(&self) -> bool {
        self.answers_since
            .is_some_and(|since| since.elapsed() < STEADY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory of a webhook that has answered for this long.
    fn answering_for(time: Duration) -> RestartMemory {
        let mut memory = RestartMemory::default();
        assert!(!memory.is_steady(true), "it has only just begun");
        memory.answers_since = memory.answers_since.and_then(|at| at.checked_sub(time));
        memory
    }

    #[test]
    fn webhook_is_steady_only_some_time_after_it_is_back() {
        assert!(!answering_for(STEADY / 2).is_steady(true));
        assert!(answering_for(STEADY / 2).is_about_to_be_steady());
        assert!(answering_for(STEADY).is_steady(true));
        assert!(!answering_for(STEADY).is_about_to_be_steady());
    }

    #[test]
    fn steadiness_starts_over_when_the_webhook_was_down_or_unasked() {
        let mut away = answering_for(STEADY);
        assert!(!away.is_steady(false));
        assert!(!away.is_steady(true));
        let mut unasked = answering_for(STEADY);
        unasked.begin_poll(&BTreeSet::new());
        assert!(!unasked.is_steady(true));
    }

    fn deployment(name: &str) -> WorkloadRef {
        WorkloadRef {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    #[test]
    fn poll_that_was_a_moment_ago_is_repeated_once_its_time_has_come() {
        let mut memory = RestartMemory::default();
        let web = BTreeSet::from([deployment("web")]);
        assert!(memory.begin_poll(&BTreeSet::new()).is_none(), "the first");
        let (restarts, left) = memory.begin_poll(&web).unwrap();
        let verdict = restarts.verdicts.get(&deployment("web"));
        assert!(matches!(verdict, Some(Verdict::Waits(_))), "{verdict:?}");
        assert!(left.unwrap() <= POLL_PACE);
        memory.polled_at = memory.polled_at.and_then(|at| at.checked_sub(POLL_PACE));
        assert!(memory.begin_poll(&web).is_none(), "it is due");
    }

    #[test]
    fn no_poll_is_needed_while_there_is_nothing_to_restart() {
        let mut memory = RestartMemory {
            idle: true,
            ..RestartMemory::default()
        };
        let (restarts, left) = memory.begin_poll(&BTreeSet::new()).unwrap();
        assert_eq!((restarts, left), (Restarts::default(), None));
    }

    #[test]
    fn failure_of_a_poll_a_moment_ago_is_still_told() {
        let mut memory = RestartMemory::default();
        let web = BTreeSet::from([deployment("web")]);
        assert!(memory.begin_poll(&web).is_none(), "the first");
        memory.failure = Some(Failure {
            reason: "Forbidden",
            message: "list restarted Deployments".into(),
        });
        for candidates in [web, BTreeSet::new()] {
            let (restarts, left) = memory.begin_poll(&candidates).unwrap();
            assert_eq!(restarts.failure, memory.failure);
            assert!(left.is_some(), "it is tried again");
        }
    }
}
