//! `OtelAgent.spec`: how telemetry leaves application pods for the first hop (design §3).
//!
//! Defaults that users build on stand in the schema; tuning defaults are the controller's, since they
//! may improve. Every list, map and string is bounded, so the rules have a known cost.

#![allow(unreachable_pub)] // the derive repeats the struct in a private place

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mode, OtelAgentStatus, Selector, rules};

/// An `OtelAgent` puts an OpenTelemetry agent next to every selected application and tells the
/// application where it is.
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
    doc = "OtelAgent puts an OpenTelemetry agent next to every selected application and tells the application where it is.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "The mode asked for"),
    printcolumn(name = "Serving", type_ = "string", json_path = ".status.mode", description = "The mode new pods are given now"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether a pod created now would be served"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.injected", description = "Live pods that use this agent"),
    printcolumn(name = "Stale", type_ = "integer", json_path = ".status.pods.stale", description = "Of these, pods with an older mode or configuration"),
    printcolumn(name = "Missed", type_ = "integer", json_path = ".status.pods.missed", description = "Live pods that should use this agent and do not"),
    printcolumn(name = "Uncovered", type_ = "integer", json_path = ".status.pods.uncovered", priority = 1, description = "Live pods on nodes where no agent of their mode is ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1, description = "Where applications send telemetry"),
    printcolumn(name = "Upstream", type_ = "string", json_path = ".spec.export.endpoint", priority = 1, description = "Where the agent sends telemetry"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1, description = "Why it is ready or not"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name becomes the name of a Service: use at most 40 lower-case letters, digits and '-', starting with a letter"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.hostMetadata) || !self.hostMetadata || !has(self.nodeLocal) || self.nodeLocal.routing != 'Prefer'")
    .message("hostMetadata with nodeLocal.routing Prefer is refused: telemetry may pass through an agent of another node, which would stamp its own name on it; use routing Require, or hostMetadata false"))]
#[x_kube(validation = Rule::new("self.mode != 'HostPort' || !has(self.agent) || !has(self.agent.updateStrategy) || !has(self.agent.updateStrategy.maxSurge) || string(self.agent.updateStrategy.maxSurge) in ['0', '0%']")
    .message("agent.updateStrategy.maxSurge cannot be used with mode HostPort: two agents cannot hold one host port, so the new one would stay Pending; use maxUnavailable"))]
#[x_kube(validation = Rule::new("self.mode != 'HostPort' || !has(self.agent) || !has(self.agent.updateStrategy) || !has(self.agent.updateStrategy.maxUnavailable) || !(string(self.agent.updateStrategy.maxUnavailable) in ['0', '0%'])")
    .message("agent.updateStrategy.maxUnavailable must be above zero with mode HostPort: the old agent goes before the new one can have the node's port"))]
#[x_kube(validation = Rule::new("!has(self.ports) && !has(oldSelf.ports) || has(self.ports) && has(oldSelf.ports) && self.ports == oldSelf.ports")
    .message("ports cannot change: running pods keep the address they were born with; create a second OtelAgent with the new ports and move the workloads to it"))]
pub struct OtelAgentSpec {
    /// Where the agent runs and how applications reach it: NodeLocal (a DaemonSet behind a node-local
    /// Service, the usual choice), Sidecar (a native sidecar in each pod), HostPort or HostNetwork (a
    /// DaemonSet reached by the node's address). May be changed at any time: pods that run keep the
    /// path they were born with until they are replaced.
    pub mode: Mode,
    /// Settings of mode NodeLocal.
    #[serde(default)]
    pub node_local: NodeLocal,
    /// Ports on which applications reach the agent. Both take both protocols. Cannot change later.
    #[serde(default)]
    pub ports: Ports,
    /// Where and how the agent forwards telemetry.
    pub export: Export,
    /// How small requests are merged into large ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// What is kept while the upstream is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<Buffer>,
    /// Resource attributes added to all telemetry that does not carry them already.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), schema_with = "attribute_map")]
    pub resource_attributes: BTreeMap<String, String>,
    /// Whether the agent adds host.name and k8s.node.name of its own node to telemetry that does not
    /// carry them. Refused together with nodeLocal.routing Prefer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_metadata: Option<bool>,
    /// Which pods are told to use this agent. Absent: none; the endpoint is in status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Workloads>,
    /// What happens to the old path after a change of mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Switchover>,
    /// The agent's image, size and placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// OpenTelemetry Collector configuration laid over the generated one: maps are merged, lists and
    /// scalars replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Settings of mode `NodeLocal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("default" = {}))]
pub struct NodeLocal {
    /// Require: only the agent of the pod's own node (internalTrafficPolicy Local). Prefer: that
    /// agent while it is ready, else another node's (trafficDistribution PreferSameNode, servers
    /// from 1.34).
    #[serde(default)]
    pub routing: Routing,
}

/// How strictly a node-local Service stays on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Routing {
    /// Only the agent of the same node.
    #[default]
    Require,
    /// The agent of the same node if there is one, else another.
    Prefer,
}

