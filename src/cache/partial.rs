//! Partial objects: decodes only the relevant fields of the cluster's pods, nodes and namespaces.
//!
//! A cache of whole objects would grow with the cluster. Decoding drops every field that is not named here;
//! [`pods`](super::pods) caches a part of the rest.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use otelagent_core::pods::Controller;

/// Longest cached message, in characters.
const MAX_MESSAGE: usize = 200;

/// Labels of one object.
pub(crate) type Labels = BTreeMap<String, String>;

/// A pod as decoded. Its metadata hold only what a watch needs: name, namespace and version.
#[allow(clippy::struct_excessive_bools)] // independent facts
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Pod)]
#[serde(from = "Parts")]
pub(crate) struct PartialPod {
    pub(crate) metadata: ObjectMeta,
    pub(crate) labels: Labels,
    pub(crate) controller: Option<Controller>,
    /// The node on which it runs, or for which it was created.
    pub(crate) node: Option<String>,
    /// Whether it is scheduled on that node.
    pub(crate) placed: bool,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    /// Whether it is a static pod, which cannot be injected or restarted.
    pub(crate) mirror: bool,
    /// Why it does not run, if known.
    pub(crate) waits_for: Option<String>,
}

/// A node as decoded.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Node)]
#[serde(from = "Parts")]
pub(crate) struct PartialNode {
    pub(crate) metadata: ObjectMeta,
    pub(crate) ready: bool,
}

/// A namespace as decoded.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Namespace)]
#[serde(from = "Parts")]
pub(crate) struct PartialNamespace {
    pub(crate) metadata: ObjectMeta,
    pub(crate) labels: Labels,
}

/// The fields that are read of any of these kinds.
#[derive(Deserialize)]
struct Parts {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    labels: Labels,
    #[serde(deserialize_with = "or_default")]
    annotations: Annotations,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<OwnerReference>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    affinity: Option<Affinity>,
}

/// Conditions of pods and nodes, and why a pod's containers wait.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Condition>,
    #[serde(deserialize_with = "or_default")]
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    #[serde(default)]
    state: ContainerState,
}

#[derive(Default, Deserialize)]
struct ContainerState {
    waiting: Option<Waiting>,
}

#[derive(Deserialize)]
struct Waiting {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    message: Option<String>,
}

/// Treats `null` as absent, as the server does.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl From<Parts> for PartialPod {
    fn from(parts: Parts) -> Self {
        let (mut metadata, spec, status) = (parts.metadata, parts.spec, parts.status);
        let meant_for = || node_of(spec.affinity?);
        Self {
            metadata: metadata.identity(),
            labels: metadata.labels,
            controller: controller(metadata.owner_references),
            placed: spec.node_name.is_some(),
            node: spec.node_name.or_else(meant_for),
            ready: status.is_ready(),
            terminating: metadata.deletion_timestamp.is_some(),
            mirror: metadata.annotations.mirror.is_some(),
            waits_for: status.waits_for(),
        }
    }
}

impl From<Parts> for PartialNode {
    fn from(mut parts: Parts) -> Self {
        Self {
            metadata: parts.metadata.identity(),
            ready: parts.status.is_ready(),
        }
    }
}

impl From<Parts> for PartialNamespace {
    fn from(mut parts: Parts) -> Self {
        Self {
            metadata: parts.metadata.identity(),
            labels: parts.metadata.labels,
        }
    }
}

impl Metadata {
    /// The metadata that a watch needs.
    fn identity(&mut self) -> ObjectMeta {
        ObjectMeta {
            name: self.name.take(),
            namespace: self.namespace.take(),
            resource_version: self.resource_version.take(),
            ..ObjectMeta::default()
        }
    }
}

fn controller(owners: Vec<OwnerReference>) -> Option<Controller> {
    let mut owners = owners.into_iter();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(Controller {
        api_version: owner.api_version,
        kind: owner.kind,
        name: owner.name,
    })
}

/// The node for which the `DaemonSet` controller created a pod, from the pod's node affinity.
fn node_of(affinity: Affinity) -> Option<String> {
    let required = affinity
        .node_affinity?
        .required_during_scheduling_ignored_during_execution?;
    let terms = required.node_selector_terms.into_iter();
    let mut fields = terms.filter_map(|term| term.match_fields).flatten();
    let name = fields.find(|field| field.key == "metadata.name")?;
    name.values?.into_iter().next()
}

impl Status {
    /// Whether condition `Ready` is true.
    fn is_ready(&self) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }

    /// Why the first waiting container waits, such as `ImagePullBackOff`, or why no node takes the pod.
    fn waits_for(&self) -> Option<String> {
        let waits = self
            .container_statuses
            .iter()
            .find_map(|status| status.state.waiting.as_ref()?.reason.clone());
        let not_scheduled = || self.conditions.iter().find_map(Condition::not_scheduled);
        waits.or_else(not_scheduled)
    }
}

impl Condition {
    /// The part of a scheduler's message about the nodes.
    fn not_scheduled(&self) -> Option<String> {
        if self.type_ != "PodScheduled" || self.status != "False" {
            return None;
        }
        let sentence = self.message.as_deref()?.split(". ").next()?;
        Some(sentence.chars().take(MAX_MESSAGE).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(json: serde_json::Value) -> PartialPod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn agent_that_no_node_takes_says_for_which_node_it_is_and_why() {
        let fields = json!([{"key": "metadata.name", "operator": "In", "values": ["n2"]}]);
        let waiting = pod(json!({
            "metadata": {"name": "a"},
            "spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": fields}],
            }}}},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/2 nodes are available: 1 node(s) didn't have free ports. preemption: none"}]},
        }));
        assert_eq!(
            (waiting.node.as_deref(), waiting.placed),
            (Some("n2"), false)
        );
        assert_eq!(
            waiting.waits_for.as_deref(),
            Some("0/2 nodes are available: 1 node(s) didn't have free ports")
        );
    }

    #[test]
    fn affinity_says_nothing_of_a_pod_that_runs_or_may_run_anywhere() {
        let preferred =
            json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}});
        let anywhere = pod(json!({"metadata": {"name": "a"}, "spec": {"affinity": preferred}}));
        assert_eq!((anywhere.node, anywhere.placed), (None, false));
        let runs = pod(json!({
            "metadata": {"name": "a"}, "spec": {"nodeName": "n1", "affinity": preferred},
            "status": {"conditions": [{"type": "Ready", "status": "True", "message": "long"}]},
        }));
        assert_eq!((runs.node.as_deref(), runs.placed), (Some("n1"), true));
        assert!(runs.ready && runs.waits_for.is_none());
    }

    #[test]
    fn of_metadata_the_marks_are_read_and_the_rest_is_left_where_it_is() {
        let read = pod(json!({
            "metadata": {
                "name": "a", "namespace": "shop", "resourceVersion": "7", "uid": "u", "labels": null,
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"kubernetes.io/config.mirror": "x", "other": "y"},
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true},
                ],
            },
            "status": {"conditions": null, "containerStatuses": null},
        }));
        assert!(read.mirror && read.terminating && read.labels.is_empty() && !read.ready);
        let identity = json!({"name": "a", "namespace": "shop", "resourceVersion": "7"});
        assert_eq!(json!(read.metadata), identity);
        assert_eq!(
            read.controller.map(|controller| controller.kind),
            Some("ReplicaSet".into())
        );
    }
}
