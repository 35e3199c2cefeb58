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

    /// Why the first waiting container waits, such as `ImagePullBackOff`.
    pub(crate) fn waits_for(&self) -> Option<String> {
        self.container_statuses
            .iter()
            .find_map(|status| status.state.waiting.as_ref()?.reason.clone())
    }

    /// Keeps what is read above.
    fn trim(&mut self) {
        self.conditions
            .retain(|condition| condition.type_ == "Ready");
        self.conditions.shrink_to_fit();
        self.container_statuses
            .retain(|status| status.state.waiting.is_some());
        self.container_statuses.shrink_to_fit();
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
