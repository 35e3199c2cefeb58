//! `OtelAgent` → `ValidAgent`, or every problem with what to do about it.
//!
//! The API server's schema has refused what it can; here stands what needs the installation, the
//! server's version or the agent's own configuration check. A problem is a value, not an error: the
//! last good topology keeps running until the user changes something.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use otelagent_api::ResourceExt;

use super::agent_config;
use super::{Environment, ObjectOwner, topology};
use crate::inject::policy::{self, PolicyInput};
use crate::inject::{Namespaces, Selection};
use crate::names;
use crate::quantity::{self, MIB, no_nodes};
use crate::switching::MaxUnready;
use otelagent_api::{Mode, OnFailure, OtelAgent, OtelAgentSpec, Restart, Routing, Switchover};

/// Bytes of configuration a pod can carry: its annotations may take 262144 together, keys and others' included.
const MAX_CONFIGURATION: usize = 240 << 10;

/// `OtelAgent`s of one namespace that are carried out, where it is no platform namespace: each costs the API
/// server four policies and bindings, and the operator seconds to prove them.
pub const MAX_PER_NAMESPACE: usize = 20;

/// One thing that keeps a spec from being carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `spec.agent.image`.
    pub field: &'static str,
    /// Stable word for conditions and events.
    pub reason: &'static str,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// An `OtelAgent` that can be carried out. Only [`validate`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidAgent {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object; a DNS label of at most [`names::MAX_NAME`] characters.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
    /// What the user wrote, for the fields that need no parsing.
    pub spec: OtelAgentSpec,
    /// How long telemetry may wait for company.
    pub flush_interval: Duration,
    /// Bytes at which a batch is sent at once.
    pub batch_bytes: u64,
    /// Bytes of telemetry kept in memory, where the user said so.
    pub memory_bytes: Option<u64>,
    /// Bytes of telemetry kept on disk, where there is a queue on disk.
    pub disk_bytes: Option<u64>,
    /// How long one upstream request may take.
    pub export_timeout: Duration,
    /// How long SDKs hold telemetry.
    pub sdk_flush: Duration,
    /// How long an unused path stays.
    pub hold_old: Duration,
    /// How many nodes may be without a ready agent when a path is taken into use.
    pub max_unready: MaxUnready,
    /// Which pods are injected; `None` where no workloads are selected.
    pub selection: Option<Selection>,
    /// The agent's own ports.
    pub own_ports: OwnPorts,
    /// Only `validate` can set this.
    seal: Seal,
}

#[derive(Clone, Debug, PartialEq)]
struct Seal;

/// Ports that the agent takes beside those for applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnPorts {
    /// Of its health endpoint.
    pub health: u16,
    /// Of its metrics.
    pub metrics: u16,
}

impl OwnPorts {
    /// Those of the collector. The CRD's rules keep applications' ports away from them.
    const USUAL: Self = Self {
        health: 13133,
        metrics: 8888,
    };
}

impl ValidAgent {
    /// The mode asked for.
    pub fn wanted(&self) -> Mode {
        self.spec.mode
    }

    /// Value of the labels that stand for this object.
    pub fn label(&self) -> String {
        names::agent_label(&self.namespace, &self.name)
    }

    /// As its objects name it.
    pub fn owner(&self) -> ObjectOwner {
        ObjectOwner {
            uid: self.uid.clone(),
            name: self.name.clone(),
            label: self.label(),
        }
    }

    /// Image of the agent.
    pub fn image<'a>(&'a self, environment: &'a Environment) -> &'a str {
        self.own_image().unwrap_or(&environment.agent_image)
    }

    /// How many workloads may be restarted at a time; 0 where they are left alone.
    pub fn at_a_time(&self) -> usize {
        let workloads = self.spec.workloads.as_ref();
        workloads
            .filter(|workloads| workloads.restart == Restart::Rolling)
            .map_or(0, |workloads| {
                workloads.max_concurrent_restarts.unwrap_or(1) as usize
            })
    }

