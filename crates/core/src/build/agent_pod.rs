//! The agent's container and pod, which every mode builds on.
//!
//! Restricted Pod Security throughout; no token, no shell, nothing written but what is mounted. No
//! liveness probe: a restart would throw away the telemetry an agent holds in memory.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, DownwardAPIVolumeFile,
    DownwardAPIVolumeSource, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath,
    ObjectFieldSelector, PodSecurityContext, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Environment;
use super::agent_config::{self, DIRECTORY, FILE, MOUNTS, Placement, QUEUE};
use super::validate::ValidAgent;
use crate::names;
use crate::quantity::{self, MIB};
use otelagent_api::{Amounts, PullPolicy};

/// User and group of the agent's process.
const USER: i64 = 65532;
/// Thousandths of a processor where the user does not say.
const DEFAULT_CPU: u64 = 50;

/// The agent's container, without probes and ports, which differ by mode.
pub(super) fn container(
    agent: &ValidAgent,
    environment: &Environment,
    placement: Placement,
) -> Container {
    let user = agent.spec.agent.clone().unwrap_or_default();
    let mut mounts = vec![mount(names::CONFIG_VOLUME, DIRECTORY, true)];
    mounts.extend(
        mounted(agent)
            .into_iter()
            .map(|(name, _)| mount(&name, &mount_path(&name), true)),
    );
    if agent.disk_bytes.is_some() {
        mounts.push(mount(QUEUE_VOLUME, QUEUE, false));
    }
    let env = vec![
        field("OTELAGENT_NODE_NAME", "spec.nodeName"),
        field("OTELAGENT_HOST_IP", "status.hostIP"),
        field("OTELAGENT_POD_NAME", "metadata.name"),
        field("OTELAGENT_POD_UID", "metadata.uid"),
    ];
    Container {
        name: names::CONTAINER.into(),
        image: Some(agent.image(environment).into()),
        image_pull_policy: user
            .image_pull_policy
            .map(|policy| pull_policy(policy).into()),
        args: Some(vec!["--config".into(), format!("{DIRECTORY}/{FILE}")]),
        env: Some(env),
        resources: Some(resources(agent, placement)),
        security_context: Some(restricted()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

const QUEUE_VOLUME: &str = "otelagent-queue";

/// Volumes of the agent's container.
pub(super) fn volumes(agent: &ValidAgent, placement: Placement) -> Vec<Volume> {
    let mut volumes = vec![Volume {
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
    }];
    volumes.extend(mounted(agent).into_iter().map(|(_, volume)| volume));
    volumes.extend(queue_volume(agent, placement));
    volumes
}

/// The queue on disk, in every mode a folder that lives as long as the pod. It is writable for every
/// user, so the agent needs no group of its own, which a sidecar could not have. A folder of the node
/// would outlive the pod, but only root could make it writable, no namespace but a privileged one may
/// mount it, and an uninstallation would leave telemetry on every node.
fn queue_volume(agent: &ValidAgent, placement: Placement) -> Option<Volume> {
    agent.disk_bytes?;
    Some(Volume {
        name: QUEUE_VOLUME.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(quantity::memory(volume_bytes(agent, placement))),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    })
}

/// Bytes at which the kubelet evicts the pod, and the queue with it: more than the queues ever take, which
/// have their own limit and a few small files beside.
fn volume_bytes(agent: &ValidAgent, placement: Placement) -> u64 {
    let queues = agent_config::disk_queues(agent, placement);
    let beside = queues.count.saturating_mul(MIB);
    let asked = agent.disk_bytes.unwrap_or_default();
    queues.bytes.max(asked).saturating_add(beside)
}

/// Annotations of the pod that runs the agent: its configuration.
pub(super) fn annotations(agent: &ValidAgent, placement: Placement) -> BTreeMap<String, String> {
    BTreeMap::from([(
        names::ANNOTATION_CONFIG.to_owned(),
        agent_config::render(agent, placement),
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
        port("metrics", agent.own_ports.metrics, false),
    ]
}

/// Asks the agent's health endpoint over the pod's address.
pub(super) fn health_probe(
    agent: &ValidAgent,
    period_seconds: i32,
    failure_threshold: i32,
) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/".into()),
            port: IntOrString::Int(agent.own_ports.health.into()),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
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

fn field(name: &str, path: &str) -> EnvVar {
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

/// A read-only or writable mount.
pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// Secrets and `ConfigMap`s the configuration names, by volume name. Mounted by the kubelet; the
/// operator never reads them.
fn mounted(agent: &ValidAgent) -> Vec<(String, Volume)> {
    let export = &agent.spec.export;
    let item = |key: &str| {
        Some(vec![KeyToPath {
            key: key.into(),
            path: key.into(),
            mode: None,
        }])
    };
    let secret = |name: String, secret: &str, items| {
        let source = SecretVolumeSource {
            secret_name: Some(secret.into()),
            items,
            ..SecretVolumeSource::default()
        };
        let volume = Volume {
            name: name.clone(),
            secret: Some(source),
            ..Volume::default()
        };
        (name, volume)
    };
    let headers = export
        .headers
        .iter()
        .enumerate()
        .filter_map(|(index, header)| {
            let key = header.secret_key_ref.as_ref()?;
            Some(secret(
                format!("otelagent-header-{index}"),
                &key.name,
                item(&key.key),
            ))
        });
    let tls = export.tls.clone().unwrap_or_default();
    let ca = tls.ca_config_map.map(|ca| {
        let name = "otelagent-ca".to_owned();
        let source = ConfigMapVolumeSource {
            name: ca.name,
            items: item(&ca.key),
            ..ConfigMapVolumeSource::default()
        };
        (
            name.clone(),
            Volume {
                name,
                config_map: Some(source),
                ..Volume::default()
            },
        )
    });
    let client = tls
        .client_certificate_secret
        .map(|s| secret("otelagent-client".into(), &s.name, None));
    headers.chain(ca).chain(client).collect()
}

/// Folder of a mounted volume: its name without the common prefix.
fn mount_path(volume: &str) -> String {
    format!("{MOUNTS}/{}", volume.trim_start_matches("otelagent-"))
}

/// Requests and limits: the user's, else what the buffer needs. A sidecar's requests are its limits,
/// so that it does not change its pod's quality of service (KEP-753).
fn resources(agent: &ValidAgent, placement: Placement) -> ResourceRequirements {
    let user = agent
        .spec
        .agent
        .as_ref()
        .and_then(|a| a.resources.clone())
        .unwrap_or_default();
    let memory = agent_config::container_memory(agent, placement);
    let (requests, limits) = (
        user.requests.unwrap_or_default(),
        user.limits.unwrap_or_default(),
    );
    let amounts = |amounts: &Amounts, default_cpu: Option<u64>, default_memory: u64| {
        let cpu = amounts
            .cpu
            .as_deref()
            .and_then(quantity::millicores)
            .or(default_cpu);
        let memory = amounts
            .memory
            .as_deref()
            .and_then(quantity::bytes)
            .unwrap_or(default_memory);
        let memory = Some(("memory".to_owned(), quantity::memory(memory)));
        let cpu = cpu.map(|cpu| ("cpu".to_owned(), quantity::cpu(cpu)));
        cpu.into_iter()
            .chain(memory)
            .collect::<BTreeMap<String, Quantity>>()
    };
    let (requests, limits) = if placement == Placement::Sidecar {
        let either = Amounts {
            cpu: limits.cpu.or(requests.cpu),
            memory: limits.memory.or(requests.memory),
        };
        let both = amounts(&either, Some(DEFAULT_CPU), memory);
        (both.clone(), both)
    } else {
        // Where only one of the two is given, the other must not contradict it.
        let bytes = |text: &Option<String>| text.as_deref().and_then(quantity::bytes);
        let limit = bytes(&limits.memory)
            .unwrap_or_else(|| memory.max(bytes(&requests.memory).unwrap_or_default()));
        let most_cpu = limits.cpu.as_deref().and_then(quantity::millicores);
        let cpu = DEFAULT_CPU.min(most_cpu.unwrap_or(DEFAULT_CPU));
        (
            amounts(&requests, Some(cpu), limit.min(memory)),
            amounts(&limits, None, limit),
        )
    };
    // Nothing of the disk is requested: in a sidecar that would decide where an application can run, and
    // nodes that do not count their disk would take no such pod at all.
    ResourceRequirements {
        requests: Some(requests),
        limits: Some(limits),
        claims: None,
    }
}

fn pull_policy(policy: PullPolicy) -> &'static str {
    match policy {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    }
}

fn restricted() -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

/// Pod-level counterpart of the container's restrictions, for agent pods of their own.
pub(super) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}
