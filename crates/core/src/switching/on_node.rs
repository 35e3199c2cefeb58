//! An agent workload node by node, for people who ask.

use std::collections::{BTreeMap, BTreeSet};

use super::agent_workload::{AgentPod, AgentWorkload, Lack, lack};
use super::node::NodeStates;

/// The agents of one workload on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOnNode<'a> {
    /// The name of the node.
    pub node: &'a str,
    /// Its agents: one, or two while one takes over from the other.
    pub agents: Vec<&'a AgentPod>,
    /// How they are.
    pub state: AgentState,
}

/// How the agents of one workload are on one node, the worst first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgentState {
    /// There should be one and is none, perhaps because the last one ended for this reason.
    Missing(Option<String>),
    /// None is ready.
    Unready,
    /// One serves, but none of the present template.
    Outdated,
    /// The node is not Ready, so that nothing on it counts.
    NodeDown,
    /// One of the present template is ready.
    Ready,
    /// The workload leaves the node out for this reason.
    LeftOut(String),
}

impl AgentState {
    /// Whether it needs attention.
    pub fn is_as_wished(&self) -> bool {
        matches!(self, Self::Ready | Self::LeftOut(_))
    }
}

impl AgentWorkload {
    /// Its agents on every node, the worst first. Nodes that are not known are judged by their agents alone.
    pub fn on_nodes<'a>(&'a self, nodes: &'a NodeStates) -> Vec<AgentOnNode<'a>> {
        let mut by_node: BTreeMap<&str, Vec<&AgentPod>> = self.pods_by_node();
        let with_agents = by_node.keys().copied();
        let names = nodes.keys().map(String::as_str).chain(with_agents);
        let names: BTreeSet<&str> = names.collect();
        let mut found: Vec<AgentOnNode<'a>> = names
            .into_iter()
            .map(|node| {
                let agents = by_node.remove(node).unwrap_or_default();
                let state = self.state_on(nodes, node, &agents);
                AgentOnNode {
                    node,
                    agents,
                    state,
                }
            })
            .collect();
        found.sort_by(|one, other| (&one.state, one.node).cmp(&(&other.state, other.node)));
        found
    }

    fn state_on(&self, nodes: &NodeStates, node: &str, agents: &[&AgentPod]) -> AgentState {
        let known = nodes.get(node);
        if let Some(why) = known.and_then(|known| self.targets.leaves_out(node, known)) {
            return AgentState::LeftOut(why);
        }
        if known.is_some_and(|known| !known.ready) {
            return AgentState::NodeDown;
        }
        if agents.is_empty() {
            return AgentState::Missing(self.ended.get(node).cloned());
        }
        match lack(node, agents, &self.template) {
            Some(Lack::Unready(_)) => AgentState::Unready,
            Some(Lack::Outdated(_)) => AgentState::Outdated,
            None => AgentState::Ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::node::NodeState;
    use super::*;

    #[test]
    fn nodes_are_listed_with_the_worst_first() {
        let agent = |node: &str, ready, template: &str| AgentPod {
            name: format!("a-{node}"),
            node: Some(node.into()),
            ready,
            waits_for: None,
            template: Some(template.into()),
        };
        let workload = AgentWorkload {
            template: "t1".into(),
            pods: vec![
                agent("good", true, "t1"),
                agent("old", true, "t0"),
                agent("lame", false, "t1"),
                agent("down", true, "t1"),
                agent("unknown", true, "t1"),
            ],
            ended: [("lost".to_owned(), "Evicted".to_owned())].into(),
            ..AgentWorkload::default()
        };
        let node = |ready| {
            Arc::new(NodeState {
                ready,
                ..NodeState::default()
            })
        };
        let ready = ["good", "old", "lame", "lost"];
        let ready = ready.map(|name| (name.to_owned(), node(true)));
        let nodes = ready.into_iter().chain([("down".to_owned(), node(false))]);
        let nodes = nodes.collect();
        let found = workload.on_nodes(&nodes);
        let found: Vec<(&str, &AgentState)> = found.iter().map(|on| (on.node, &on.state)).collect();
        let expected = [
            ("lost", &AgentState::Missing(Some("Evicted".into()))),
            ("lame", &AgentState::Unready),
            ("old", &AgentState::Outdated),
            ("down", &AgentState::NodeDown),
            ("good", &AgentState::Ready),
            ("unknown", &AgentState::Ready),
        ];
        assert_eq!(found, expected);
    }
}
