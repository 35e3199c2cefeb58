//! Which pods stay on the route that they have, and whether a restart moves them.

use std::fmt;

use crate::pods::{PodReport, WorkloadRef};
use crate::reconcile::Observation;
use crate::reconcile::outcome::left_out;
use crate::restart::is_restartable;

/// Pods of one owner that keep their route or configuration after the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StayingPods {
    /// Their owner.
    pub owner: WorkloadRef,
    /// How many.
    pub pods: usize,
    /// What a restart of the owner does.
    pub restart: RestartEffect,
}

/// What a restart of pods' owner does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartEffect {
    /// New pods get the new route.
    Moves,
    /// New pods would get the new route, but nothing can restart an owner of its kind.
    CannotRestart,
    /// New pods would not get it, for this reason.
    InVain(String),
}

impl fmt::Display for RestartEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moves => f.write_str("a restart moves them"),
            Self::CannotRestart => {
                f.write_str("its kind cannot be restarted; they move once they are replaced")
            }
            Self::InVain(why) => write!(f, "a restart is in vain: {why}"),
        }
    }
}

impl fmt::Display for StayingPods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.owner, self.pods, self.restart)
    }
}

/// The pods that are not current in a cluster.
pub(super) fn staying(made: &Observation<'_>, report: &PodReport) -> Vec<StayingPods> {
    let in_vain = report.in_vain(&left_out(made, report));
    let stale = report.stale.iter().map(|(owner, pods)| StayingPods {
        restart: match in_vain.get(owner) {
            Some(why) => RestartEffect::InVain(why.clone()),
            None if is_restartable(owner) => RestartEffect::Moves,
            None => RestartEffect::CannotRestart,
        },
        owner: owner.clone(),
        pods: *pods,
    });
    stale.collect()
}
