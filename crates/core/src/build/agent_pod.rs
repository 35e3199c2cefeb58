//! The agent's container and pod, which every mode builds on.
//!
//! Restricted Pod Security throughout: no token, no shell, a read-only root. No liveness probe: a restart
//! would lose the telemetry that an agent holds in memory.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, DownwardAPIVolumeFile,
    DownwardAPIVolumeSource, EmptyDirVolumeSource, EnvVar, ExecAction, HTTPGetAction, KeyToPath,
    ObjectFieldSelector, PodSecurityContext, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::agent_config::{self, DIRECTORY, FILE, MOUNTS, QUEUE, TOPOLOGY};
use super::environment::Environment;
use super::valid_agent::{AgentConfiguration, Placement, ValidAgent};
use crate::inject::environment::{HOST_IP, NODE_NAME, POD_NAME, POD_UID, field};
use crate::names;
use crate::quantity::{self, MIB};
use otelagent_api::{Amounts, Header, PullPolicy};

/// The minor version from which on servers give the topology labels of nodes to their pods.
const TOPOLOGY_LABELS: u32 = 35;

/// Default CPU request in thousandths of a processor.
const DEFAULT_CPU: u64 = 50;

/// Where tokens are mounted (`DefaultAPITokenMountPath` of the service account admission plugin). The API server
/// mounts the application's service account token into every container without a mount at this path, injected ones
/// included.
pub(super) const TOKENS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What an agent's pod or sidecar is rendered from.
#[derive(Clone, Copy)]
pub(crate) struct RenderInput<'a> {
    /// The `OtelAgent`.
    pub(super) agent: &'a ValidAgent,
    /// The installation.
    pub(super) environment: &'a Environment,
    /// The agent's configuration where the mode places it.
    pub(super) configuration: &'a AgentConfiguration,
}

