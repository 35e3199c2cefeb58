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
    /// What the last poll found, and when the next may begin, if that is not now. What has become a candidate
    /// since waits.
    pub(crate) fn of_last_poll(
        &self,
        candidates: &BTreeSet<WorkloadRef>,
    ) -> Option<(Restarts, Duration)> {
        let ago = self.polled_at?.elapsed();
        let left = POLL_PACE
            .checked_sub(ago)
            .filter(|_| !candidates.is_empty())?;
        let mut verdicts = self.known.clone();
        verdicts
            .retain(|owner, verdict| candidates.contains(owner) || *verdict == Verdict::Running);
        for owner in candidates {
            let waits = || Verdict::Waits("the operator reads it in a moment".into());
            verdicts.entry(owner.clone()).or_insert_with(waits);
        }
        let failure = self.failure.clone();
        Some((Restarts { verdicts, failure }, left))
    }

    /// Whether a poll is due, and what is known. Counts a due poll as started.
    pub(crate) fn take(
        &mut self,
        has_candidates: bool,
    ) -> (bool, BTreeMap<WorkloadRef, Verdict>, Option<WorkloadRef>) {
        let too_soon = self.polled_at.is_some_and(|at| at.elapsed() < POLL_PACE);
        if !too_soon {
            self.polled_at = Some(Instant::now());
        }
        if !has_candidates {
            self.answers_since = None;
        }
        let is_due = !too_soon && (has_candidates || !self.idle);
        (is_due, self.known.clone(), self.last.clone())
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
        unasked.take(false);
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
        assert!(memory.of_last_poll(&web).is_none(), "there was none");
        memory.take(false);
        let (restarts, left) = memory.of_last_poll(&web).unwrap();
        let verdict = restarts.verdicts.get(&deployment("web"));
        assert!(matches!(verdict, Some(Verdict::Waits(_))), "{verdict:?}");
        assert!(left <= POLL_PACE);
        assert!(
            memory.of_last_poll(&BTreeSet::new()).is_none(),
            "nothing waits"
        );
        memory.polled_at = memory.polled_at.and_then(|at| at.checked_sub(POLL_PACE));
        assert!(memory.of_last_poll(&web).is_none(), "it is due");
    }

    #[test]
    fn failure_of_a_poll_a_moment_ago_is_still_told() {
        let mut memory = RestartMemory::default();
        memory.take(true);
        memory.failure = Some(Failure {
            reason: "Forbidden",
            message: "list restarted Deployments".into(),
        });
        let web = BTreeSet::from([deployment("web")]);
        let (restarts, _) = memory.of_last_poll(&web).unwrap();
        assert_eq!(restarts.failure, memory.failure);
    }
}
