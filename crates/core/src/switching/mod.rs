//! Pure. Which modes' objects stand at a moment, and which mode serves (design §5).
//!
//! Running pods cannot be re-pointed, so the old path lives until its last user is gone, and nobody is
//! sent to a path before it works. [`plan`] is one function of what is observed, evaluated from scratch
//! each time: a crash at any point changes nothing.

mod agent_workload;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

pub use agent_workload::{AgentPod, AgentWorkload, MaxUnready, NodeState, WorkloadState};

use otelagent_api::Mode;

/// How long a flip may take to reach every API server, rounded up: a pod admitted meanwhile still gets
/// the old path, so an unused vehicle is never removed sooner, whatever the user asks (measured: 1 s).
pub const PROPAGATION: Duration = Duration::from_secs(5);

/// What is observed of one `OtelAgent`.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The moment of observation.
    pub now: Timestamp,
    /// The mode asked for.
    pub wanted: Mode,
    /// The mode that new pods are given now, as found in force; `None` before the first.
    pub serving: Option<Mode>,
    /// Whether the wanted mode's vehicle is ready everywhere.
    pub wanted_ready: bool,
    /// Live pods by the mode they were born with.
    pub users: BTreeMap<Mode, usize>,
    /// Vehicles that exist, and since when each has had no user.
    pub workloads: BTreeMap<Mode, Option<Timestamp>>,
    /// Vehicles of which some node has no agent but one of an older spec.
    pub outdated: BTreeSet<Mode>,
    /// How long an unused path stays.
    pub hold_old: Duration,
}

/// What must stand now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The mode that new pods are given; `None` until a first vehicle is ready.
    pub serving: Option<Mode>,
    /// Modes whose objects must exist, with the moment to be remembered on each workload.
    pub keep: BTreeMap<Mode, Option<Timestamp>>,
    /// A vehicle that is brought up to date before the wanted one is made.
    pub first: Option<Mode>,
    /// Modes whose objects must go.
    pub remove: BTreeSet<Mode>,
    /// When to look again, if a held path is all that is left to wait for.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// Modes whose agents on nodes must stand.
    pub fn node_modes(&self) -> Vec<Mode> {
        let modes = self.keep.keys().copied();
        modes.filter(|mode| mode.on_nodes()).collect()
    }

    /// Modes that stand though neither wanted nor serving: somebody may still use them, were it a pod
    /// that is on its way out.
    pub fn older_routes(&self, wanted: Mode) -> Vec<Mode> {
        let is_older = |mode: &Mode| *mode != wanted && Some(*mode) != self.serving;
        self.keep.keys().copied().filter(is_older).collect()
    }
}

/// Of the paths that pods claim to be on, those there can be. Whoever owns a pod owns its labels, so no
/// agent is put on a node for their sake alone: only a path that stands, serves, or stood when the status
/// was written last has users.
pub fn used(claimed: BTreeMap<Mode, usize>, known: &BTreeSet<Mode>) -> BTreeMap<Mode, usize> {
    let is_known = |mode: &Mode| !mode.on_nodes() || known.contains(mode);
    let claimed = claimed.into_iter();
    claimed.filter(|(mode, _)| is_known(mode)).collect()
}

/// Decides what stands.
///
/// ```text
/// serving = wanted if its vehicle is ready everywhere, else the previous serving mode
/// in use  = modes of live injected pods, each held `hold_old` longer
/// keep    = {wanted, serving} ∪ in use
/// ```
pub fn plan(observed: &Situation) -> Plan {
    let first = comes_first(observed);
    let serving = if observed.wanted_ready && first.is_none() {
        Some(observed.wanted)
    } else {
        observed.serving
    };
    let mut plan = Plan {
        serving,
        keep: BTreeMap::new(),
        first,
        remove: BTreeSet::new(),
        requeue_after: None,
    };
    // What is in force now is needed until the flip has been made, however long its proof takes.
    let wanted = first.is_none().then_some(observed.wanted);
    let needed: BTreeSet<Mode> = wanted
        .into_iter()
        .chain(serving)
        .chain(observed.serving)
        .collect();
    // Mode order has no meaning here; a mode that is neither needed, used nor there needs nothing.
    for mode in Mode::ALL {
        let used = observed.users.get(&mode).is_some_and(|users| *users > 0);
        if needed.contains(&mode) || used {
            plan.keep.insert(mode, None);
            continue;
        }
        let Some(unused_since) = observed.workloads.get(&mode) else {
            continue;
        };
        let since = unused_since.unwrap_or(observed.now);
        match remaining(since, observed.now, observed.hold_old) {
            Some(left) => {
                plan.keep.insert(mode, Some(since));
                plan.requeue_after = Some(plan.requeue_after.map_or(left, |other| other.min(left)));
            }
            None => {
                plan.remove.insert(mode);
            }
        }
    }
    plan
}