    /// The same agent at other ports, by some ten thousand higher; `None` where there are none so high.
    pub fn moved(&self) -> Option<Self> {
        let ports = &self.spec.ports;
        let by = (1..=5).map(|n| n * 10_000).find(|by| {
            [ports.grpc, ports.http]
                .iter()
                .all(|port| port.checked_add(*by).is_some())
        })?;
        let mut moved = self.clone();
        moved.spec.ports.grpc += by;
        moved.spec.ports.http += by;
        moved.own_ports.health += by;
        moved.own_ports.metrics += by;
        Some(moved)
    }

    /// The user's own image, which need not be the bundled agent.
    pub fn own_image(&self) -> Option<&str> {
        self.spec
            .agent
            .as_ref()
            .and_then(|agent| agent.image.as_deref())
    }
}

/// Checks an `OtelAgent` against the installation and the server.
///
/// # Errors
/// Every problem found, in the order of the spec's fields; never an empty list.
pub fn validate(agent: &OtelAgent, environment: &Environment) -> Result<ValidAgent, Vec<Problem>> {
    let spec = &agent.spec;
    let namespace = agent.namespace().unwrap_or_default();
    let mut problems = Vec::new();
    problems.extend(platform_problems(spec, &namespace, environment));
    problems.extend(server_problems(spec, environment));
    problems.extend(secret_problems(spec));
    problems.extend(surge_problems(spec));

    let mut values = Values {
        problems: &mut problems,
    };
    let batch = spec.batch.clone().unwrap_or_default();
    let buffer = spec.buffer.clone().unwrap_or_default();
    let sdk_flush = spec
        .workloads
        .as_ref()
        .and_then(|w| w.flush_interval.clone());
    let hold_old = spec.switchover.as_ref().and_then(|s| s.hold_old.clone());
    let valid = ValidAgent {
        name: agent.name_any(),
        uid: agent.uid().unwrap_or_default(),
        flush_interval: values.duration(
            "spec.batch.flushInterval",
            batch.flush_interval.as_deref(),
            200,
        ),
        batch_bytes: values
            .size("spec.batch.maxSize", batch.max_size.as_deref())
            .unwrap_or(3 * MIB),
        memory_bytes: values.size("spec.buffer.memory", buffer.memory.as_deref()),
        disk_bytes: values.size(
            "spec.buffer.disk.size",
            buffer.disk.as_ref().map(|disk| disk.size.as_str()),
        ),
        export_timeout: values.duration(
            "spec.export.timeout",
            spec.export.timeout.as_deref(),
            10_000,
        ),
        sdk_flush: values.duration("spec.workloads.flushInterval", sdk_flush.as_deref(), 500),
        hold_old: values.duration("spec.switchover.holdOld", hold_old.as_deref(), 60_000),
        max_unready: values.max_unready(spec.switchover.as_ref()),
        selection: selection(agent),
        own_ports: OwnPorts::USUAL,
        namespace,
        spec: spec.clone(),
        seal: Seal,
    };
    let configuration = agent_config::render(&valid, topology(valid.wanted()).placement());
    problems.extend(config_problems(&valid, &configuration));
    problems.extend(size_problems(&valid, &configuration, environment));
    if problems.is_empty() {
        Ok(valid)
    } else {
        Err(problems)
    }
}

