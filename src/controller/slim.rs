//! Slim types: only what is counted is kept of the cluster's pods, nodes and namespaces.
//!
//! A cache of whole pods is what makes operators grow with clusters they do not own. Everything not
//! named here is dropped while it is read.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Serialize};

/// Marks a pod the kubelet runs from a file; nobody can inject or restart it.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Longest message that is kept, in characters.
const MAX_MESSAGE: usize = 200;

/// A pod: metadata, node, phase and readiness.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = Pod)]
pub(crate) struct SlimPod {
    /// Trimmed by [`trim`].
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: PodSpec,
    #[serde(default)]
    pub(crate) status: Status,
}

/// Where a pod runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) node_name: Option<String>,
    /// Where it waits to be scheduled, the node it was made for if it is of a `DaemonSet`.
    #[serde(default, skip_serializing)]
    affinity: Option<Affinity>,
}

/// Of an affinity, what the `DaemonSet` controller says a pod's node with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSelector {
    #[serde(default)]
    node_selector_terms: Vec<NodeSelectorTerm>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSelectorTerm {
    #[serde(default)]
    match_fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct FieldRequirement {
    key: String,
    #[serde(default)]
    values: Vec<String>,
}

impl PodSpec {
    /// The node it runs on, or waits to run on.
    pub(crate) fn node(&self) -> Option<&str> {
        self.node_name.as_deref().or_else(|| self.meant_for())
    }

    fn meant_for(&self) -> Option<&str> {
        let affinity = self.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()?;
        let fields = required
            .node_selector_terms
            .iter()
            .flat_map(|term| &term.match_fields);
        let mut names = fields.filter(|field| field.key == "metadata.name");
        names.next()?.values.first().map(String::as_str)
    }
}

/// Conditions of pods and nodes alike, and why a pod's containers wait.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
    #[serde(default)]
    pub(crate) container_statuses: Vec<ContainerStatus>,
}

/// What a container waits for, if it waits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ContainerStatus {
    #[serde(default)]
    state: ContainerState,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct ContainerState {
    waiting: Option<Waiting>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Waiting {
    reason: Option<String>,
}

/// One condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    #[serde(default)]
    message: Option<String>,
}

/// A node: name and readiness.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = Node)]
pub(crate) struct SlimNode {
    /// Trimmed by [`trim`].
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) status: Status,
}

/// A namespace: name and labels.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = Namespace)]
pub(crate) struct SlimNamespace {
    /// Trimmed by [`trim`].
    pub(crate) metadata: ObjectMeta,
}

impl Status {
    /// Whether condition `Ready` is true.
    pub(crate) fn is_ready(&self) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }

    /// Why the first waiting container waits, such as `ImagePullBackOff`, or why no node takes the pod.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let waits = self
            .container_statuses
            .iter()
            .find_map(|status| status.state.waiting.as_ref()?.reason.clone());
        let not_scheduled = || {
            self.conditions
                .iter()
                .find(|condition| condition.is_not_scheduled())?
                .message
                .clone()
        };
        waits.or_else(not_scheduled)
    }

    /// Keeps what is read above.
    fn trim(&mut self) {
        self.conditions
            .retain(|condition| condition.type_ == "Ready" || condition.is_not_scheduled());
        for condition in &mut self.conditions {
            condition.message = condition.first_sentence();
        }
        self.conditions.shrink_to_fit();
        self.container_statuses
            .retain(|status| status.state.waiting.is_some());
        self.container_statuses.shrink_to_fit();
    }
}

impl Condition {
    fn is_not_scheduled(&self) -> bool {
        self.type_ == "PodScheduled" && self.status == "False"
    }

    /// Of a scheduler's message, what it says of the nodes; nothing of other conditions.
    fn first_sentence(&self) -> Option<String> {
        let message = self
            .message
            .as_deref()
            .filter(|_| self.is_not_scheduled())?;
        let sentence = message.split(". ").next().unwrap_or_default();
        Some(sentence.chars().take(MAX_MESSAGE).collect())
    }
}

impl SlimPod {
    /// Whether the kubelet runs it from a file.
    pub(crate) fn is_mirror(&self) -> bool {
        self.metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| annotations.contains_key(MIRROR))
    }
}

/// Drops what a cached pod does not need.
pub(crate) fn trim_pod(pod: &mut SlimPod) {
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|key, _| key == MIRROR);
    }
    if let Some(owners) = &mut pod.metadata.owner_references {
        owners.retain(|owner| owner.controller == Some(true));
    }
    if pod.spec.node_name.is_some() || pod.spec.meant_for().is_none() {
        pod.spec.affinity = None;
    }
    pod.status.trim();
    trim(&mut pod.metadata);
}

/// Drops what a cached node does not need.
pub(crate) fn trim_node(node: &mut SlimNode) {
    node.metadata.labels = None;
    node.metadata.annotations = None;
    node.status.trim();
    trim(&mut node.metadata);
}

/// Drops what a cached namespace does not need.
pub(crate) fn trim_namespace(namespace: &mut SlimNamespace) {
    namespace.metadata.annotations = None;
    trim(&mut namespace.metadata);
}

fn trim(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.finalizers = None;
    metadata.generate_name = None;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(json: serde_json::Value) -> SlimPod {
        let mut pod: SlimPod = serde_json::from_value(json).unwrap();
        trim_pod(&mut pod);
        pod
    }

    #[test]
    fn an_agent_that_no_node_takes_says_for_which_node_it_is_and_why() {
        let fields = json!([{"key": "metadata.name", "operator": "In", "values": ["n2"]}]);
        let waiting = pod(json!({
            "metadata": {"name": "a"},
            "spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": fields}],
            }}}},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/2 nodes are available: 1 node(s) didn't have free ports. preemption: none"}]},
        }));
        assert_eq!(waiting.spec.node(), Some("n2"));
        assert_eq!(
            waiting.status.waits_for().as_deref(),
            Some("0/2 nodes are available: 1 node(s) didn't have free ports")
        );
    }

    #[test]
    fn nothing_of_an_affinity_is_kept_of_a_pod_that_runs_or_may_run_anywhere() {
        let preferred =
            json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}});
        let anywhere = pod(json!({"metadata": {"name": "a"}, "spec": {"affinity": preferred}}));
        assert!(anywhere.spec.affinity.is_none());
        assert_eq!(anywhere.spec.node(), None);
        let runs = pod(json!({
            "metadata": {"name": "a"}, "spec": {"nodeName": "n1", "affinity": preferred},
            "status": {"conditions": [{"type": "Ready", "status": "True", "message": "long"}]},
        }));
        assert_eq!(runs.spec.node(), Some("n1"));
        assert!(runs.status.is_ready() && runs.status.conditions[0].message.is_none());
    }
}
