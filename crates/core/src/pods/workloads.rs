//! The pods of one `OtelAgent` by their workloads, for people who ask.

use std::collections::BTreeMap;
use std::fmt;

use super::{InjectedBy, PodTally, Uninjectable, WorkloadRef};
use crate::inject::{Reason, Recipe};
use otelagent_api::Mode;

/// The pods of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadPods {
    /// Injected pods by the mode they were created with; `None` where their label names no mode.
    pub by_mode: BTreeMap<Option<Mode>, usize>,
    /// Of these, pods of the serving mode and configuration; `None` while these are not known.
    pub current: Option<usize>,
    /// Missed pods, by why.
    pub missed: BTreeMap<WhyMissed, usize>,
    /// Of the missed ones, those that were injected for an `OtelAgent` that does not exist.
    pub orphaned: usize,
    /// Injected pods on nodes without a ready agent of their mode.
    pub uncovered: usize,
    /// Whether a restart would help.
    pub restart: RestartAdvice,
}

/// Why a selected pod was not injected for this `OtelAgent`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhyMissed {
    /// Nothing injected it: it is older than the injection, or was created while that was not active.
    NotInjected,
    /// It was injected for an `OtelAgent` that does not exist.
    Orphaned(String),
    /// It was injected for another `OtelAgent`, which has no precedence any more.
    OfAnother(String),
    /// It cannot be injected.
    Uninjectable(Reason),
}

/// Whether a restart of a workload would give its pods what they lack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RestartAdvice {
    /// They lack nothing that is known.
    #[default]
    NotNeeded,
    /// It would.
    Helps,
    /// They lack nothing but a ready agent on their nodes; new ones may come to a node that has one.
    MayHelp,
    /// It would not, for this reason.
    InVain(String),
}

impl fmt::Display for WhyMissed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInjected => f.write_str("no OtelAgent injected it"),
            Self::Orphaned(agent) => {
                write!(
                    f,
                    "it was injected for OtelAgent {agent}, which does not exist"
                )
            }
            Self::OfAnother(agent) => write!(
                f,
                "it was injected for OtelAgent {agent}, which does not select it any more or is younger"
            ),
            Self::Uninjectable(reason) => reason.fmt(f),
        }
    }
}

impl WorkloadPods {
    /// How many were injected.
    pub fn injected(&self) -> usize {
        self.by_mode.values().sum()
    }

    /// How many of the injected ones are of an older mode or configuration; `None` while that is not known.
    pub fn stale(&self) -> Option<usize> {
        Some(self.injected().saturating_sub(self.current?))
    }

    /// Whether each pod is injected as new ones are, and reaches an agent.
    pub fn is_as_wished(&self) -> bool {
        self.missed.is_empty() && self.uncovered == 0 && self.stale().is_none_or(|stale| stale == 0)
    }

    /// Whether some reach no agent and a new one would be as they are.
    fn lack_only_agents(&self) -> bool {
        let is_uninjectable = |why| matches!(why, &WhyMissed::Uninjectable(_));
        self.uncovered > 0
            && self.stale().is_none_or(|stale| stale == 0)
            && self.missed.keys().all(is_uninjectable)
    }
}

impl PodTally {
    /// The pods by workload while new pods get `serving`, as [`PodTally::report`] counts them. `left_out` says why
    /// agents leave nodes out.
    pub fn workloads(
        &self,
        serving: Option<(Mode, &str)>,
        recipe: Option<&Recipe>,
        left_out: &BTreeMap<String, String>,
    ) -> BTreeMap<WorkloadRef, WorkloadPods> {
        let report = self.report(serving, recipe);
        let mut found: BTreeMap<WorkloadRef, WorkloadPods> = BTreeMap::new();
        for ((mode, hash), owners) in &self.created {
            let is_current = serving.is_some() && mode.zip(hash.as_deref()) == serving;
            for (owner, pods) in owners {
                let pods: usize = pods.values().sum();
                let of_owner = found.entry(owner.clone()).or_default();
                *of_owner.by_mode.entry(*mode).or_default() += pods;
                if is_current {
                    *of_owner.current.get_or_insert_default() += pods;
                }
            }
        }
        let mut reasons = Uninjectable::by(recipe);
        for (owner, missed) in &self.missed {
            let of_owner = found.entry(owner.clone()).or_default();
            for (missed, pods) in missed {
                let why = match reasons.of(&missed.outline) {
                    Some(reason) => WhyMissed::Uninjectable(reason),
                    None => missed.injected_by.why(),
                };
                *of_owner.missed.entry(why).or_default() += pods;
                let is_orphaned = matches!(missed.injected_by, InjectedBy::Gone(_));
                of_owner.orphaned += if is_orphaned { *pods } else { 0 };
            }
        }
        for (owner, pods) in &report.uncovered {
            found.entry(owner.clone()).or_default().uncovered = *pods;
        }
        let in_vain = report.in_vain(left_out);
        let is_known = serving.is_some();
        let to_restart = report.to_restart();
        for (owner, pods) in &mut found {
            // What is stale is not known without what serves.
            if is_known {
                pods.current.get_or_insert_default();
            }
            let only_stale = pods.missed.is_empty() && pods.uncovered == 0;
            pods.restart = match (in_vain.get(owner), report.uninjectable.get(owner)) {
                _ if !is_known && only_stale => RestartAdvice::NotNeeded,
                (Some(why), _) => RestartAdvice::InVain(why.clone()),
                _ if pods.lack_only_agents() => RestartAdvice::MayHelp,
                _ if to_restart.contains(owner) => RestartAdvice::Helps,
                (None, Some((_, why))) => RestartAdvice::InVain(why.to_string()),
                (None, None) => RestartAdvice::NotNeeded,
            };
        }
        found
    }
}

impl InjectedBy {
    fn why(&self) -> WhyMissed {
        match self {
            Self::None => WhyMissed::NotInjected,
            Self::Other(agent) => WhyMissed::OfAnother(agent.clone()),
            Self::Gone(agent) => WhyMissed::Orphaned(agent.clone()),
        }
    }
}