/// Reads values whose syntax the schema has checked already, noting what does not fit all the same.
struct Values<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Values<'_> {
    fn duration(&mut self, field: &'static str, text: Option<&str>, default_ms: u64) -> Duration {
        let default = Duration::from_millis(default_ms);
        text.map_or(default, |text| {
            quantity::duration(text).unwrap_or_else(|| {
                self.malformed(field, text, "a duration such as 200ms, 5s or 1m30s");
                default
            })
        })
    }

    fn size(&mut self, field: &'static str, text: Option<&str>) -> Option<u64> {
        let text = text?;
        let bytes = quantity::bytes(text);
        if bytes.is_none() {
            self.malformed(field, text, "a size such as 64Mi or 1Gi");
        }
        bytes
    }

    fn max_unready(&mut self, switchover: Option<&Switchover>) -> MaxUnready {
        let text = match switchover.and_then(|switchover| switchover.max_unready.as_ref()) {
            None => return MaxUnready::default(),
            Some(IntOrString::Int(nodes)) => nodes.to_string(),
            Some(IntOrString::String(text)) => text.clone(),
        };
        MaxUnready::parse(&text).unwrap_or_else(|| {
            let expected = "a count such as 3, or a percentage such as 5%";
            self.malformed("spec.switchover.maxUnready", &text, expected);
            MaxUnready::default()
        })
    }

    fn malformed(&mut self, field: &'static str, text: &str, expected: &str) {
        let message = format!("{field} is `{text}`; write {expected}");
        self.problems.push(Problem {
            field,
            reason: "InvalidValue",
            message,
        });
    }
}

/// The pods a spec selects, whether or not the spec can be carried out; `None` without workloads.
pub fn selection(agent: &OtelAgent) -> Option<Selection> {
    let workloads = agent.spec.workloads.as_ref()?;
    let own = || Namespaces::Named(agent.namespace().unwrap_or_default());
    Some(Selection {
        namespaces: workloads
            .namespace_selector
            .clone()
            .map_or_else(own, Namespaces::Labelled),
        pods: workloads.pod_selector.clone().unwrap_or_default(),
    })
}

/// What keeps one from being carried out that has this many `OtelAgent`s before it in its namespace.
pub fn crowding(agent: &OtelAgent, environment: &Environment, older: usize) -> Option<Problem> {
    let namespace = agent.namespace().unwrap_or_default();
    let is_crowded = !environment.is_platform(&namespace) && older >= MAX_PER_NAMESPACE;
    is_crowded.then(|| Problem {
        field: "metadata.namespace",
        reason: "TooManyInNamespace",
        message: format!(
            "of the OtelAgents of a namespace the {MAX_PER_NAMESPACE} oldest are carried out, and at least as many \
             of `{namespace}` are older than this one; delete some: one OtelAgent can select all pods of its namespace"
        ),
    })
}

/// Whether an object asks for nothing that is kept for platform namespaces. What it says of itself in its
/// status counts for nothing: its owner may write that, too.
pub fn is_permitted(agent: &OtelAgent, environment: &Environment) -> bool {
    let namespace = agent.namespace().unwrap_or_default();
    platform_problems(&agent.spec, &namespace, environment).is_empty()
}

fn platform_problems(
    spec: &OtelAgentSpec,
    namespace: &str,
    environment: &Environment,
) -> Vec<Problem> {
    if environment.is_platform(namespace) {
        return Vec::new();
    }
    let platform: Vec<&str> = environment
        .platform_namespaces
        .iter()
        .map(String::as_str)
        .collect();
    let platform = platform.join(", ");
    let problem = |field, what: &str, instead: &str| Problem {
        field,
        reason: "NotAPlatformNamespace",
        message: format!(
            "{what} needs an OtelAgent in a platform namespace ({platform}), and `{namespace}` is none; {instead}, or ask \
             the platform team to create it there"
        ),
    };
    let mut problems = Vec::new();
    if spec.mode.on_nodes() {
        problems.push(problem(
            "spec.mode",
            &format!("mode {}", spec.mode),
            "use mode Sidecar",
        ));
    }
    if spec
        .workloads
        .as_ref()
        .is_some_and(|w| w.namespace_selector.is_some())
    {
        let instead = "remove it to select pods of this namespace";
        problems.push(problem(
            "spec.workloads.namespaceSelector",
            "workloads.namespaceSelector",
            instead,
        ));
    }
    if spec.agent.as_ref().is_some_and(|a| a.image.is_some()) {
        problems.push(problem(
            "spec.agent.image",
            "agent.image",
            "remove it to use the bundled agent",
        ));
    }
    problems
}

