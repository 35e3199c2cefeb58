//! Whether an agent workload is ready everywhere, and where it is not.
//!
//! "Everywhere" means on every node that is Ready and that the `DaemonSet` targets: other nodes block nothing. A
//! cluster that always has nodes without a ready agent sets how many it tolerates (`switchover.maxUnready`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use super::agents::{AgentPod, Lack, WantedAgents, lack};
use super::node::{NodeStates, Targets};
use crate::quantity::MaxUnready;
use otelagent_api::AgentCounts;

/// How many nodes without an agent are named.
const NAMED: usize = 3;

/// An agent workload as it exists in the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentWorkload {
    /// Whether its controller has observed its present generation.
    pub observed: bool,
    /// Nodes that should have an agent, as its controller counts them.
    pub desired: i32,
    /// Hash of its present template.
    pub template: String,
    /// Its pods.
    pub pods: Vec<AgentPod>,
    /// The nodes it targets.
    pub targets: Targets,
    /// Why its controller could not create a pod, if that is the last that is known.
    pub cannot_create: Option<String>,
    /// Why nodes have ended the last pod of it that they had, by node.
    pub ended: BTreeMap<String, String>,
}

/// The state of an agent workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadState {
    /// Nodes that should have an agent, that have a ready one, and an updated one, see [`WantedAgents`].
    pub counts: AgentCounts,
    /// Why its nodes cannot be judged yet, for a person.
    pub pending: Option<String>,
    /// Nodes without a ready agent, of those that are Ready and should have one: names and reasons, for a person.
    pub unready: Vec<String>,
    /// Of the same nodes, those on which no ready agent is updated.
    pub outdated: Vec<String>,
    /// Nodes that have no agent yet.
    pub missing: usize,
    /// Their names, as far as they are known.
    pub missing_on: Vec<String>,
    /// Why pods that are missing cannot be created.
    pub cannot_create: Option<String>,
    /// How many nodes may be `unready`, `outdated` or `missing`.
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
        let lacking = self.unready.len() + self.outdated.len() + self.missing;
        self.pending.is_none() && lacking <= self.max_unready
    }

    /// Whether pods reach an agent everywhere, of whichever template, apart from the tolerated number.
    pub fn serves(&self) -> bool {
        self.counts.ready > 0 && self.unready.len() + self.missing <= self.max_unready
    }

    /// What a person would look at: why it is not ready, or on which nodes.
    pub fn waiting_for(&self) -> Vec<String> {
        let causes = self.pending.iter().chain(&self.cannot_create);
        let nodes = self.unready.iter().chain(&self.outdated);
        let mut reasons: Vec<String> = causes.chain(nodes).cloned().collect();
        if self.missing > 0 {
            let (missing, desired) = (self.missing, self.counts.desired);
            let named: Vec<&str> = self.missing_on.iter().map(String::as_str).collect();
            let named = match named.len() {
                0 => String::new(),
                few if few <= NAMED && few == missing => format!(" ({})", named.join(", ")),
                _ => format!(" (such as {})", named[..named.len().min(NAMED)].join(", ")),
            };
            reasons.push(format!(
                "{missing} of {desired} nodes have no agent yet{named}"
            ));
        }
        reasons
    }
}

impl AgentWorkload {
    /// Counts agents by node and names the nodes without a ready one.
    pub fn state(
        &self,
        nodes: &NodeStates,
        wanted: WantedAgents<'_>,
        max_unready: MaxUnready,
    ) -> WorkloadState {
        let mut state = WorkloadState {
            counts: AgentCounts {
                desired: self.desired,
                ready: self.nodes_served(),
                updated: self.nodes_with(|pod| pod.is(wanted)),
            },
            max_unready: max_unready.of(usize::try_from(self.desired).unwrap_or_default()),
            ..WorkloadState::default()
        };
        if !self.observed || self.template != wanted.template {
            state.pending = Some("the DaemonSet controller has not observed the change yet".into());
        } else if self.desired == 0 {
            state.pending = Some("no node matches the agent's nodeSelector and tolerations".into());
        }
        self.judge_nodes(nodes, wanted, &mut state);
        let mut pods = self.pods.iter();
        let works = pods.any(|pod| pod.ready && pod.is_of(wanted.template));
        if !works && state.is_ready_everywhere() {
            // All nodes are down, or all may be unready: no pod would reach an agent.
            state.pending = Some("no node has a ready agent".into());
        }
        state
    }

