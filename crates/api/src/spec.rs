//! `OtelAgent.spec`: how telemetry leaves application pods for the first hop.
//!
//! Defaults that users rely on are in the schema; defaults for tuning are the controller's, since they may
//! improve. Every list, map and string is bounded, so that the rules have a known cost.

#![allow(unreachable_pub)] // the derive repeats the struct in a private module

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Affinity, Mode, OtelAgentStatus, Selector, StartGate, rules};

/// An `OtelAgent` puts an OpenTelemetry agent next to every selected application and gives the
/// application its endpoint.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "otelagent.dev",
    version = "v1alpha1",
    kind = "OtelAgent",
    plural = "otelagents",
    singular = "otelagent",
    shortname = "oa",
    namespaced,
    status = "OtelAgentStatus",
    derive = "PartialEq",
    doc = "OtelAgent puts an OpenTelemetry agent next to every selected application and gives the application its endpoint.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "The wanted mode"),
    printcolumn(name = "Serving", type_ = "string", json_path = ".status.mode", description = "The mode that new pods use"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether new pods reach an agent"),
    printcolumn(name = "Delivering", type_ = "string", json_path = ".status.conditions[?(@.type==\"Delivering\")].status", description = "Whether the upstream takes what agents send"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.injected", description = "Running pods that use this agent"),
    printcolumn(name = "Stale", type_ = "integer", json_path = ".status.pods.stale", description = "Running pods that use this agent with an older mode or configuration"),
    printcolumn(name = "Missed", type_ = "integer", json_path = ".status.pods.missed", description = "Running pods that should use this agent and do not"),
    printcolumn(name = "Uncovered", type_ = "integer", json_path = ".status.pods.uncovered", priority = 1, description = "Running pods on nodes without a ready agent of their mode"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1, description = "Where applications send telemetry"),
    printcolumn(name = "Upstream", type_ = "string", json_path = ".spec.export.endpoint", priority = 1, description = "Where the agent sends telemetry"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1, description = "Why new pods reach an agent or not"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name becomes the name of a Service: use at most 40 lower-case letters, digits and '-', starting with a letter"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.hostMetadata) || !self.hostMetadata || !has(self.nodeLocal) || self.nodeLocal.routing != 'Prefer'")
    .message("hostMetadata with nodeLocal.routing Prefer is refused: an agent of another node would stamp its own name on it; use routing Require, or hostMetadata false"))]
#[x_kube(validation = Rule::new("self.mode != 'HostPort' || !has(self.agent) || !has(self.agent.updateStrategy) || !has(self.agent.updateStrategy.maxSurge) || string(self.agent.updateStrategy.maxSurge) in ['0', '0%']")
    .message("agent.updateStrategy.maxSurge cannot be used with mode HostPort: two agents cannot use one host port, so the new one would stay Pending; use maxUnavailable"))]
#[x_kube(validation = Rule::new("self.mode != 'HostPort' || !has(self.agent) || !has(self.agent.updateStrategy) || !has(self.agent.updateStrategy.maxUnavailable) || !(string(self.agent.updateStrategy.maxUnavailable) in ['0', '0%'])")
    .message("agent.updateStrategy.maxUnavailable must be above zero with mode HostPort: the old agent must release the node's port before the new one can use it"))]
#[x_kube(validation = Rule::new("!has(self.ports) && !has(oldSelf.ports) || has(self.ports) && has(oldSelf.ports) && self.ports.grpc == oldSelf.ports.grpc && self.ports.http == oldSelf.ports.http")
    .message("ports.grpc and ports.http cannot change: running pods keep the address they were created with; create a second OtelAgent with the new ports and move the workloads to it"))]
