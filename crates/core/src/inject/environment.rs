//! The variables that every mode gives to applications; a mode supplies only its endpoint. Does not know
//! the modes.

use std::time::Duration;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One variable that is appended unless it is blocked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvRule {
    /// The variable's name.
    pub name: String,
    /// Its value; may refer to the recipe's first variables as `$(NAME)`.
    pub value: String,
    /// Names that block it if a container sets any of them. Contains at least `name`.
    pub unless: Vec<String>,
}

/// Address of the pod's node, for endpoints on the node.
pub const HOST_IP: &str = "OTELAGENT_HOST_IP";
/// Name of the pod's node.
pub const NODE_NAME: &str = "OTELAGENT_NODE_NAME";
/// Name of the pod, which may not exist yet when the pod is admitted (`generateName`).
pub const POD_NAME: &str = "OTELAGENT_POD_NAME";
/// Uid of the pod.
pub const POD_UID: &str = "OTELAGENT_POD_UID";

pub(super) const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
pub(super) const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// Endpoints of SDKs. If the user has set one of the last three, injection adds no general endpoint, which
/// would redirect only the other signals.
const ENDPOINTS: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
];

/// The protocol of SDKs. Those of one signal take precedence over it.
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// How long SDKs hold spans and log records, in milliseconds (OpenTelemetry's SDK environment variables).
const DELAYS: [&str; 2] = ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"];

/// The variables to which others refer as `$(NAME)`. A reference works only to an earlier variable
/// (`core/v1 EnvVar`), so they come first in every container.
pub fn first_variables(with_host_ip: bool) -> Vec<Value> {
    let host = with_host_ip.then(|| field(HOST_IP, "status.hostIP"));
    let others = [
        field(NODE_NAME, "spec.nodeName"),
        field(POD_NAME, "metadata.name"),
        field(POD_UID, "metadata.uid"),
    ];
    let all = host.into_iter().chain(others);
    all.map(|variable| serde_json::to_value(variable).unwrap_or_default())
        .collect()
}

/// The variables that tell an SDK where to send and how long to wait.
///
/// The SDK chooses the protocol: both ports of the bundled agent accept both, and an SDK that speaks HTTP appends
/// the signal's path to the endpoint. Of another image, the endpoint's port may accept `only_grpc`.
pub fn rules(endpoint: &str, flush: Duration, only_grpc: bool) -> Vec<EnvRule> {
    let protocol = only_grpc.then(|| EnvRule {
        name: PROTOCOL.into(),
        value: "grpc".into(),
        // An endpoint of the user's goes with a protocol of the user's.
        unless: [PROTOCOL]
            .iter()
            .chain(&ENDPOINTS)
            .map(|name| (*name).into())
            .collect(),
    });
    let endpoint = EnvRule {
        name: ENDPOINTS[0].into(),
        value: endpoint.into(),
        unless: ENDPOINTS.map(Into::into).to_vec(),
    };
    let delays = DELAYS.map(|name| EnvRule {
        name: name.into(),
        value: flush.as_millis().to_string(),
        unless: vec![name.into()],
    });
    let first = std::iter::once(endpoint).chain(protocol);
    first.chain(delays).collect()
}

/// A variable with the value of a field of the pod. It has the API version that the server would fill in, so
/// that both engines' results are equal.
pub(crate) fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".into()),
                field_path: path.into(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