    /// Notes each node on which an agent is missing, not ready or not updated.
    fn judge_nodes(&self, nodes: &NodeStates, wanted: WantedAgents<'_>, state: &mut WorkloadState) {
        let mut by_node: BTreeMap<&str, Vec<&AgentPod>> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(node) = &pod.node {
                by_node.entry(node).or_default().push(pod);
            }
        }
        let (mut targeted, mut with_agent, mut lacks_pod) = (0, 0, false);
        let mut left_out_with_agent = 0;
        for (name, node) in nodes {
            let pods = by_node.get(name.as_str());
            if self.targets.leaves_out(name, node).is_some() {
                left_out_with_agent += usize::from(pods.is_some());
                continue;
            }
            targeted += 1;
            with_agent += usize::from(pods.is_some());
            if !node.ready {
                continue;
            }
            let Some(pods) = pods else {
                let ended = self.ended.get(name);
                let ended = ended.map(|why| format!(", whose last agent ended: {why}"));
                state
                    .missing_on
                    .push(format!("{name}{}", ended.unwrap_or_default()));
                continue;
            };
            lacks_pod |= !pods.iter().any(|pod| pod.is_of(wanted.template));
            match lack(name, pods, wanted) {
                Some(Lack::Unready(why)) => state.unready.push(why),
                Some(Lack::Outdated(why)) => state.outdated.push(why),
                None => {}
            }
        }
        // Its controller's count decides. It may know of nodes that are not in the caches yet, or may not have
        // seen a new node. Nodes that are down may account for some agents that do not exist. A node that is left
        // out since it is down, with its agent, may still be counted.
        let desired = usize::try_from(self.desired).unwrap_or_default();
        let desired = desired - left_out_with_agent.min(desired.saturating_sub(targeted));
        let unknown = desired.saturating_sub(targeted);
        let absent = desired.saturating_sub(with_agent);
        state.missing = absent.min(state.missing_on.len() + unknown);
        if state.missing == 0 {
            state.missing_on.clear();
        }
        let is_blocked = state.missing > 0 || lacks_pod;
        state.cannot_create = self.cannot_create.clone().filter(|_| is_blocked);
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

    /// Whether the only ready agents of some Ready node are of another template. A node without a ready agent
    /// has nothing out of date.
    pub fn is_outdated(&self, nodes: &NodeStates, wanted_template: &str) -> bool {
        if !self.observed || self.template != wanted_template {
            return true;
        }
        let mut served: BTreeMap<&str, bool> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| pod.ready) {
            if let Some(node) = pod.node.as_deref() {
                *served.entry(node).or_default() |= pod.is_of(wanted_template);
            }
        }
        let is_up = |node: &str| nodes.get(node).is_some_and(|node| node.ready);
        let mut served = served.iter();
        served.any(|(node, updated)| is_up(node) && !updated)
    }

    /// Why it has no agent on a node, if it leaves that out.
    pub fn leaves_out(&self, nodes: &NodeStates, name: &str) -> Option<String> {
        self.targets.leaves_out(name, nodes.get(name)?)
    }
}

