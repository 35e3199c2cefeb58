//! Decides which modes' objects exist at a moment, and which mode serves.
//!
//! Running pods keep the endpoint they were created with, so an old route is kept until its last user has
//! terminated, and no pod is sent to a route before it works. [`plan`] computes everything from what is
//! observed, so a crash at any point changes nothing.

mod agent_workload;
mod node;
mod on_node;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

pub use agent_workload::{
    AgentPod, AgentWorkload, WorkloadState, creation_failure, mode_served, serves,
};
pub use node::{NodeState, NodeStates, Targets};
pub use on_node::{AgentOnNode, AgentState};

use otelagent_api::Mode;

/// How long a cut-over may take to reach every API server, rounded up (measured: 1 s). A pod admitted
/// meanwhile still gets the old route, so an unused agent workload is never removed sooner.
pub const PROPAGATION: Duration = Duration::from_secs(5);

/// What is observed of one `OtelAgent`.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The moment of observation.
    pub now: Timestamp,
    /// The mode asked for.
    pub wanted: Mode,
    /// The serving mode, as the active binding says; `None` before the first.
    pub serving: Option<Mode>,
    /// Whether the wanted mode's agent workload is ready everywhere.
    pub wanted_ready: bool,
    /// Live pods by the mode they were created with.
    pub users: BTreeMap<Mode, usize>,
    /// Agent workloads that exist, and since when each has had no user.
    pub workloads: BTreeMap<Mode, Option<Timestamp>>,
    /// Agent workloads whose only agent on some node is of an older spec.
    pub outdated: BTreeSet<Mode>,
    /// How long an unused route is kept.
    pub hold_old: Duration,
}

impl Situation {
    fn is_used(&self, mode: Mode) -> bool {
        self.users.get(&mode).is_some_and(|users| *users > 0)
    }
}

/// Which objects to keep and which to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchPlan {
    /// The mode of new pods; `None` until the first agents are ready.
    pub serving: Option<Mode>,
    /// Modes whose objects must exist, each with the moment since when it is unused.
    pub keep: BTreeMap<Mode, Option<Timestamp>>,
    /// An agent workload that is updated before the wanted one is created.
    pub first: Option<Mode>,
    /// Modes whose objects are removed.
    pub remove: BTreeSet<Mode>,
    /// When to reconcile again, if only a held route is left to wait for.
    pub requeue_after: Option<Duration>,
}

impl SwitchPlan {
    /// Modes whose agents on nodes are kept.
    pub fn node_modes(&self) -> Vec<Mode> {
        let modes = self.keep.keys().copied();
        modes.filter(|mode| mode.on_nodes()).collect()
    }

    /// Modes that are kept although they are neither wanted nor serving, because a pod, perhaps a
    /// terminating one, may still use them.
    pub fn older_routes(&self, wanted: Mode) -> Vec<Mode> {
        let is_older = |mode: &Mode| *mode != wanted && Some(*mode) != self.serving;
        self.keep.keys().copied().filter(is_older).collect()
    }
}

/// Of the modes that pods' labels name, those that can have users. The owner of a pod can set its labels, so
/// labels alone never create agents: a node mode has users only if its agents exist, it serves, or the last
/// status listed it.
pub fn used(claimed: BTreeMap<Mode, usize>, known: &BTreeSet<Mode>) -> BTreeMap<Mode, usize> {
    let is_known = |mode: &Mode| !mode.on_nodes() || known.contains(mode);
    let claimed = claimed.into_iter();
    claimed.filter(|(mode, _)| is_known(mode)).collect()
}

