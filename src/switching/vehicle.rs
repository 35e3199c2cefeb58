//! Whether a vehicle is ready everywhere, and where it is not.
//!
//! "Everywhere" is every agent on a node that is Ready: a node that is down blocks nothing.

use std::collections::{BTreeMap, BTreeSet};

/// One agent pod of a vehicle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// Its name.
    pub name: String,
    /// The node it runs on; `None` until it is scheduled.
    pub node: Option<String>,
    /// Whether it is ready and not terminating.
    pub ready: bool,
    /// What its container waits for, such as `ImagePullBackOff`.
    pub waits_for: Option<String>,
    /// Hash of the template it was made from.
    pub template: Option<String>,
}

impl AgentPod {
    /// Its name, and why it waits where that is known.
    fn described(&self) -> String {
        match &self.waits_for {
            Some(reason) => format!("{} ({reason})", self.name),
            None => self.name.clone(),
        }
    }
}

/// Whether a node is Ready, by name.
pub type NodeState = BTreeMap<String, bool>;

/// A vehicle as it stands in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vehicle {
    /// Whether its controller has seen its present generation.
    pub observed: bool,
    /// Nodes that should have an agent, as its controller counts them.
    pub desired: i32,
    /// Hash of its present template.
    pub template: String,
    /// Its pods.
    pub pods: Vec<AgentPod>,
}

/// What is so of a vehicle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VehicleState {
    /// Nodes that should have an agent.
    pub desired: i32,
    /// Nodes with a ready agent.
    pub ready: i32,
    /// Nodes with an agent made from the present template.
    pub updated: i32,
    /// Why it is not ready everywhere; empty where it is. Node names and reasons, for a person.
    pub waiting_for: Vec<String>,
}

impl VehicleState {
    /// Whether every agent on a Ready node is ready and updated.
    pub fn is_ready_everywhere(&self) -> bool {
        self.waiting_for.is_empty()
    }
}

impl Vehicle {
    /// Counts agents by node and names the nodes that are waited for.
    pub fn state(&self, nodes: &NodeState, wanted_template: &str) -> VehicleState {
        let mut by_node: BTreeMap<&str, Vec<&AgentPod>> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(node) = &pod.node {
                by_node.entry(node).or_default().push(pod);
            }
        }
        let is_updated = |pod: &AgentPod| pod.template.as_deref() == Some(wanted_template);
        let count = |test: &dyn Fn(&[&AgentPod]) -> bool| {
            i32::try_from(by_node.values().filter(|pods| test(pods)).count()).unwrap_or(i32::MAX)
        };
        let mut state = VehicleState {
            desired: self.desired,
            ready: count(&|pods| pods.iter().any(|pod| pod.ready)),
            updated: count(&|pods| pods.iter().any(|pod| is_updated(pod))),
            waiting_for: Vec::new(),
        };
        if !self.observed || self.template != wanted_template {
            state
                .waiting_for
                .push("the DaemonSet controller has not acted on the change yet".into());
            return state;
        }
        if self.desired == 0 {
            state
                .waiting_for
                .push("no node matches the agent's nodeSelector and tolerations".into());
        }
        let is_node_ready = |node: &str| nodes.get(node).copied().unwrap_or(false);
        for (node, pods) in &by_node {
            if is_node_ready(node) && !pods.iter().any(|pod| pod.ready && is_updated(pod)) {
                let names: Vec<String> = pods.iter().map(|pod| pod.described()).collect();
                state.waiting_for.push(format!(
                    "node {node}: agent {} is not ready",
                    names.join(", ")
                ));
            }
        }
        state
            .waiting_for
            .extend(self.missing(&by_node.keys().copied().collect(), nodes));
        state
    }

    /// Agents that do not exist yet. Which nodes lack them is the `DaemonSet` controller's knowledge;
    /// nodes that are down without an agent may account for some.
    fn missing(&self, with_agent: &BTreeSet<&str>, nodes: &NodeState) -> Option<String> {
        let down = nodes
            .iter()
            .filter(|(name, ready)| !**ready && !with_agent.contains(name.as_str()))
            .count();
        let desired = usize::try_from(self.desired).unwrap_or_default();
        let missing = desired
            .saturating_sub(with_agent.len())
            .saturating_sub(down);
        (missing > 0).then(|| format!("{missing} of {desired} nodes have no agent yet"))
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

    fn vehicle(desired: i32, pods: Vec<AgentPod>) -> Vehicle {
        Vehicle {
            observed: true,
            desired,
            template: "t1".into(),
            pods,
        }
    }

    fn nodes(states: &[(&str, bool)]) -> NodeState {
        states
            .iter()
            .map(|(name, ready)| ((*name).to_owned(), *ready))
            .collect()
    }

    #[test]
    fn ready_everywhere_means_every_ready_node_has_a_ready_updated_agent() {
        let nodes = nodes(&[("n1", true), ("n2", true)]);
        let state =
            vehicle(2, vec![pod("n1", true, "t1"), pod("n2", true, "t1")]).state(&nodes, "t1");
        assert!(state.is_ready_everywhere(), "{state:?}");
        assert_eq!((state.desired, state.ready, state.updated), (2, 2, 2));

        let state =
            vehicle(2, vec![pod("n1", true, "t1"), pod("n2", false, "t1")]).state(&nodes, "t1");
        assert_eq!(state.waiting_for, ["node n2: agent a-n2 is not ready"]);

        let pulling = AgentPod {
            waits_for: Some("ImagePullBackOff".into()),
            ..pod("n2", false, "t1")
        };
        let state = vehicle(2, vec![pod("n1", true, "t1"), pulling]).state(&nodes, "t1");
        assert_eq!(
            state.waiting_for,
            ["node n2: agent a-n2 (ImagePullBackOff) is not ready"]
        );

        let state =
            vehicle(2, vec![pod("n1", true, "t1"), pod("n2", true, "t0")]).state(&nodes, "t1");
        assert!(!state.is_ready_everywhere());
    }

    #[test]
    fn a_node_that_is_down_blocks_nothing() {
        let nodes = nodes(&[("n1", true), ("n2", false)]);
        let with_dead_agent = vehicle(2, vec![pod("n1", true, "t1"), pod("n2", false, "t1")]);
        assert!(with_dead_agent.state(&nodes, "t1").is_ready_everywhere());
        let without_agent = vehicle(2, vec![pod("n1", true, "t1")]);
        assert!(without_agent.state(&nodes, "t1").is_ready_everywhere());
    }

    #[test]
    fn a_node_without_an_agent_is_waited_for() {
        let nodes = nodes(&[("n1", true), ("n2", true)]);
        let state = vehicle(2, vec![pod("n1", true, "t1")]).state(&nodes, "t1");
        assert_eq!(state.waiting_for, ["1 of 2 nodes have no agent yet"]);
    }

    #[test]
    fn no_node_at_all_is_not_ready() {
        assert!(
            !vehicle(0, Vec::new())
                .state(&NodeState::new(), "t1")
                .is_ready_everywhere()
        );
    }
}