/// The host-network workload, where it stands in the way of a first `HostPort` workload.
///
/// A pod with a host port gets the node's traffic from the moment its sandbox exists, before its image is
/// pulled. Whoever is served over the host network meanwhile would find nobody listening, so the
/// host-network agents are given the present spec first: every node then has the image. The other way
/// round nothing has to wait: the host port wins until its last pod is gone, and to update that one first
/// would open a gap of its own.
fn comes_first(observed: &Situation) -> Option<Mode> {
    let (from, to) = (Mode::HostNetwork, Mode::HostPort);
    let used = |mode| {
        observed.serving == Some(mode) || observed.users.get(&mode).is_some_and(|users| *users > 0)
    };
    let begins = observed.wanted == to && !observed.workloads.contains_key(&to) && !used(to);
    (begins && used(from) && observed.outdated.contains(&from)).then_some(from)
}

/// How much longer something has to wait that began at `since` and is held for `hold`, at least until every
/// API server knows of it; `None` once that is over. A moment in the future (a clock set back) counts as
/// now.
pub fn remaining(since: Timestamp, now: Timestamp, hold: Duration) -> Option<Duration> {
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    hold.max(PROPAGATION)
        .checked_sub(age)
        .filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn settled(mode: Mode) -> Situation {
        Situation {
            now: at(0),
            wanted: mode,
            serving: Some(mode),
            wanted_ready: true,
            users: BTreeMap::from([(mode, 3)]),
            workloads: BTreeMap::from([(mode, None)]),
            outdated: BTreeSet::new(),
            hold_old: Duration::from_mins(1),
        }
    }

    /// `HostPort` serves, pods of `NodeLocal` still run.
    fn flipped() -> Situation {
        Situation {
            wanted: Mode::HostPort,
            serving: Some(Mode::HostPort),
            ..settled(Mode::NodeLocal)
        }
    }

    #[test]
    fn a_path_that_never_stood_has_no_users_whatever_pods_say() {
        let claimed = BTreeMap::from([
            (Mode::Sidecar, 1),
            (Mode::HostPort, 2),
            (Mode::NodeLocal, 3),
        ]);
        let known = BTreeSet::from([Mode::NodeLocal]);
        let users = used(claimed, &known);
        assert_eq!(
            users,
            BTreeMap::from([(Mode::Sidecar, 1), (Mode::NodeLocal, 3)])
        );
        let plan = plan(&Situation {
            users,
            ..settled(Mode::NodeLocal)
        });
        assert!(!plan.keep.contains_key(&Mode::HostPort));
    }

    #[test]
    fn an_older_path_is_told_of_while_it_stands_and_not_before_or_after() {
        assert_eq!(
            plan(&flipped()).older_routes(Mode::HostPort),
            [Mode::NodeLocal]
        );
        assert_eq!(
            plan(&settled(Mode::NodeLocal)).older_routes(Mode::NodeLocal),
            []
        );
        let mut over = Situation {
            users: BTreeMap::new(),
            ..flipped()
        };
        over.workloads.insert(Mode::NodeLocal, Some(at(-3600)));
        assert_eq!(plan(&over).older_routes(Mode::HostPort), []);
    }

    #[test]
    fn a_path_in_force_stays_until_the_flip_is_made() {
        let mut observed = Situation {
            wanted: Mode::HostPort,
            users: BTreeMap::new(),
            ..settled(Mode::NodeLocal)
        };
        observed.workloads.insert(Mode::NodeLocal, Some(at(-3600)));
        let plan = plan(&observed);
        assert_eq!(plan.serving, Some(Mode::HostPort));
        assert_eq!(plan.keep.get(&Mode::NodeLocal), Some(&None));
    }

    #[test]
    fn nothing_serves_before_the_first_workload_is_ready() {
        let observed = Situation {
            serving: None,
            wanted_ready: false,
            users: BTreeMap::new(),
            workloads: BTreeMap::new(),
            ..settled(Mode::NodeLocal)
        };
        let plan = plan(&observed);
        assert_eq!(plan.serving, None);
        assert_eq!(plan.keep, BTreeMap::from([(Mode::NodeLocal, None)]));
    }

    #[test]
    fn a_new_mode_is_built_beside_the_old_one_which_serves_on() {
        let observed = Situation {
            wanted: Mode::HostPort,
            wanted_ready: false,
            ..settled(Mode::NodeLocal)
        };
        let plan = plan(&observed);
        assert_eq!(plan.serving, Some(Mode::NodeLocal));
        assert_eq!(
            plan.keep.keys().copied().collect::<Vec<_>>(),
            [Mode::HostPort, Mode::NodeLocal]
        );
    }

    #[test]
    fn once_ready_the_new_mode_serves_and_the_old_stays_for_its_users() {
        let mut observed = Situation {
            wanted: Mode::HostPort,
            ..settled(Mode::NodeLocal)
        };
        observed.workloads.insert(Mode::HostPort, None);
        let plan = plan(&observed);
        assert_eq!(plan.serving, Some(Mode::HostPort));
        assert_eq!(plan.keep.get(&Mode::NodeLocal), Some(&None));
        assert!(plan.remove.is_empty());
    }

    #[test]
    fn an_unused_path_is_held_and_then_removed() {
        let mut observed = Situation {
            users: BTreeMap::new(),
            ..flipped()
        };
        let first = plan(&observed);
        assert_eq!(first.keep.get(&Mode::NodeLocal), Some(&Some(at(0))));
        assert_eq!(first.requeue_after, Some(Duration::from_mins(1)));

        observed.workloads.insert(Mode::NodeLocal, Some(at(0)));
        observed.now = at(59);
        assert!(plan(&observed).remove.is_empty());
        observed.now = at(60);
        assert_eq!(plan(&observed).remove, BTreeSet::from([Mode::NodeLocal]));
    }

    #[test]
    fn a_user_that_comes_back_ends_the_hold() {
        let mut observed = flipped();
        observed.workloads.insert(Mode::NodeLocal, Some(at(-3600)));
        assert_eq!(plan(&observed).keep.get(&Mode::NodeLocal), Some(&None));
    }

    #[test]
    fn a_hold_of_zero_still_covers_the_time_a_flip_takes_to_arrive() {
        let mut observed = Situation {
            users: BTreeMap::new(),
            hold_old: Duration::ZERO,
            ..flipped()
        };
        observed.workloads.insert(Mode::NodeLocal, Some(at(-4)));
        assert!(plan(&observed).remove.is_empty());
    }

    /// `HostNetwork` serves agents of an older spec, `HostPort` is wanted with a new one.
    fn handed_over() -> Situation {
        Situation {
            wanted: Mode::HostPort,
            wanted_ready: false,
            outdated: BTreeSet::from([Mode::HostNetwork]),
            ..settled(Mode::HostNetwork)
        }
    }

    #[test]
    fn a_host_port_waits_until_every_node_of_the_host_network_has_the_present_agent() {
        let mut observed = handed_over();
        let waiting = plan(&observed);
        assert_eq!(waiting.first, Some(Mode::HostNetwork));
        assert_eq!(waiting.serving, Some(Mode::HostNetwork));
        assert_eq!(waiting.keep, BTreeMap::from([(Mode::HostNetwork, None)]));
        assert!(waiting.remove.is_empty());

        observed.outdated.clear();
        let after = plan(&observed);
        assert_eq!(after.first, None);
        assert!(after.keep.contains_key(&Mode::HostPort));
    }

    #[test]
    fn nothing_waits_for_a_host_network_nobody_uses_nor_once_the_host_port_stands() {
        let unused = Situation {
            serving: Some(Mode::NodeLocal),
            users: BTreeMap::new(),
            ..handed_over()
        };
        assert_eq!(plan(&unused).first, None);
        let mut stands = handed_over();
        stands.workloads.insert(Mode::HostPort, None);
        assert_eq!(plan(&stands).first, None);
        let back = Situation {
            wanted: Mode::HostNetwork,
            outdated: BTreeSet::from([Mode::HostPort]),
            ..settled(Mode::HostPort)
        };
        assert_eq!(plan(&back).first, None);
    }

    #[test]
    fn going_back_is_at_once_since_the_old_workload_still_stands() {
        let mut observed = settled(Mode::NodeLocal);
        observed.serving = Some(Mode::HostPort);
        observed.workloads.insert(Mode::HostPort, None);
        assert_eq!(plan(&observed).serving, Some(Mode::NodeLocal));
    }
}