/// Decides what to keep and which mode serves.
///
/// ```text
/// serving = wanted if its agent workload is ready everywhere, else the previous serving mode
/// in use  = modes of live injected pods, each held `hold_old` longer
/// keep    = {wanted, serving} ∪ in use
/// ```
pub fn plan(observed: &Situation) -> SwitchPlan {
    let first = comes_first(observed);
    let serving = if observed.wanted_ready && first.is_none() {
        Some(observed.wanted)
    } else {
        observed.serving
    };
    let mut plan = SwitchPlan {
        serving,
        first,
        ..SwitchPlan::default()
    };
    // The serving mode is needed until the cut-over has been made, however long the verification takes.
    let wanted = first.is_none().then_some(observed.wanted);
    let needed = [wanted, serving, observed.serving];
    // A mode that is neither needed, used nor present needs nothing.
    for mode in Mode::ALL {
        if needed.contains(&Some(mode)) || observed.is_used(mode) {
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

/// The host-network workload, if it must be updated before a first `HostPort` workload is created.
///
/// A pod with a host port gets the node's traffic from the moment its sandbox exists, before its image is
/// pulled. Pods served over the host network would find no listener meanwhile, so the host-network agents
/// are updated first: then every node has the image. In the other direction nothing has to wait: the host
/// port wins until its last pod is gone, and updating that one first would open a gap of its own.
fn comes_first(observed: &Situation) -> Option<Mode> {
    let (from, to) = (Mode::HostNetwork, Mode::HostPort);
    let used = |mode| observed.serving == Some(mode) || observed.is_used(mode);
    let begins = observed.wanted == to && !observed.workloads.contains_key(&to) && !used(to);
    (begins && used(from) && observed.outdated.contains(&from)).then_some(from)
}

/// What is left of a hold that began at `since`; it lasts at least until every API server knows of its
/// cause. `None` once it is over. A moment in the future (a clock set back) counts as now.
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
    fn after_a_cut_over() -> Situation {
        Situation {
            wanted: Mode::HostPort,
            serving: Some(Mode::HostPort),
            ..settled(Mode::NodeLocal)
        }
    }

    #[test]
    fn node_mode_that_never_existed_has_no_users() {
        let real = BTreeMap::from([(Mode::Sidecar, 1), (Mode::NodeLocal, 3)]);
        let mut claimed = real.clone();
        claimed.insert(Mode::HostPort, 2);
        let known = BTreeSet::from([Mode::NodeLocal]);
        let users = used(claimed, &known);
        assert_eq!(users, real);
        let plan = plan(&Situation {
            users,
            ..settled(Mode::NodeLocal)
        });
        assert!(!plan.keep.contains_key(&Mode::HostPort));
    }

    #[test]
    fn older_route_is_listed_while_it_exists() {
        let listed = |observed: &Situation| plan(observed).older_routes(observed.wanted);
        assert_eq!(listed(&after_a_cut_over()), [Mode::NodeLocal]);
        assert_eq!(listed(&settled(Mode::NodeLocal)), []);
        let mut over = Situation {
            users: BTreeMap::new(),
            ..after_a_cut_over()
        };
        over.workloads.insert(Mode::NodeLocal, Some(at(-3600)));
        assert_eq!(listed(&over), []);
    }

    #[test]
    fn serving_route_is_kept_until_the_cut_over() {
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
    fn no_mode_serves_before_the_first_workload_is_ready() {
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
    fn new_mode_is_created_while_the_old_one_serves() {
        let observed = Situation {
            wanted: Mode::HostPort,
            wanted_ready: false,
            ..settled(Mode::NodeLocal)
        };
        let plan = plan(&observed);
        assert_eq!(plan.serving, Some(Mode::NodeLocal));
        let kept = plan.keep.into_keys();
        assert!(kept.eq([Mode::HostPort, Mode::NodeLocal]));
    }

    #[test]
    fn ready_mode_serves_and_the_old_is_kept_for_its_users() {
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
    fn unused_route_is_held_and_then_removed() {
        let mut observed = Situation {
            users: BTreeMap::new(),
            ..after_a_cut_over()
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
    fn new_user_ends_the_hold() {
        let mut observed = after_a_cut_over();
        observed.workloads.insert(Mode::NodeLocal, Some(at(-3600)));
        assert_eq!(plan(&observed).keep.get(&Mode::NodeLocal), Some(&None));
    }

    #[test]
    fn hold_of_zero_still_covers_propagation() {
        let mut observed = Situation {
            users: BTreeMap::new(),
            hold_old: Duration::ZERO,
            ..after_a_cut_over()
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
    fn host_port_waits_until_host_network_agents_are_updated() {
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
    fn host_port_does_not_wait_for_an_unused_host_network() {
        let unused = Situation {
            serving: Some(Mode::NodeLocal),
            users: BTreeMap::new(),
            ..handed_over()
        };
        assert_eq!(plan(&unused).first, None);
        let mut present = handed_over();
        present.workloads.insert(Mode::HostPort, None);
        assert_eq!(plan(&present).first, None);
        let back = Situation {
            wanted: Mode::HostNetwork,
            outdated: BTreeSet::from([Mode::HostPort]),
            ..settled(Mode::HostPort)
        };
        assert_eq!(plan(&back).first, None);
    }

    #[test]
    fn switching_back_is_immediate_while_the_old_workload_exists() {
        let mut observed = settled(Mode::NodeLocal);
        observed.serving = Some(Mode::HostPort);
        observed.workloads.insert(Mode::HostPort, None);
        assert_eq!(plan(&observed).serving, Some(Mode::NodeLocal));
    }
}
