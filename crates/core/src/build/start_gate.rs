//! The start gate: an init container that keeps a pod from starting before the agent of its node takes telemetry.
//!
//! It has the bundled agent's image even beside another `agent.image`, which may not know how to wait. Which pods get
//! it, and with which resources, is decided pod by pod (`crates/core/src/inject/gate.rs`).

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, ObjectFieldSelector,
    ResourceRequirements, Volume,
};

use super::agent_pod::{self, RenderInput, TOKENS};
use crate::inject::StartGate;
use crate::inject::environment::{HOST_IP, field};
use crate::names;
use otelagent_api::Mode;

/// The gate of a mode whose applications send to `endpoint`, if pods are to wait. A sidecar starts before its
/// application anyway.
pub(super) fn start_gate(mode: Mode, input: &RenderInput<'_>, endpoint: &str) -> Option<StartGate> {
    let agent = input.agent;
    let limit = agent.start_gate.filter(|_| mode.on_nodes())?;
    let user = agent.spec.agent.as_ref();
    let pull_policy = user.and_then(|user| user.image_pull_policy);
    let host = field(HOST_IP, "status.hostIP");
    let container = Container {
        name: names::START_GATE.into(),
        image: Some(input.environment.agent_image.clone()),
        image_pull_policy: pull_policy
            .filter(|_| agent.own_image().is_none())
            .map(agent_pod::pull_policy),
        args: Some(vec![
            "wait".into(),
            format!("{}s", limit.as_secs_f64()),
            endpoint.into(),
        ]),
        env: endpoint.contains(HOST_IP).then(|| vec![host]),
        resources: Some(ResourceRequirements {
            limits: Some([].into()),
            requests: Some([].into()),
            claims: None,
        }),
        security_context: Some(agent_pod::restricted(false)),
        volume_mounts: Some(vec![agent_pod::mount(names::START_GATE, TOKENS, true)]),
        ..Container::default()
    };
    Some(StartGate {
        container: serde_json::to_value(container).unwrap_or_default(),
        volume: serde_json::to_value(in_place_of_token()).unwrap_or_default(),
    })
}

/// The gate must not have the application's token, so it mounts something else there. An `emptyDir` would keep cluster
/// autoscalers from removing the node.
fn in_place_of_token() -> Volume {
    let file = DownwardAPIVolumeFile {
        path: "pod".into(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".into()),
            field_path: "metadata.name".into(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    Volume {
        name: names::START_GATE.into(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![file]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    }
}
