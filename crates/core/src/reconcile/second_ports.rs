//! Where pods send that come to `HostNetwork` from `HostPort`.
//!
//! Agents of both modes listen at the same ports of a node, and the node's rule for a host port comes first. When a
//! `HostPort` agent ends, the rule outlives it for a moment, in which connections are refused. A pod that is given other
//! ports of the host-network agent never meets that rule. The agents listen at both, so that pods with either are
//! served; the agent workload and the binding remember it.

use otelagent_api::{Mode, Ports};

use super::observation::Observation;
use crate::build::{PortUser, ValidAgent, are_free, taken};

/// The second ports of agents on the host network, if they are needed; `others` have or want ports of nodes.
pub fn second_ports(
    observation: &Observation<'_>,
    valid: &ValidAgent,
    others: impl FnOnce() -> Vec<PortUser>,
) -> Option<Ports> {
    let second = valid.moved_ports()?;
    let own = valid.spec.ports;
    let own = [own.grpc, own.http, own.metrics, own.health];
    if own.contains(&second.grpc) || own.contains(&second.http) {
        return None;
    }
    let remembered = runs_with(observation, second) || is_bound(observation);
    let is_new = || {
        comes_from_host_port(observation, valid) && are_free(&[second.grpc, second.http], &others())
    };
    (remembered || is_new()).then_some(second)
}

/// Whether pods that are made from now on come from `HostPort` to the host network.
fn comes_from_host_port(observation: &Observation<'_>, valid: &ValidAgent) -> bool {
    valid.wanted() == Mode::HostNetwork
        && valid.selection.is_some()
        && observation.active.mode != Some(Mode::HostNetwork)
        && observation.workloads.contains_key(&Mode::HostPort)
}

fn runs_with(observation: &Observation<'_>, second: Ports) -> bool {
    let found = observation.workloads.get(&Mode::HostNetwork);
    found.is_some_and(|found| taken(&found.object).contains(&second.grpc))
}

/// Whether pods were given them, though the agent workload may have been deleted.
fn is_bound(observation: &Observation<'_>) -> bool {
    let is_used = observation.active.mode == Some(Mode::HostNetwork)
        || observation.pods.users().contains_key(&Mode::HostNetwork);
    observation.active.second_ports && is_used
}
