//! Partial objects: decodes only the relevant fields of the cluster's pods, nodes and namespaces.
//!
//! Whole objects would take memory that grows with the cluster. Decoding drops every field that is not named here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Affinity, Namespace, Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use otelagent_api::{Mode, Resource};

use crate::inject::outline::{PodAnnotations, PodSpec, or_default, outline};
use crate::names::{LABEL_AGENT, LABEL_MODE, LABEL_OWNER};
use crate::pods::Controller;
use crate::switching::NodeState;

/// Longest cached message, in characters.
const MAX_MESSAGE: usize = 200;

/// Of a container that runs while its startup probe has not passed.
pub const STARTING: &str = "starting";

/// Labels of one object.
pub type Labels = BTreeMap<String, String>;

/// A pod as decoded. Its metadata hold only what a watch needs: name, namespace and version.
#[allow(clippy::struct_excessive_bools)] // independent facts
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Pod, crates(kube_core = "otelagent_api::kube_core"))]
#[serde(from = "Parts")]
pub struct PartialPod {
    /// Its name, namespace and version.
    pub metadata: ObjectMeta,
    /// Its labels.
    pub labels: Labels,
    /// Its controller, if it has one.
    pub controller: Option<Controller>,
    /// The node on which it runs, or for which it was created.
    pub node: Option<String>,
    /// Whether it is scheduled on that node.
    pub placed: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it is a static pod, which cannot be injected or restarted.
    pub mirror: bool,
    /// Why it does not run, if known.
    pub waits_for: Option<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Where its agent answers.
    pub health: Option<HealthAddress>,
    /// What decides whether it can be injected.
    pub outline: String,
}

/// Where an agent, or the sidecar of a pod, answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthAddress {
    /// The pod's.
    pub ip: IpAddr,
    /// As its probe says; `None` if the probe is a command.
    pub port: Option<u16>,
}

/// A node as decoded.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Node, crates(kube_core = "otelagent_api::kube_core"))]
#[serde(from = "NodeParts")]
pub struct PartialNode {
    /// Its name and version.
    pub metadata: ObjectMeta,
    /// What decides whether it has an agent.
    pub state: NodeState,
}

/// A namespace as decoded.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Namespace, crates(kube_core = "otelagent_api::kube_core"))]
#[serde(from = "Parts")]
pub struct PartialNamespace {
    /// Its name and version.
    pub metadata: ObjectMeta,
    /// Its labels.
    pub labels: Labels,
}

/// The fields that are read of a pod or a namespace.
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
    creation_timestamp: Option<Time>,
    #[serde(deserialize_with = "or_default")]
    labels: Labels,
    #[serde(deserialize_with = "or_default")]
    annotations: PodAnnotations,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<OwnerReference>,
}

/// The fields that are read of a node.
#[derive(Deserialize)]
struct NodeParts {
    metadata: Metadata,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(deserialize_with = "or_default")]
    taints: Vec<Taint>,
}

/// Conditions of pods and nodes, and why a pod's containers wait.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<ConditionParts>,
    #[serde(deserialize_with = "or_default")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    /// False until its startup probe has passed.
    started: Option<bool>,
    #[serde(default)]
    state: ContainerState,
    #[serde(default)]
    last_state: ContainerState,
}

#[derive(Default, Deserialize)]
struct ContainerState {
    running: Option<IgnoredAny>,
    waiting: Option<Said>,
    terminated: Option<Said>,
}

