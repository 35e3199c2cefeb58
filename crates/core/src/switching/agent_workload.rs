//! Whether an agent workload is ready everywhere, and where it is not.
//!
//! "Everywhere" means on every node that is Ready: a node that is down blocks nothing. A cluster that always
//! has nodes without a ready agent sets how many it tolerates (`switchover.maxUnready`).

use std::collections::{BTreeMap, BTreeSet};

use crate::quantity::MaxUnready;
use otelagent_api::AgentCounts;

/// One agent pod of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// Its name.
    pub name: String,
    /// The node it runs on or was created for, if known.
    pub node: Option<String>,
    /// Whether it is ready and not terminating.
    pub ready: bool,
    /// What its container waits for, such as `ImagePullBackOff`, or why its node rejects it.
    pub waits_for: Option<String>,
    /// Hash of the template it was created from.
    pub template: Option<String>,
}

impl AgentPod {
    /// Whether it was created from this template.
    fn is_of(&self, template: &str) -> bool {
        self.template.as_deref() == Some(template)
    }

    /// Its name, and why it waits if known.
    fn described(&self) -> String {
        match &self.waits_for {
            Some(reason) => format!("{} ({reason})", self.name),
            None => self.name.clone(),
        }
    }
}

/// Whether a node is Ready, by name.
pub type NodeState = BTreeMap<String, bool>;

fn is_up(nodes: &NodeState, node: &str) -> bool {
    nodes.get(node).copied().unwrap_or(false)
}

/// An agent workload as it exists in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentWorkload {
    /// Whether its controller has observed its present generation.
    pub observed: bool,
    /// Nodes that should have an agent, as its controller counts them.
    pub desired: i32,
    /// Hash of its present template.
    pub template: String,
    /// Its pods.
    pub pods: Vec<AgentPod>,
}

/// The state of an agent workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadState {
    /// Nodes that should have an agent, that have a ready one, and one of the present template.
    pub counts: AgentCounts,
    /// Why its nodes cannot be judged yet, for a person.
    pub pending: Option<String>,
    /// Ready nodes without a ready agent of the present template: names and reasons, for a person.
    pub unready: Vec<String>,
    /// Nodes that have no agent yet. Only the `DaemonSet` controller knows which.
    pub missing: usize,
    /// How many nodes may be `unready` or `missing`.
    pub max_unready: usize,
}

impl WorkloadState {
    /// A state that is unknown for this reason.
    pub fn pending(why: impl Into<String>) -> Self {
        Self {
            pending: Some(why.into()),
            ..Self::default()
        }
    }

    /// Whether every agent on a Ready node is ready and updated, apart from the tolerated number.
    pub fn is_ready_everywhere(&self) -> bool {
        self.pending.is_none() && self.unready.len() + self.missing <= self.max_unready
    }

    /// What a person would look at: why it is not ready, or on which nodes.
    pub fn waiting_for(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.pending.iter().chain(&self.unready).cloned().collect();
        if self.missing > 0 {
            let (missing, desired) = (self.missing, self.counts.desired);
            reasons.push(format!("{missing} of {desired} nodes have no agent yet"));
        }
        reasons
    }
}