/// Ports on which applications reach the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("default" = {}, "x-kubernetes-validations" = [
    {"rule": "self.grpc != self.http", "message": "ports.grpc and ports.http must differ"},
    {"rule": "!(self.grpc in [8888, 13133]) && !(self.http in [8888, 13133])",
     "message": "ports 8888 and 13133 are the agent's own (metrics and health); choose others"},
]))]
pub struct Ports {
    /// The port SDKs use for OTLP/gRPC by default.
    #[serde(default = "default_grpc")]
    #[schemars(range(min = 1024, max = 65535), extend("format" = "int32"))]
    pub grpc: u16,
    /// The port SDKs use for OTLP/HTTP by default.
    #[serde(default = "default_http")]
    #[schemars(range(min = 1024, max = 65535), extend("format" = "int32"))]
    pub http: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            grpc: default_grpc(),
            http: default_http(),
        }
    }
}

fn default_grpc() -> u16 {
    4317
}

fn default_http() -> u16 {
    4318
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
    /// OTLP over gRPC or over HTTP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Compression of what is sent upstream.
    #[serde(default)]
    pub compression: Compression,
    /// How long one request may take before it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::duration")]
    pub timeout: Option<String>,
    /// Headers sent with every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<Header>,
    /// TLS towards the upstream; only with an https endpoint.
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
    /// Plain bytes.
    None,
    /// gzip, which every OTLP server takes.
    #[default]
    Gzip,
    /// zstd: smaller and cheaper, but the upstream must support it.
    Zstd,
}

/// One header, with its value here or in a Secret of the agent's namespace.
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
    /// The header's value, visible to everyone who may read this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), extend("pattern" = PRINTABLE))]
    pub value: Option<String>,
    /// A key of a Secret. The kubelet mounts it; the operator never reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// One key of a Secret or `ConfigMap` in the agent's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// The object's name.
    #[schemars(schema_with = "rules::object_name")]
    pub name: String,
    /// The key in its data.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"), extend("x-kubernetes-validations" = [
        {"rule": "self != '.' && !self.startsWith('..')", "message": "a key is neither . nor does it start with two dots"},
    ]))]
    pub key: String,
}

/// A Secret of the agent's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// The Secret's name; of type kubernetes.io/tls.
    #[schemars(schema_with = "rules::object_name")]
    pub name: String,
}

/// TLS towards the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Certificate authorities that may have signed the upstream's certificate. Absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map: Option<KeyRef>,
    /// Certificate and key shown to the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret: Option<SecretRef>,
    /// The name expected in the upstream's certificate, where it differs from the endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub server_name: Option<String>,
    /// Whether any certificate is accepted. Only for experiments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// How small requests are merged into large ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// How long telemetry may wait for company. 200ms where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::duration")]
    pub flush_interval: Option<String>,
    /// Bytes (uncompressed) at which a batch is sent at once. 3Mi where absent: most gRPC servers
    /// refuse more than 4Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::size")]
    pub max_size: Option<String>,
}

/// What is kept while the upstream is away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Buffer {
    /// Bytes of telemetry kept in memory. 64Mi where absent, in mode Sidecar 16Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::size")]
    pub memory: Option<String>,
    /// A queue on disk beside the memory. Acknowledged telemetry then survives a crash of the agent and a
    /// restart of its container; it goes with the agent's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// A queue on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// Bytes it may take, in equal parts for traces, metrics and logs.
    #[schemars(schema_with = "rules::disk_size")]
    pub size: String,
}