/// Why pods of an agent workload cannot be created, by the last failure to create one: `None` if one was created
/// after that.
pub fn creation_failure(
    message: &str,
    at: Timestamp,
    newest_pod: Option<Timestamp>,
) -> Option<String> {
    if newest_pod.is_some_and(|created| created > at) {
        return None;
    }
    let why = message.trim_start_matches("Error creating: ");
    Some(format!("agent pods cannot be created: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Taint;

    use super::super::node::NodeState;
    use super::*;

    fn pod(node: &str, ready: bool, template: &str) -> AgentPod {
        AgentPod {
            name: format!("a-{node}"),
            node: Some(node.into()),
            ready,
            template: Some(template.into()),
            ..AgentPod::default()
        }
    }

    fn made_from(template: &str) -> WantedAgents<'_> {
        WantedAgents {
            template,
            ..WantedAgents::default()
        }
    }

    fn of_nodes(desired: i32, pods: Vec<AgentPod>) -> AgentWorkload {
        AgentWorkload {
            observed: true,
            desired,
            template: "t1".into(),
            pods,
            ..AgentWorkload::default()
        }
    }

    fn node(ready: bool) -> Arc<NodeState> {
        Arc::new(NodeState {
            ready,
            ..NodeState::default()
        })
    }

    fn nodes<const N: usize>(states: [(&str, bool); N]) -> NodeStates {
        let states = states.map(|(name, ready)| (name.to_owned(), node(ready)));
        states.into()
    }

    /// Of agents that should be of template `t1` on every Ready node.
    fn state(nodes: &NodeStates, desired: i32, pods: Vec<AgentPod>) -> WorkloadState {
        of_nodes(desired, pods).state(nodes, made_from("t1"), MaxUnready::default())
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
        assert_eq!(state.waiting_for(), ["1 of 2 nodes have no agent yet (n2)"]);
    }

    #[test]
    fn dead_nodes_without_agents_hide_no_ready_node_without_one() {
        let nodes = nodes([("d1", false), ("d2", false), ("n1", true), ("n2", true)]);
        // Its controller counts the dead nodes whose taints it tolerates.
        for desired in 2..=4 {
            let state = state(&nodes, desired, vec![pod("n1", true, "t1")]);
            assert_eq!(state.missing_on, ["n2"], "{desired}");
            assert!(!state.is_ready_everywhere(), "{desired}");
        }
    }

    #[test]
    fn node_that_is_left_out_neither_blocks_nor_counts() {
        let mut nodes = nodes([("n1", true), ("n2", true), ("w1", true), ("w2", false)]);
        let windows = |ready| {
            let labels = [("kubernetes.io/os".to_owned(), "windows".to_owned())];
            Arc::new(NodeState {
                ready,
                labels: labels.into(),
                taints: Vec::new(),
            })
        };
        let linux = [("kubernetes.io/os".to_owned(), "linux".to_owned())];
        for name in ["n1", "n2"] {
            let mut known = (*nodes[name]).clone();
            known.labels = linux.clone().into();
            nodes.insert(name.into(), Arc::new(known));
        }
        nodes.insert("w1".into(), windows(true));
        nodes.insert("w2".into(), windows(false));
        let workload = |pods| AgentWorkload {
            targets: Targets::of(
                &serde_json::from_value(serde_json::json!({
                    "metadata": {}, "spec": {"selector": {}, "template": {"spec": {
                        "containers": [], "nodeSelector": {"kubernetes.io/os": "linux"},
                    }}},
                }))
                .unwrap(),
            ),
            ..of_nodes(2, pods)
        };
        let on = |names: &[&str]| -> Vec<AgentPod> {
            names
                .iter()
                .map(|name| pod(name, *name != "w1", "t1"))
                .collect()
        };
        let state = |pods| workload(pods).state(&nodes, made_from("t1"), MaxUnready::default());
        let everywhere = state(on(&["n1", "n2", "w1"]));
        assert!(everywhere.is_ready_everywhere(), "{everywhere:?}");
        // Dead nodes that are left out do not stand for the agent that n2 lacks.
        let lacking = state(on(&["n1", "w1"]));
        assert_eq!(
            lacking.waiting_for(),
            ["1 of 2 nodes have no agent yet (n2)"]
        );
        let why = workload(Vec::new()).leaves_out(&nodes, "w1");
        assert_eq!(
            why.unwrap(),
            "it has label kubernetes.io/os=windows, not linux"
        );
    }

    #[test]
    fn node_that_went_down_with_its_agent_is_not_waited_for_while_the_controller_counts_it() {
        let mut nodes = nodes([("n1", true), ("n2", false), ("n3", true)]);
        let taint = Taint {
            key: "node.kubernetes.io/unreachable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        let down = NodeState {
            taints: vec![taint],
            ..NodeState::default()
        };
        nodes.insert("n2".into(), Arc::new(down));
        let agents = |on_n3: bool| {
            let n3 = on_n3.then(|| pod("n3", true, "t1"));
            let others = [pod("n1", true, "t1"), pod("n2", false, "t1")];
            others.into_iter().chain(n3).collect()
        };
        for desired in [2, 3] {
            let everywhere = state(&nodes, desired, agents(true));
            assert!(everywhere.is_ready_everywhere(), "{everywhere:?}");
            let lacking = state(&nodes, desired, agents(false));
            assert_eq!(lacking.missing_on, ["n3"], "{lacking:?}");
        }
    }

    #[test]
    fn node_that_only_the_controller_knows_is_waited_for() {
        let known = nodes([("n1", true)]);
        let state = state(&known, 2, vec![pod("n1", true, "t1")]);
        assert_eq!(state.waiting_for(), ["1 of 2 nodes have no agent yet"]);
    }

    #[test]
    fn old_agents_serve_while_new_ones_cannot_be_created_or_are_not_ready() {
        let nodes = nodes([("n1", true), ("n2", true)]);
        let old = vec![pod("n1", true, "t0"), pod("n2", true, "t0")];
        let blocked = AgentWorkload {
            cannot_create: Some("pods cannot be created: no PriorityClass".into()),
            ..of_nodes(2, old.clone())
        };
        let blocked = blocked.state(&nodes, made_from("t1"), MaxUnready::default());
        assert!(blocked.serves() && !blocked.is_ready_everywhere());
        assert_eq!(
            blocked.waiting_for()[0],
            "pods cannot be created: no PriorityClass"
        );

        let mut pods = old;
        pods.push(AgentPod {
            name: "new".into(),
            waits_for: Some("ErrImagePull".into()),
            ..pod("n1", false, "t1")
        });
        let pulling = state(&nodes, 2, pods);
        assert!(pulling.serves() && !pulling.is_ready_everywhere());
        assert_eq!(
            pulling.waiting_for(),
            [
                "node n1: agent new (ErrImagePull) is not ready",
                "node n2: agent a-n2 has an older configuration"
            ]
        );
        let silent = state(
            &nodes,
            2,
            vec![pod("n1", true, "t0"), pod("n2", false, "t0")],
        );
        assert!(!silent.serves());
    }

    #[test]
    fn failure_to_create_pods_counts_until_one_is_created() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let said = |newest| creation_failure("Error creating: forbidden", at(5), newest);
        let expected = Some("agent pods cannot be created: forbidden".to_owned());
        assert_eq!(said(None), expected);
        assert_eq!(said(Some(at(5))), expected);
        assert_eq!(said(Some(at(6))), None);
    }

    #[test]
    fn old_failure_is_not_told_once_every_node_has_a_pod() {
        let nodes = nodes([("n1", true)]);
        let workload = |template| AgentWorkload {
            cannot_create: Some("quota".into()),
            ..of_nodes(1, vec![pod("n1", false, template)])
        };
        let said = |template| {
            let state = workload(template).state(&nodes, made_from("t1"), MaxUnready::default());
            state.cannot_create
        };
        assert_eq!((said("t1"), said("t0")), (None, Some("quota".into())));
    }

    #[test]
    fn tolerated_unready_nodes_do_not_block_and_are_named() {
        let nodes = nodes([("n1", true), ("n2", true), ("n3", true)]);
        let workload = of_nodes(3, vec![pod("n1", true, "t1"), pod("n2", false, "t1")]);
        let state = |max_unready| workload.state(&nodes, made_from("t1"), max_unready);
        assert!(!state(MaxUnready::Nodes(1)).is_ready_everywhere());
        assert!(!state(MaxUnready::Percent(66)).is_ready_everywhere());
        let allowed = state(MaxUnready::Percent(67));
        assert!(allowed.is_ready_everywhere());
        assert_eq!(
            allowed.waiting_for(),
            [
                "node n2: agent a-n2 is not ready",
                "1 of 3 nodes have no agent yet (n3)"
            ]
        );
    }

    #[test]
    fn workload_without_any_ready_agent_is_never_ready() {
        let lame = vec![pod("n1", false, "t1")];
        let up = nodes([("n1", true)]);
        let workload = of_nodes(1, lame.clone());
        let all_may_be = workload.state(&up, made_from("t1"), MaxUnready::Percent(100));
        assert!(!all_may_be.is_ready_everywhere());
        let state = state(&nodes([("n1", false)]), 1, lame);
        assert_eq!(state.waiting_for(), ["no node has a ready agent"]);
    }

    #[test]
    fn no_node_at_all_is_not_ready() {
        assert!(!state(&NodeStates::new(), 0, Vec::new()).is_ready_everywhere());
    }
}