impl AgentWorkload {
    /// Counts agents by node and names the nodes without a ready one.
    pub fn state(
        &self,
        nodes: &NodeState,
        wanted_template: &str,
        max_unready: MaxUnready,
    ) -> WorkloadState {
        let mut by_node: BTreeMap<&str, Vec<&AgentPod>> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(node) = &pod.node {
                by_node.entry(node).or_default().push(pod);
            }
        }
        let is_updated = |pod: &AgentPod| pod.is_of(wanted_template);
        let mut state = WorkloadState {
            counts: AgentCounts {
                desired: self.desired,
                ready: self.nodes_served(),
                updated: self.nodes_with(is_updated),
            },
            max_unready: max_unready.of(usize::try_from(self.desired).unwrap_or_default()),
            ..WorkloadState::default()
        };
        if !self.observed || self.template != wanted_template {
            state.pending = Some("the DaemonSet controller has not observed the change yet".into());
            return state;
        }
        if self.desired == 0 {
            state.pending = Some("no node matches the agent's nodeSelector and tolerations".into());
        }
        for (node, pods) in &by_node {
            if is_up(nodes, node) && !pods.iter().any(|pod| pod.ready && is_updated(pod)) {
                let names: Vec<String> = pods.iter().map(|pod| pod.described()).collect();
                let names = names.join(", ");
                let why = format!("node {node}: agent {names} is not ready");
                state.unready.push(why);
            }
        }
        state.missing = self.missing(&by_node.keys().copied().collect(), nodes);
        let works = self.pods.iter().any(|pod| pod.ready && is_updated(pod));
        if !works && state.is_ready_everywhere() {
            // All nodes are down, or all may be unready: no pod would reach an agent.
            state.pending = Some("no node has a ready agent".into());
        }
        state
    }

    /// Nodes with a ready agent, of whichever template.
    pub fn nodes_served(&self) -> i32 {
        self.nodes_with(|pod| pod.ready)
    }

    fn nodes_with(&self, test: impl Fn(&AgentPod) -> bool) -> i32 {
        let pods = self.pods.iter().filter(|pod| test(pod));
        let nodes: BTreeSet<&str> = pods.filter_map(|pod| pod.node.as_deref()).collect();
        i32::try_from(nodes.len()).unwrap_or(i32::MAX)
    }

    /// Whether the only ready agent of some Ready node is of another template. A node without a ready agent
    /// has nothing out of date.
    pub fn is_outdated(&self, nodes: &NodeState, wanted_template: &str) -> bool {
        if !self.observed || self.template != wanted_template {
            return true;
        }
        let mut served: BTreeMap<&str, bool> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| pod.ready) {
            if let Some(node) = pod.node.as_deref() {
                *served.entry(node).or_default() |= pod.is_of(wanted_template);
            }
        }
        let mut served = served.iter();
        served.any(|(node, updated)| is_up(nodes, node) && !updated)
    }

    /// Agents that do not exist yet. Nodes that are down without an agent may account for some.
    fn missing(&self, with_agent: &BTreeSet<&str>, nodes: &NodeState) -> usize {
        let is_down =
            |(name, ready): &(&String, &bool)| !**ready && !with_agent.contains(name.as_str());
        let down = nodes.iter().filter(is_down).count();
        let desired = usize::try_from(self.desired).unwrap_or_default();
        desired.saturating_sub(with_agent.len() + down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: &str, ready: bool, template: &str) -> AgentPod {
        AgentPod {
            name: format!("a-{node}"),
            node: Some(node.into()),
            ready,
            waits_for: None,
            template: Some(template.into()),
        }
    }

    fn of_nodes(desired: i32, pods: Vec<AgentPod>) -> AgentWorkload {
        AgentWorkload {
            observed: true,
            desired,
            template: "t1".into(),
            pods,
        }
    }

    fn nodes<const N: usize>(states: [(&str, bool); N]) -> NodeState {
        states.map(|(name, ready)| (name.to_owned(), ready)).into()
    }

    /// Of agents that should be of template `t1` on every Ready node.
    fn state(nodes: &NodeState, desired: i32, pods: Vec<AgentPod>) -> WorkloadState {
        of_nodes(desired, pods).state(nodes, "t1", MaxUnready::default())
    }

    #[test]
    fn ready_everywhere_needs_an_updated_agent_on_each_node() {
        let nodes = nodes([("n1", true), ("n2", true)]);
        let with = |second| state(&nodes, 2, vec![pod("n1", true, "t1"), second]);
        let ready = with(pod("n2", true, "t1"));
        assert!(ready.is_ready_everywhere(), "{ready:?}");
        let counts = ready.counts;
        assert_eq!((counts.desired, counts.ready, counts.updated), (2, 2, 2));

        let starting = pod("n2", false, "t1");
        let waits = ["node n2: agent a-n2 is not ready"];
        assert_eq!(with(starting.clone()).waiting_for(), waits);

        let pulling = AgentPod {
            waits_for: Some("ImagePullBackOff".into()),
            ..starting
        };
        let waits = ["node n2: agent a-n2 (ImagePullBackOff) is not ready"];
        assert_eq!(with(pulling).waiting_for(), waits);
        assert!(!with(pod("n2", true, "t0")).is_ready_everywhere());
    }

    #[test]
    fn workload_is_outdated_while_a_node_has_only_an_old_agent() {
        let up = nodes([("n1", true), ("n2", true)]);
        let surging = vec![
            pod("n1", true, "t0"),
            pod("n1", true, "t1"),
            pod("n2", true, "t0"),
        ];
        let mut surged = of_nodes(2, surging);
        assert!(surged.is_outdated(&up, "t1"));
        surged.pods.push(pod("n2", true, "t1"));
        assert!(!surged.is_outdated(&up, "t1"));
        assert!(surged.is_outdated(&up, "t2"), "not even asked for");
        surged.observed = false;
        assert!(surged.is_outdated(&up, "t1"), "not observed");

        let blocked = of_nodes(2, vec![pod("n1", true, "t1"), pod("n2", false, "t0")]);
        assert!(!blocked.is_outdated(&up, "t1"), "n2 has no ready agent");
        let half = nodes([("n1", true), ("n2", false)]);
        let down = of_nodes(2, vec![pod("n1", true, "t1"), pod("n2", true, "t0")]);
        assert!(!down.is_outdated(&half, "t1"), "n2 is down");
    }

    #[test]
    fn node_that_is_down_blocks_nothing() {
        let nodes = nodes([("n1", true), ("n2", false)]);
        let one = vec![pod("n1", true, "t1")];
        let with_dead_agent = [one.clone(), vec![pod("n2", false, "t1")]].concat();
        for pods in [with_dead_agent, one] {
            assert!(state(&nodes, 2, pods).is_ready_everywhere());
        }
    }

    #[test]
    fn node_without_an_agent_is_waited_for() {
        let nodes = nodes([("n1", true), ("n2", true)]);
        let state = state(&nodes, 2, vec![pod("n1", true, "t1")]);
        assert_eq!(state.waiting_for(), ["1 of 2 nodes have no agent yet"]);
    }

    #[test]
    fn tolerated_unready_nodes_do_not_block_and_are_named() {
        let nodes = nodes([("n1", true), ("n2", true), ("n3", true)]);
        let workload = of_nodes(3, vec![pod("n1", true, "t1"), pod("n2", false, "t1")]);
        let state = |max_unready| workload.state(&nodes, "t1", max_unready);
        assert!(!state(MaxUnready::Nodes(1)).is_ready_everywhere());
        assert!(!state(MaxUnready::Percent(66)).is_ready_everywhere());
        let allowed = state(MaxUnready::Percent(67));
        assert!(allowed.is_ready_everywhere());
        assert_eq!(
            allowed.waiting_for(),
            [
                "node n2: agent a-n2 is not ready",
                "1 of 3 nodes have no agent yet"
            ]
        );
    }

    #[test]
    fn workload_without_any_ready_agent_is_never_ready() {
        let lame = vec![pod("n1", false, "t1")];
        let up = nodes([("n1", true)]);
        let workload = of_nodes(1, lame.clone());
        let all_may_be = workload.state(&up, "t1", MaxUnready::Percent(100));
        assert!(!all_may_be.is_ready_everywhere());
        let state = state(&nodes([("n1", false)]), 1, lame);
        assert_eq!(state.waiting_for(), ["no node has a ready agent"]);
    }

    #[test]
    fn no_node_at_all_is_not_ready() {
        assert!(!state(&NodeState::new(), 0, Vec::new()).is_ready_everywhere());
    }
}
