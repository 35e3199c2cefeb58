//! Whether an agent workload is ready everywhere, and where it is not.
//!
//! "Everywhere" means on every node that is Ready and that the `DaemonSet` targets: other nodes block nothing. A
//! cluster that always has nodes without a ready agent sets how many it tolerates (`switchover.maxUnready`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;

use super::node::{NodeStates, Targets};
use crate::build::template_label;
use crate::names;
use crate::quantity::MaxUnready;
use otelagent_api::{AgentCounts, Mode};

/// How many nodes without an agent are named.
const NAMED: usize = 3;

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
    pub fn is_of(&self, template: &str) -> bool {
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
    /// Nodes that should have an agent, that have a ready one, and one of the present template.
    pub counts: AgentCounts,
    /// Why its nodes cannot be judged yet, for a person.
    pub pending: Option<String>,
    /// Nodes without a ready agent, of those that are Ready and should have one: names and reasons, for a person.
    pub unready: Vec<String>,
    /// Of the same nodes, those on which only an agent of another template is ready.
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

/// The mode that an agent workload, its pod or its Service serves, by its labels.
pub fn mode_served(labels: &BTreeMap<String, String>) -> Option<Mode> {
    Mode::parse(labels.get(names::LABEL_WORKLOAD)?)
}

/// Whether these labels are of a mode's workload, its pods or its Service, made for one `OtelAgent`.
pub fn serves(labels: &BTreeMap<String, String>, agent: &str, mode: Mode) -> bool {
    let owner = labels.get(names::LABEL_OWNER);
    owner.is_some_and(|owner| owner == agent) && mode_served(labels) == Some(mode)
}

impl AgentWorkload {
    /// A `DaemonSet` with its pods, without what only events tell.
    pub fn of(object: &DaemonSet, pods: Vec<AgentPod>) -> Self {
        let status = object.status.clone().unwrap_or_default();
        Self {
            observed: status.observed_generation.is_some()
                && status.observed_generation == object.metadata.generation,
            desired: status.desired_number_scheduled,
            template: template_label(object).unwrap_or_default().to_owned(),
            targets: Targets::of(object),
            pods,
            ..Self::default()
        }
    }

    /// Counts agents by node and names the nodes without a ready one.
    pub fn state(
        &self,
        nodes: &NodeStates,
        wanted_template: &str,
        max_unready: MaxUnready,
    ) -> WorkloadState {
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
        } else if self.desired == 0 {
            state.pending = Some("no node matches the agent's nodeSelector and tolerations".into());
        }
        self.judge_nodes(nodes, wanted_template, &mut state);
        let works = self.pods.iter().any(|pod| pod.ready && is_updated(pod));
        if !works && state.is_ready_everywhere() {
            // All nodes are down, or all may be unready: no pod would reach an agent.
            state.pending = Some("no node has a ready agent".into());
        }
        state
    }

    /// Notes each node on which an agent is missing, not ready or not updated.
    fn judge_nodes(&self, nodes: &NodeStates, wanted_template: &str, state: &mut WorkloadState) {
        let by_node = self.pods_by_node();
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
            lacks_pod |= !pods.iter().any(|pod| pod.is_of(wanted_template));
            match lack(name, pods, wanted_template) {
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

    /// Its pods by the nodes they are for.
    pub(super) fn pods_by_node(&self) -> BTreeMap<&str, Vec<&AgentPod>> {
        let mut by_node: BTreeMap<&str, Vec<&AgentPod>> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(node) = &pod.node {
                by_node.entry(node).or_default().push(pod);
            }
        }
        by_node
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

/// What a node with agents lacks, for a person.
pub(super) enum Lack {
    /// A ready agent.
    Unready(String),
    /// A ready agent of the wanted template.
    Outdated(String),
}

pub(super) fn lack(node: &str, pods: &[&AgentPod], wanted_template: &str) -> Option<Lack> {
    let is_updated = |pod: &&AgentPod| pod.ready && pod.is_of(wanted_template);
    if pods.iter().any(is_updated) {
        return None;
    }
    let named = |pods: Vec<&&AgentPod>| {
        let names: Vec<String> = pods.into_iter().map(|pod| pod.described()).collect();
        names.join(", ")
    };
    let (serving, starting): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| pod.ready);
    let is_served = !serving.is_empty();
    let why = if starting.is_empty() {
        format!(
            "node {node}: agent {} has an older configuration",
            named(serving)
        )
    } else {
        format!("node {node}: agent {} is not ready", named(starting))
    };
    Some(if is_served {
        Lack::Outdated(why)
    } else {
        Lack::Unready(why)
    })
}

#[cfg(test)]
mod tests;
