//! An `OtelAgent` that has passed validation, with every value parsed.

use std::time::Duration;

use super::environment::Environment;
use crate::inject::policy::PolicyInput;
use crate::inject::{Recipe, Selection};
use crate::names;
use crate::quantity::MaxUnready;
use otelagent_api::{Mode, OtelAgentSpec, Ports, Restart};

/// An `OtelAgent` whose spec is valid. Only [`validate`](super::validate()) makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidAgent {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object; a DNS label of at most [`names::MAX_NAME`] characters.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
    /// The spec, for the fields that need no parsing.
    pub spec: OtelAgentSpec,
    /// How long telemetry may wait to be batched.
    pub flush_interval: Duration,
    /// Bytes at which a batch is sent immediately.
    pub batch_bytes: u64,
    /// Bytes of telemetry kept in memory, if set.
    pub memory_bytes: Option<u64>,
    /// Bytes of telemetry kept on disk, if there is a queue on disk.
    pub disk_bytes: Option<u64>,
    /// How long one request to the upstream may take.
    pub export_timeout: Duration,
    /// How long SDKs may hold telemetry.
    pub sdk_flush: Duration,
    /// How long pods wait for the agent of their node before they start, if they do.
    pub start_gate: Option<Duration>,
    /// How long an unused route is kept.
    pub hold_old: Duration,
    /// How many nodes may be without a ready agent when a mode starts to serve.
    pub max_unready: MaxUnready,
    /// Which pods are injected; `None` without `spec.workloads`.
    pub selection: Option<Selection>,
    /// The agent's configuration in the wanted mode. Validation renders it, and no other module can make a
    /// `ValidAgent`.
    pub(super) configuration: Option<AgentConfiguration>,
}

/// Which addresses the agent listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Loopback of an application's pod.
    Sidecar,
    /// The address of a pod of its own.
    Pod,
    /// The address of the node.
    Host,
}

/// The agent's configuration for one placement, and what its container needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentConfiguration {
    /// Where the agent listens.
    pub(super) placement: Placement,
    /// The text, as YAML.
    pub(super) text: String,
    /// The queues on disk.
    pub(super) disk_queues: DiskQueues,
    /// Whether an exporter names a Service as `name.namespace.svc`, which a pod that does not search the
    /// cluster's domain cannot resolve.
    pub(super) sends_to_service: bool,
    /// Where applications or the kubelet would not reach the agent, after the user's overlay: what to write instead.
    pub(super) unreachable: Vec<String>,
}

/// The queues on disk, as they are after the user's overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskQueues {
    /// How many there are.
    pub(super) count: u64,
    /// Bytes their files may take together.
    pub(super) bytes: u64,
}

impl ValidAgent {
    /// The mode asked for.
    pub fn wanted(&self) -> Mode {
        self.spec.mode
    }

    /// Value of the labels that name this object.
    pub fn label(&self) -> String {
        names::agent_label(&self.namespace, &self.name)
    }

    /// The input for policies that inject a recipe into pods of `selection`, as if this were the only
    /// `OtelAgent`. The caller sets the canary namespace and the owner.
    pub fn policy_input(
        &self,
        environment: &Environment,
        recipe: Recipe,
        selection: &Selection,
    ) -> PolicyInput {
        let workloads = self.spec.workloads.clone().unwrap_or_default();
        PolicyInput {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            recipe,
            selection: selection.clone(),
            exclusions: Vec::new(),
            excluded_namespaces: environment.excluded_namespaces().map(Into::into).collect(),
            canary_namespace: String::new(),
            on_failure: workloads.on_injection_failure,
            owner_reference: None,
        }
    }

    /// Image of the agent.
    pub fn image<'a>(&'a self, environment: &'a Environment) -> &'a str {
        self.own_image().unwrap_or(&environment.agent_image)
    }

    /// How many workloads may be restarted at a time; 0 without `workloads.restart: Rolling`.
    pub fn at_a_time(&self) -> usize {
        match &self.spec.workloads {
            Some(workloads) if workloads.restart == Restart::Rolling => {
                workloads.max_concurrent_restarts.unwrap_or(1) as usize
            }
            _ => 0,
        }
    }

    /// The same agent at ports that are 10000 higher; `None` if there are none so high.
    pub fn moved(&self) -> Option<Self> {
        let higher = |port: u16| port.checked_add(10_000);
        let ports = self.spec.ports;
        let mut moved = self.clone();
        moved.spec.ports = Ports {
            grpc: higher(ports.grpc)?,
            http: higher(ports.http)?,
            metrics: higher(ports.metrics)?,
            health: higher(ports.health)?,
        };
        moved.configuration = None;
        Some(moved)
    }

    /// The image in the spec, which need not be the bundled agent.
    pub fn own_image(&self) -> Option<&str> {
        self.spec.agent.as_ref()?.image.as_deref()
    }
}