pub struct OtelAgentSpec {
    /// Where the agent runs and how applications reach it: NodeLocal (a DaemonSet behind a node-local
    /// Service, the usual choice), Sidecar (a native sidecar in each pod), HostPort or HostNetwork (a
    /// DaemonSet reached by the node's address). May change at any time: running pods keep the mode they
    /// were created with until they are replaced.
    pub mode: Mode,
    /// Settings of mode NodeLocal.
    #[serde(default)]
    pub node_local: NodeLocal,
    /// Ports of the agent. In modes HostPort and HostNetwork they are ports of the nodes, which two OtelAgents
    /// cannot share.
    #[serde(default)]
    pub ports: Ports,
    /// Where and how the agent forwards telemetry.
    pub export: Export,
    /// How the agent merges small requests into large ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// How much telemetry the agent keeps while the upstream is unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<Buffer>,
    /// Resource attributes that the agent adds to telemetry that does not carry them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), schema_with = "attribute_map")]
    pub resource_attributes: BTreeMap<String, String>,
    /// Whether the agent adds host.name and k8s.node.name of its own node to telemetry that does not
    /// carry them. On servers from 1.35 on the bundled agent also adds the zone and the region of its node, by the labels
    /// topology.kubernetes.io/zone and topology.kubernetes.io/region of the node. Refused together with
    /// nodeLocal.routing Prefer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_metadata: Option<bool>,
    /// Which pods get this agent's endpoint. If absent: none; use status.endpoint to configure applications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Workloads>,
    /// What happens to the old agents and their endpoint after a change of mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Switchover>,
    /// The agent's image, resources and scheduling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// OpenTelemetry Collector configuration merged over the generated one: maps are merged, lists and
    /// scalars are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Settings of mode `NodeLocal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("default" = {}))]
pub struct NodeLocal {
    /// Require: only the agent of the pod's own node (internalTrafficPolicy Local). Prefer: that
    /// agent while it is ready, else another node's (trafficDistribution PreferSameNode; needs
    /// Kubernetes 1.34).
    #[serde(default)]
    pub routing: Routing,
}

/// How strictly a node-local Service keeps traffic on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Routing {
    /// Only the agent of the same node.
    #[default]
    Require,
    /// The agent of the same node if it is ready, else another.
    Prefer,
}

/// Ports of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("default" = {}, "x-kubernetes-validations" = [
    {"rule": "self.grpc != self.http", "message": "ports.grpc and ports.http must differ"},
    {"rule": "self.metrics != self.health && !(self.metrics in [self.grpc, self.http]) && !(self.health in [self.grpc, self.http])",
     "message": "ports.metrics and ports.health must differ from each other and from ports.grpc and ports.http"},
]))]
pub struct Ports {
    /// Port for OTLP/gRPC; the bundled agent also takes OTLP/HTTP there. SDKs use 4317 by default. Cannot be
    /// changed.
    #[schemars(range(min = 1024, max = 65535), extend("format" = "int32"))]
    pub grpc: u16,
    /// Port for OTLP/HTTP; the bundled agent also takes OTLP/gRPC there. SDKs use 4318 by default. Cannot be
    /// changed.
    #[schemars(range(min = 1024, max = 65535), extend("format" = "int32"))]
    pub http: u16,
    /// Port of the agent's metrics. In mode HostNetwork it is a port of the node: choose another one if the
    /// node uses 8888 otherwise.
    #[schemars(range(min = 1024, max = 65535), extend("format" = "int32"))]
    pub metrics: u16,
    /// Port of the agent's health endpoint. In mode HostNetwork it is a port of the node: choose another one
    /// if the node uses 13133 otherwise.
    #[schemars(range(min = 1024, max = 65535), extend("format" = "int32"))]
    pub health: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            grpc: 4317,
            http: 4318,
            metrics: 8888,
            health: 13133,
        }
    }
}

/// Where and how the agent forwards telemetry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.tls) || self.endpoint.startsWith('https://')",
     "message": "tls is set but the endpoint is not https://; write https:// or remove tls"},
]))]
pub struct Export {
    /// URL of the central collector or any OTLP endpoint, such as
    /// `http://otel-collector.observability.svc:4317`.
    #[schemars(length(max = 512), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^https?://[^/@\\\\s]+:[0-9]{1,5}(/[^\\\\s]*)?$')",
        "message": "must be a URL with scheme http or https, a host and a port, such as http://otel-collector.observability.svc:4317",
    }]))]
    pub endpoint: String,
    /// grpc: OTLP/gRPC. http: OTLP/HTTP with protobuf bodies.
    #[serde(default)]
    pub protocol: Protocol,
    /// Compression of requests to the upstream. With zstd, the bundled agent sends gzip to an upstream that does not
    /// take zstd; another agent.image does not.
    #[serde(default)]
    pub compression: Compression,
    /// How long one request may take before the agent retries it. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::duration")]
    pub timeout: Option<String>,
    /// Headers sent with every request to the upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<Header>,
    /// TLS to the upstream. Only with an https endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// OTLP transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OTLP/gRPC.
    #[default]
    Grpc,
    /// OTLP/HTTP with protobuf bodies.
    Http,
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// No compression.
    None,
    /// gzip, which every OTLP server accepts.
    Gzip,
    /// zstd: smaller and cheaper.
    #[default]
    Zstd,
}