/// Which pods are told to use this agent, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workloads {
    /// Namespaces whose pods are selected; {} is all. Absent: this object's own namespace. Only for
    /// OtelAgents of platform namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Pods that are selected; absent or {} is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// How long SDKs hold spans and logs before they hand them over, where the application does not
    /// say. 500ms where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::duration")]
    pub flush_interval: Option<String>,
    /// What is done where a container takes variables with envFrom, which may carry an endpoint, a name of
    /// the service or resource attributes of its own. Keep: what it may carry is not added. Override: it is
    /// added, and wins.
    #[serde(default)]
    pub env_from: EnvFrom,
    /// Ignore: a pod that cannot be injected is created as it is, with a warning. Fail: it is refused.
    #[serde(default)]
    pub on_injection_failure: OnFailure,
    /// Never: pods are left alone. Rolling: workloads with stale or missed pods are restarted.
    #[serde(default)]
    pub restart: Restart,
    /// How many workloads are restarted at a time. 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub max_concurrent_restarts: Option<u32>,
}

/// What is done with variables that a container's `envFrom` may carry, which nobody can read at admission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EnvFrom {
    /// They are not added.
    #[default]
    Keep,
    /// They are added and win, since `env` beats `envFrom`.
    Override,
}

/// What happens to a pod that cannot be injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// It is created as it is, with a warning.
    #[default]
    Ignore,
    /// It is refused.
    Fail,
}

/// Whether workloads that run stale or missed pods are restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Restart {
    /// They are only counted and named.
    #[default]
    Never,
    /// They are rolled, a few at a time.
    Rolling,
}

/// What happens to the old path after a change of mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Switchover {
    /// How long a path stays after its last user is gone. 1m where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::duration_or_zero")]
    pub hold_old: Option<String>,
    /// Nodes (count or percent, rounded down) that may be without a ready agent when a new path is taken
    /// into use; status names them all the same. 0 where absent. For clusters in which some always are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::nodes")]
    pub max_unready: Option<IntOrString>,
}

/// The agent's image, size and placement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Image of the agent, such as an OpenTelemetry Collector's. Absent: the bundled agent. Only for
    /// OtelAgents of platform namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub image: Option<String>,
    /// When the image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Requests and limits of the agent's container. A sidecar's requests are always its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels of the nodes on which the agent runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "rules::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints the agent tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Priority class of the agent's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::object_name")]
    pub priority_class_name: Option<String>,
    /// How the agents of the nodes are replaced after a change.
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

/// Requests and limits by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": rules::within_limit("cpu"), "message": "requests.cpu must not be above limits.cpu"},
    {"rule": rules::within_limit("memory"), "message": "requests.memory must not be above limits.memory"},
]))]
pub struct Resources {
    /// What is reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Amounts>,
    /// What is not exceeded.
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
    /// The taint's key; absent with operator Exists tolerates all.
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
    /// The taint's effect; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("enum" = ["NoSchedule", "PreferNoSchedule", "NoExecute"]))]
    pub effect: Option<String>,
    /// Seconds for which a NoExecute taint is tolerated; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How the agents of the nodes are replaced after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.maxSurge) || !has(self.maxUnavailable) || (string(self.maxSurge) in ['0', '0%']) != (string(self.maxUnavailable) in ['0', '0%'])",
     "message": "exactly one of maxSurge and maxUnavailable must be above zero: a node's agent is either doubled or away while it is replaced"},
]))]
pub struct UpdateStrategy {
    /// Nodes (count or percent) that may be without their agent. HostPort: 1; else 0 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::nodes")]
    pub max_unavailable: Option<IntOrString>,
    /// Nodes (count or percent) that may have two agents. HostPort: not possible; else 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::nodes")]
    pub max_surge: Option<IntOrString>,
}

/// No control characters: the API server reads what is applied as YAML, which refuses them (YAML 1.2
/// §5.1), and nobody means them.
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

fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