#[derive(Deserialize)]
struct Said {
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct ConditionParts {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    message: Option<String>,
}

impl From<Parts> for PartialPod {
    fn from(parts: Parts) -> Self {
        let (mut metadata, mut spec, status) = (parts.metadata, parts.spec, parts.status);
        let (runs_on, affinity) = (spec.node_name.take(), spec.affinity.clone());
        let is_injected = metadata.labels.contains_key(LABEL_AGENT);
        let ip = status.pod_ip.as_ref();
        let ip = ip.filter(|_| has_agent(&metadata.labels, &spec));
        let health = ip.and_then(|ip| ip.parse().ok()).map(|ip| HealthAddress {
            ip,
            port: spec.health_port(),
        });
        Self {
            health,
            metadata: metadata.identity(),
            outline: outline(&metadata.annotations, spec, is_injected),
            labels: metadata.labels,
            controller: controller(metadata.owner_references),
            placed: runs_on.is_some(),
            node: runs_on.or_else(|| node_of(affinity?)),
            ready: status.is_ready(),
            terminating: metadata.deletion_timestamp.is_some(),
            mirror: metadata.annotations.is_mirror,
            waits_for: status.waits_for(),
            created: metadata.creation_timestamp.map(|Time(at)| at),
        }
    }
}

impl From<NodeParts> for PartialNode {
    fn from(mut parts: NodeParts) -> Self {
        Self {
            metadata: parts.metadata.identity(),
            state: NodeState {
                ready: parts.status.is_ready(),
                labels: parts.metadata.labels,
                taints: parts.spec.taints,
            },
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

/// Whether a pod is an agent or has one as its sidecar. A pod on the host network has none: whatever its labels say,
/// at its address other programs of the node answer.
fn has_agent(labels: &Labels, spec: &PodSpec) -> bool {
    let mode = labels.get(LABEL_MODE).and_then(|mode| Mode::parse(mode));
    let has_sidecar = labels.contains_key(LABEL_AGENT) && mode == Some(Mode::Sidecar);
    labels.contains_key(LABEL_OWNER) || has_sidecar && !spec.is_on_host_network()
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
        let mut statuses = self.container_statuses.iter();
        let waits = statuses.find_map(ContainerStatus::waits_for);
        let not_scheduled = || {
            self.conditions
                .iter()
                .find_map(ConditionParts::not_scheduled)
        };
        waits.or_else(not_scheduled)
    }
}

impl ContainerStatus {
    /// The reason, with its message, or with the last words of a container that ended.
    fn waits_for(&self) -> Option<String> {
        if self.state.running.is_some() && self.started == Some(false) {
            return Some(STARTING.to_owned());
        }
        let waiting = self.state.waiting.as_ref()?;
        let reason = waiting.reason.clone()?;
        // While a container restarts, its own end says more than how long the kubelet waits.
        let message = match &self.last_state.terminated {
            Some(ended) => ended.message.as_deref().and_then(last_words),
            None => waiting.message.clone(),
        };
        let message = message.filter(|message| !message.is_empty());
        Some(match message {
            Some(message) => {
                let message: String = message.chars().take(MAX_MESSAGE).collect();
                format!("{reason}: {message}")
            }
            None => reason,
        })
    }
}

/// What the last line of a container's log says: the bundled agent and a collector log JSON.
fn last_words(log: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(alias = "msg")]
        message: String,
    }
    let last = log.lines().rfind(|line| !line.trim().is_empty())?;
    let line = serde_json::from_str::<Line>(last);
    Some(line.map_or_else(|_| last.to_owned(), |line| line.message))
}

impl ConditionParts {
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
    fn agent_that_waits_says_why() {
        let waits = |status: serde_json::Value| {
            let status = json!({"containerStatuses": [status]});
            pod(json!({"metadata": {"name": "a"}, "status": status})).waits_for
        };
        let pulls = json!({"reason": "ErrImagePull", "message": "not found: nope:1"});
        assert_eq!(
            waits(json!({"state": {"waiting": pulls}})).as_deref(),
            Some("ErrImagePull: not found: nope:1")
        );
        let runs =
            |started: bool| json!({"started": started, "state": {"running": {"startedAt": null}}});
        assert_eq!(waits(runs(false)).as_deref(), Some(STARTING));
        assert_eq!(waits(runs(true)), None);
        let waiting = json!({"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"});
        let log =
            "{\"level\": \"INFO\", \"message\": \"starts\"}\n{\"message\": \"cannot listen\"}\n";
        for (log, said) in [
            (log, "CrashLoopBackOff: cannot listen"),
            ("a panic\n", "CrashLoopBackOff: a panic"),
            ("", "CrashLoopBackOff"),
        ] {
            let ended = json!({"reason": "Error", "exitCode": 1, "message": log});
            let status = json!({"state": {"waiting": waiting}, "lastState": {"terminated": ended}});
            assert_eq!(waits(status).as_deref(), Some(said));
        }
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
    fn agents_and_sidecars_have_the_address_that_the_kubelet_probes() {
        let probe = |port: u16| json!({"httpGet": {"path": "/", "port": port}});
        let agent = json!({"name": "otelagent", "readinessProbe": probe(13133)});
        let sidecar = json!({"name": "otelagent", "startupProbe": probe(23133)});
        let other = json!({"name": "app", "readinessProbe": {"httpGet": {"port": "http"}}});
        let execs = json!({"name": "otelagent", "readinessProbe": {"exec": {"command": ["x"]}}});
        let address = |labels: serde_json::Value,
                       init: &[&serde_json::Value],
                       containers: &[&serde_json::Value]| {
            let found = pod(json!({
                "metadata": {"name": "a", "labels": labels},
                "spec": {"initContainers": init, "containers": containers},
                "status": {"podIP": "10.0.0.7"},
            }));
            found
                .health
                .map(|health| (health.ip.to_string(), health.port))
        };
        let owner = json!({LABEL_OWNER: "x.one"});
        let injected = |mode: &str| json!({LABEL_AGENT: "x.one", LABEL_MODE: mode});
        let at = |port| Some(("10.0.0.7".to_owned(), port));
        assert_eq!(address(owner.clone(), &[], &[&agent]), at(Some(13133)));
        assert_eq!(address(owner, &[], &[&execs]), at(None));
        assert_eq!(
            address(injected("Sidecar"), &[&sidecar], &[&other]),
            at(Some(23133))
        );
        assert_eq!(address(injected("HostPort"), &[], &[&other]), None);
        assert_eq!(address(json!({}), &[], &[&other]), None);
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