/// One header, with its value here or in a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.value) != has(self.secretKeyRef)", "message": "a header needs exactly one of value and secretKeyRef"},
]))]
pub struct Header {
    /// The header's name.
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[a-z0-9!#$%&'*+.^_|~-]+$")
    )]
    pub name: String,
    /// The header's value, visible to everyone who can read this object. Use secretKeyRef for credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), extend("pattern" = PRINTABLE))]
    pub value: Option<String>,
    /// A key of a Secret in the namespace of the agent's pod. The kubelet mounts it; the operator never
    /// reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// One key of a Secret or `ConfigMap` in the namespace of the agent's pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// The object's name.
    #[schemars(schema_with = "rules::object_name")]
    pub name: String,
    /// The key in its data.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"), extend("x-kubernetes-validations" = [
        {"rule": "self != '.' && !self.startsWith('..')", "message": "a key is neither . nor starts with two dots"},
    ]))]
    pub key: String,
}

/// A Secret in the namespace of the agent's pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Name of a Secret of type kubernetes.io/tls.
    #[schemars(schema_with = "rules::object_name")]
    pub name: String,
}

/// TLS to the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// CA certificates trusted for the upstream's certificate. If absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map: Option<KeyRef>,
    /// Client certificate and key presented to the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret: Option<SecretRef>,
    /// The name expected in the upstream's certificate, if it differs from the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub server_name: Option<String>,
    /// Whether the agent accepts any certificate. Only for experiments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// How the agent merges small requests into large ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// How long telemetry may wait to be batched. Default: 200ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::duration")]
    pub flush_interval: Option<String>,
    /// Uncompressed bytes at which a batch is sent immediately. Default: 3Mi, since most gRPC servers
    /// refuse more than 4Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::size")]
    pub max_size: Option<String>,
}

/// How much telemetry the agent keeps while the upstream is unavailable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Buffer {
    /// Bytes of telemetry kept in memory. Default: 64Mi, in mode Sidecar 16Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::size")]
    pub memory: Option<String>,
    /// A queue on disk in addition. Acknowledged telemetry then survives a crash of the agent and a restart
    /// of its container; it is lost with the agent's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// A queue on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// Bytes that the queue may take, in equal parts for traces, metrics and logs.
    #[schemars(schema_with = "rules::disk_size")]
    pub size: String,
}

/// Which pods get this agent's endpoint, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workloads {
    /// Namespaces whose pods are selected; {} selects all. If absent: this object's namespace. Only for
    /// OtelAgents in platform namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Pods that are selected. If absent or {}: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// How long SDKs may hold spans and logs before they send them, unless the application sets it.
    /// Default: 500ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::duration")]
    pub flush_interval: Option<String>,
    /// For containers with envFrom, whose variables are unknown at admission and may set an endpoint, a
    /// service name or resource attributes. Keep: variables that envFrom may set are not added. Override:
    /// they are added and take precedence.
    #[serde(default)]
    pub env_from: EnvFrom,
    /// Ignore: a pod that cannot be injected is created unchanged, with a warning. Fail: it is refused.
    #[serde(default)]
    pub on_injection_failure: OnFailure,
    /// Whether new pods start only once the agent of their node takes telemetry, which matters on a node that has just
    /// joined. Modes on nodes only: a sidecar starts before its application anyway, so mode Sidecar ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_gate: Option<StartGate>,
    /// Never: the operator restarts nothing. Rolling: it restarts workloads with stale, missed or uncovered
    /// pods.
    #[serde(default)]
    pub restart: Restart,
    /// How many workloads are restarted at a time. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub max_concurrent_restarts: Option<u32>,
}

/// Whether to add variables that a container's `envFrom` may set, which are unknown at admission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EnvFrom {
    /// They are not added.
    #[default]
    Keep,
    /// They are added and take precedence, since `env` overrides `envFrom`.
    Override,
}

/// What happens to a pod that cannot be injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// It is created unchanged, with a warning.
    #[default]
    Ignore,
    /// It is refused.
    Fail,
}

/// Whether the operator restarts workloads with stale, missed or uncovered pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Restart {
    /// It only counts and names them.
    #[default]
    Never,
    /// It restarts them, a few at a time.
    Rolling,
}

/// What happens to the old agents and their endpoint after a change of mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Switchover {
    /// How long old agents are kept after the last pod that uses them has terminated. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::duration_or_zero")]
    pub hold_old: Option<String>,
    /// Nodes (count or percentage, rounded down) that may be without a ready agent when a mode starts to
    /// serve; the conditions still name them. Default: 0. For clusters that always have some such nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::nodes")]
    pub max_unready: Option<IntOrString>,
}