/// The agent's container, without probes and ports, which differ by mode.
pub(super) fn container(input: &RenderInput<'_>) -> Container {
    let agent = input.agent;
    let user = agent.spec.agent.clone().unwrap_or_default();
    let mut mounts = vec![mount(names::CONFIG_VOLUME, DIRECTORY, true)];
    mounts.extend(mounted(agent).iter().map(|Volume { name, .. }| {
        // Its folder is named without the common prefix.
        let folder = name.trim_start_matches("otelagent-");
        mount(name, &format!("{MOUNTS}/{folder}"), true)
    }));
    if agent.disk_bytes.is_some() {
        mounts.push(mount(QUEUE_VOLUME, QUEUE, false));
    }
    let mut env = vec![
        field(NODE_NAME, "spec.nodeName"),
        field(HOST_IP, "status.hostIP"),
        field(POD_NAME, "metadata.name"),
        field(POD_UID, "metadata.uid"),
    ];
    let has_topology = input.environment.server.is_at_least(TOPOLOGY_LABELS);
    if agent.spec.host_metadata == Some(true) && agent.own_image().is_none() && has_topology {
        let label = |label: &str| format!("metadata.labels['{label}']");
        env.extend(TOPOLOGY.map(|place| field(place.variable, &label(place.label))));
    }
    Container {
        name: names::CONTAINER.into(),
        image: Some(agent.image(input.environment).into()),
        image_pull_policy: user.image_pull_policy.map(pull_policy),
        args: Some(vec!["--config".into(), format!("{DIRECTORY}/{FILE}")]),
        env: Some(env),
        resources: Some(resources(agent, input.configuration.placement)),
        security_context: Some(restricted(user.image.is_some())),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

const QUEUE_VOLUME: &str = "otelagent-queue";

/// Volumes of the agent's container beside the one with its configuration.
pub(super) fn volumes(input: &RenderInput<'_>) -> Vec<Volume> {
    let mut volumes = mounted(input.agent);
    volumes.extend(queue_volume(input));
    volumes
}

/// The configuration of a sidecar: an annotation of its pod.
pub(super) fn sidecar_configuration() -> Volume {
    Volume {
        name: names::CONFIG_VOLUME.into(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![DownwardAPIVolumeFile {
                path: FILE.into(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".into()),
                    field_path: format!("metadata.annotations['{}']", names::ANNOTATION_CONFIG),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The configuration of an agent on a node that was made from this template: of a `ConfigMap`, mounted as a directory,
/// since the kubelet does not update single files.
pub(super) fn node_configuration(config_map: String, template: &str) -> Volume {
    Volume {
        name: names::CONFIG_VOLUME.into(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map,
            items: Some(vec![KeyToPath {
                key: names::configuration_key(template),
                path: FILE.into(),
                mode: None,
            }]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The queue on disk: in every mode an `emptyDir`, which lives as long as the pod. It is writable for every
/// user, so the agent needs no group of its own, which a sidecar could not have. A `hostPath` would outlive
/// the pod, but only root could make it writable, only privileged namespaces may mount it, and uninstalling
/// would leave telemetry on every node.
fn queue_volume(input: &RenderInput<'_>) -> Option<Volume> {
    Some(Volume {
        name: QUEUE_VOLUME.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(quantity::memory(volume_bytes(input)?)),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    })
}

/// Bytes at which the kubelet evicts the pod, and the queue with it: more than the queues ever take. They
/// have a limit of their own, and a few small files beside.
fn volume_bytes(input: &RenderInput<'_>) -> Option<u64> {
    let asked = input.agent.disk_bytes?;
    let queues = input.configuration.disk_queues;
    let beside = queues.count.saturating_mul(MIB);
    Some(queues.bytes.max(asked).saturating_add(beside))
}

/// Bytes of a container's logs, which count as its ephemeral storage: five files of 10 MiB, as kubelets keep by
/// default, and the one being rotated.
const LOGS: u64 = 64 * MIB;

/// The limit of ephemeral storage for a sidecar beside containers that have one.
pub(super) fn storage_limit(input: &RenderInput<'_>) -> Option<Quantity> {
    Some(quantity::memory(volume_bytes(input)?.saturating_add(LOGS)))
}

/// The annotation by which the cluster autoscaler may remove a node despite the volume of a sidecar's queue.
pub(super) fn evictable_volumes(input: &RenderInput<'_>) -> BTreeMap<String, String> {
    let queue = input.agent.disk_bytes.map(|_| QUEUE_VOLUME.to_owned());
    queue
        .map(|queue| (names::ANNOTATION_LOCAL_VOLUMES.to_owned(), queue))
        .into_iter()
        .collect()
}

/// Annotations of the pod that runs the agent: the configuration, or what of it replaces the pod when it changes.
pub(super) fn annotations(configuration: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(
        names::ANNOTATION_CONFIG.to_owned(),
        configuration.to_owned(),
    )])
}

/// The two ports applications use, with the node's port where the mode claims one.
pub(super) fn ports(agent: &ValidAgent, on_host: bool) -> Vec<ContainerPort> {
    let port = |name: &str, number: u16, on_host: bool| ContainerPort {
        name: Some(name.into()),
        container_port: number.into(),
        host_port: on_host.then(|| number.into()),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    vec![
        port("otlp-grpc", agent.spec.ports.grpc, on_host),
        port("otlp-http", agent.spec.ports.http, on_host),
        port("metrics", agent.spec.ports.metrics, false),
    ]
}

/// Probes the agent's health endpoint at the pod's address.
pub(super) fn health_probe(
    agent: &ValidAgent,
    period_seconds: i32,
    failure_threshold: i32,
) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/".into()),
            port: IntOrString::Int(agent.spec.ports.health.into()),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

/// Asks the bundled agent by its own program, at its health socket or at an address.
pub(super) fn asks_itself(address: Option<String>) -> ExecAction {
    let program = ["/otelagent-agent", "ready"].map(str::to_owned);
    ExecAction {
        command: Some(program.into_iter().chain(address).collect()),
    }
}

/// A variable with a literal value.
pub(super) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.into()),
        ..EnvVar::default()
    }
}

/// A read-only or writable mount.
pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// Secrets and `ConfigMap`s the configuration names. Mounted by the kubelet; the operator never reads them. The
/// bundled agent starts without them, so a missing one does not keep an application from starting; another image
/// waits for them.
fn mounted(agent: &ValidAgent) -> Vec<Volume> {
    let export = &agent.spec.export;
    let optional = agent.own_image().is_none().then_some(true);
    let item = |key: &str| {
        Some(vec![KeyToPath {
            key: key.into(),
            path: key.into(),
            mode: None,
        }])
    };
    let secret = |name: String, secret: &str, items| Volume {
        name,
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            items,
            optional,
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    let header = |(index, header): (usize, &Header)| {
        let key = header.secret_key_ref.as_ref()?;
        let name = format!("otelagent-header-{index}");
        Some(secret(name, &key.name, item(&key.key)))
    };
    let headers = export.headers.iter().enumerate().filter_map(header);
    let tls = export.tls.clone().unwrap_or_default();
    let ca = tls.ca_config_map.map(|ca| Volume {
        name: "otelagent-ca".into(),
        config_map: Some(ConfigMapVolumeSource {
            name: ca.name,
            items: item(&ca.key),
            optional,
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    });
    let client = tls.client_certificate_secret;
    let client = client.map(|client| secret("otelagent-client".into(), &client.name, None));
    headers.chain(ca).chain(client).collect()
}

/// Requests and limits: the user's, else what the buffer needs. A sidecar's requests are its limits,
/// so that it does not change its pod's quality of service (KEP-753).
fn resources(agent: &ValidAgent, placement: Placement) -> ResourceRequirements {
    let user = agent.spec.agent.clone().unwrap_or_default();
    let user = user.resources.unwrap_or_default();
    let parsed = |amounts: Option<Amounts>| {
        let Amounts { cpu, memory } = amounts.unwrap_or_default();
        (
            cpu.as_deref().and_then(quantity::millicores),
            memory.as_deref().and_then(quantity::bytes),
        )
    };
    let amounts = |cpu: Option<u64>, memory: u64| {
        let cpu = cpu.map(|cpu| ("cpu".to_owned(), quantity::cpu(cpu)));
        let memory = ("memory".to_owned(), quantity::memory(memory));
        let both: BTreeMap<String, Quantity> = cpu.into_iter().chain([memory]).collect();
        Some(both)
    };
    let needed = agent_config::container_memory(agent, placement);
    let (least_cpu, least_memory) = parsed(user.requests);
    let (most_cpu, most_memory) = parsed(user.limits);
    let (requests, limits) = if placement == Placement::Sidecar {
        let cpu = most_cpu.or(least_cpu).unwrap_or(DEFAULT_CPU);
        let memory = most_memory.or(least_memory).unwrap_or(needed);
        let both = amounts(Some(cpu), memory);
        (both.clone(), both)
    } else {
        // If only one of the two is set, the other must not contradict it.
        let limit = most_memory.unwrap_or_else(|| needed.max(least_memory.unwrap_or_default()));
        let cpu = DEFAULT_CPU.min(most_cpu.unwrap_or(DEFAULT_CPU));
        let memory = least_memory.unwrap_or(limit.min(needed));
        (
            amounts(least_cpu.or(Some(cpu)), memory),
            amounts(most_cpu, limit),
        )
    };
    // No ephemeral storage is requested: in a sidecar it would restrict where an application can run, and
    // nodes that do not report their disk would accept no such pod.
    ResourceRequirements {
        requests,
        limits,
        claims: None,
    }
}

pub(super) fn pull_policy(policy: PullPolicy) -> String {
    match policy {
        PullPolicy::Always => "Always".into(),
        PullPolicy::IfNotPresent => "IfNotPresent".into(),
        PullPolicy::Never => "Never".into(),
    }
}

/// The bundled agent's image has a user that is a number, so the platform may choose another. Of
/// another image nothing is known.
pub(super) fn restricted(is_foreign: bool) -> SecurityContext {
    let user = is_foreign.then_some(names::USER);
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: user,
        run_as_group: user,
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".into(),
        localhost_profile: None,
    }
}

/// Pod-level counterpart of the container's restrictions, for agent pods of their own.
pub(super) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(runtime_default()),
        ..PodSecurityContext::default()
    }
}