fn server_problems(spec: &OtelAgentSpec, environment: &Environment) -> Option<Problem> {
    let prefer = spec.mode == Mode::NodeLocal && spec.node_local.routing == Routing::Prefer;
    (prefer && !environment.server.is_at_least(34)).then(|| Problem {
        field: "spec.nodeLocal.routing",
        reason: "ServerTooOld",
        message: format!(
            "routing Prefer needs trafficDistribution PreferSameNode, which servers offer from 1.34; this one is {}; use \
             routing Require",
            environment.server
        ),
    })
}

/// Secrets and `ConfigMap`s are mounted from the namespace of the pod that runs the agent, which in mode
/// Sidecar is the application's.
fn secret_problems(spec: &OtelAgentSpec) -> Option<Problem> {
    let elsewhere = spec
        .workloads
        .as_ref()
        .is_some_and(|w| w.namespace_selector.is_some());
    let headers = spec
        .export
        .headers
        .iter()
        .any(|h| h.secret_key_ref.is_some());
    let tls = spec.export.tls.as_ref();
    let mounted = headers
        || tls.is_some_and(|t| t.ca_config_map.is_some() || t.client_certificate_secret.is_some());
    (spec.mode == Mode::Sidecar && elsewhere && mounted).then(|| Problem {
        field: "spec.export",
        reason: "SecretOutOfReach",
        message: "a sidecar runs in the application's namespace and cannot mount Secrets or ConfigMaps of this one; use \
                  mode NodeLocal, or an OtelAgent in each application namespace"
            .into(),
    })
}

/// Only the bundled agent shares the node's port with its successor.
fn surge_problems(spec: &OtelAgentSpec) -> Option<Problem> {
    let agent = spec.agent.as_ref().filter(|agent| agent.image.is_some())?;
    let strategy = agent.update_strategy.as_ref()?;
    let surges = strategy
        .max_surge
        .as_ref()
        .is_some_and(|surge| !no_nodes(surge))
        || strategy.max_unavailable.as_ref().is_some_and(no_nodes);
    (spec.mode == Mode::HostNetwork && surges).then(|| Problem {
        field: "spec.agent.updateStrategy",
        reason: "SurgeNotPossible",
        message: "in mode HostNetwork an agent of another image cannot hold the node's port beside its successor; use \
                  maxUnavailable above zero, or the bundled agent"
            .into(),
    })
}

/// What fits neither a pod nor an admission policy. Other `OtelAgent`s' exclusions are not known here.
fn size_problems(
    agent: &ValidAgent,
    configuration: &str,
    environment: &Environment,
) -> Option<Problem> {
    let too_large = |message: String| Problem {
        field: "spec.config",
        reason: "TooLarge",
        message,
    };
    let bytes = configuration.len();
    if bytes > MAX_CONFIGURATION {
        return Some(too_large(format!(
            "the agent's configuration has {bytes} bytes, and a pod's annotations hold {MAX_CONFIGURATION}; make spec.config \
             smaller"
        )));
    }
    let policies = policy::render(&PolicyInput {
        namespace: agent.namespace.clone(),
        name: agent.name.clone(),
        uid: agent.uid.clone(),
        recipe: topology(agent.wanted()).recipe(agent, environment),
        selection: agent.selection.clone()?,
        exclusions: Vec::new(),
        excluded_namespaces: environment.excluded_namespaces().map(Into::into).collect(),
        canary_namespace: String::new(),
        on_failure: OnFailure::default(),
        owner_reference: None,
    });
    policies.err().map(|error| too_large(error.to_string()))
}

/// The bundled agent's own verdict on the configuration it would be given. Another image is not ours
/// to judge.
fn config_problems(agent: &ValidAgent, configuration: &str) -> Vec<Problem> {
    if agent.own_image().is_some() {
        return Vec::new();
    }
    let Err(found) = otelagent_agent::config::check(configuration) else {
        return Vec::new();
    };
    found
        .iter()
        .map(|problem| Problem {
            field: "spec.config",
            reason: "ConfigurationRefused",
            message: format!("the agent refuses its configuration: {problem}"),
        })
        .collect()
}