/// The agent's image, resources and scheduling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Image of the agent, such as an OpenTelemetry Collector. If absent: the bundled agent. Only for
    /// OtelAgents in platform namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub image: Option<String>,
    /// When the kubelet pulls the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets of this namespace with which the kubelet pulls the image of node agents. A sidecar's image is pulled
    /// with the Secrets that the application's pod, or its service account, names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<PullSecret>,
    /// Requests and limits of the agent's container. A sidecar's requests always equal its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels of the nodes on which node agents run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "rules::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Which nodes get an agent, beside nodeSelector. Affinity to pods is not offered: it would leave agents
    /// unscheduled on nodes that should have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Further labels of the node agents' pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "rules::pod_labels")]
    pub pod_labels: BTreeMap<String, String>,
    /// Further annotations of the node agents' pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "pod_annotations")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Taints that node agents tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Priority class of the node agents' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::object_name")]
    pub priority_class_name: Option<String>,
    /// How node agents are replaced after a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// A Secret in this object's namespace with credentials of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullSecret {
    /// Name of a Secret of type kubernetes.io/dockerconfigjson.
    #[schemars(schema_with = "rules::object_name")]
    pub name: String,
}

/// Requests and limits by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": rules::within_limit("cpu"), "message": "requests.cpu must not be above limits.cpu"},
    {"rule": rules::within_limit("memory"), "message": "requests.memory must not be above limits.memory"},
]))]
pub struct Resources {
    /// What the scheduler reserves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Amounts>,
    /// What the container may not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Amounts>,
}

/// Amounts of cpu and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Amounts {
    /// Processor time, such as 50m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = r"^([0-9]{1,9}m|[0-9]{1,6}(\.[0-9]{1,3})?)$"),
        length(max = 16)
    )]
    pub cpu: Option<String>,
    /// Memory, such as 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::size")]
    pub memory: Option<String>,
}

/// One toleration, as in a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.key) || has(self.operator) && self.operator == 'Exists'",
     "message": "a toleration without key needs operator Exists, which tolerates all taints"},
    {"rule": "!has(self.operator) || self.operator != 'Exists' || !has(self.value)",
     "message": "operator Exists takes no value"},
    {"rule": "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
     "message": "tolerationSeconds needs effect NoExecute"},
]))]
pub struct Toleration {
    /// The taint's key. If absent, with operator Exists: all taints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::label_key")]
    pub key: Option<String>,
    /// Exists or Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("enum" = ["Exists", "Equal"]))]
    pub operator: Option<String>,
    /// The taint's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::label_value")]
    pub value: Option<String>,
    /// The taint's effect. If absent: all effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("enum" = ["NoSchedule", "PreferNoSchedule", "NoExecute"]))]
    pub effect: Option<String>,
    /// Seconds for which a NoExecute taint is tolerated. If absent: without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How node agents are replaced after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.maxSurge) || !has(self.maxUnavailable) || (string(self.maxSurge) in ['0', '0%']) != (string(self.maxUnavailable) in ['0', '0%'])",
     "message": "exactly one of maxSurge and maxUnavailable must be above zero: during an update a node has either two agents or none"},
]))]
pub struct UpdateStrategy {
    /// Nodes (count or percentage) that may be without an agent during an update. Default: 1 in mode
    /// HostPort, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::nodes")]
    pub max_unavailable: Option<IntOrString>,
    /// Nodes (count or percentage) that may have two agents during an update. Default: 1; not possible in
    /// mode HostPort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::nodes")]
    pub max_surge: Option<IntOrString>,
}

/// No control characters: the API server parses what is applied as YAML, which forbids them (YAML 1.2, 5.1).
const PRINTABLE: &str = "^[^\\x{0000}-\\x{001f}\\x{007f}-\\x{009f}\\x{2028}\\x{2029}\\x{feff}]*$";

fn attribute_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 1024, "pattern": PRINTABLE},
        "x-kubernetes-validations": [{
            "rule": "self.all(key, key.size() > 0 && key.size() <= 256)",
            "message": "the name of a resource attribute has 1 to 256 characters",
        }],
    })
}

fn pod_annotations(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 4096, "pattern": PRINTABLE},
        "x-kubernetes-validations": [
            {
                "rule": "self.all(key, !format.qualifiedName().validate(key).hasValue())",
                "message": "must be annotations such as example.com/owner: platform",
            },
            {
                "rule": "self.all(key, !key.startsWith('otelagent.dev/'))",
                "message": "annotations of otelagent.dev are the operator's own; remove them",
            },
        ],
    })
}

fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
