//! Validates an `OtelAgent`: a `ValidAgent`, or every problem with what to do about it.
//!
//! The API server has checked the schema. This module checks what needs the installation, the server's
//! version or the agent's own reading of its configuration. A problem is a value, not an error: what ran
//! before keeps running until the user changes the spec.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use otelagent_api::ResourceExt;

use super::agent_config;
use super::agent_pod::RenderInput;
use super::environment::Environment;
use super::modes::topology;
use super::selectors::wrong_selectors;
use super::valid_agent::{AgentConfiguration, ValidAgent};
use crate::inject::policy;
use crate::inject::{Namespaces, Selection};
use crate::quantity::{self, MIB, MaxUnready, no_nodes};
use otelagent_api::{Mode, OtelAgent, OtelAgentSpec, Protocol, Routing, StartGate, StartGateType};

/// Bytes of configuration that a pod can carry. All annotations together may take 262144, keys included.
const MAX_CONFIGURATION: usize = 240 << 10;

/// How many `OtelAgent`s are active in a namespace that is no platform namespace. Each costs the API server
/// four policies and bindings, and the operator seconds to verify them.
pub const MAX_PER_NAMESPACE: usize = 20;

/// The minor version from which on servers have `trafficDistribution: PreferSameNode`.
pub const PREFER_SAME_NODE: u32 = 34;

/// One thing that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A stable word for conditions and events.
    pub reason: &'static str,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Checks an `OtelAgent` against the installation and the server.
///
/// # Errors
/// Every problem found, in the order of the spec's fields; never an empty list.
pub fn validate(agent: &OtelAgent, environment: &Environment) -> Result<ValidAgent, Vec<Problem>> {
    let spec = &agent.spec;
    let namespace = agent.namespace().unwrap_or_default();
    let mut problems = platform_problems(spec, &namespace, environment);
    problems.extend(server_problems(spec, environment));
    problems.extend(secret_problems(spec));
    problems.extend(surge_problems(spec));
    problems.extend(endpoint_problem(spec));
    let selectors = wrong_selectors(spec).into_iter();
    problems.extend(selectors.map(|message| Problem {
        reason: "InvalidValue",
        message,
    }));
    problems.extend(selection_problem(agent, environment));

    let mut values = Values {
        problems: &mut problems,
    };
    let export = spec.export.clone();
    let batch = spec.batch.clone().unwrap_or_default();
    let buffer = spec.buffer.clone().unwrap_or_default();
    let workloads = spec.workloads.clone().unwrap_or_default();
    let switchover = spec.switchover.clone().unwrap_or_default();
    let disk = buffer.disk.map(|disk| disk.size);
    let mut valid = ValidAgent {
        name: agent.name_any(),
        uid: agent.uid().unwrap_or_default(),
        flush_interval: values.duration("spec.batch.flushInterval", batch.flush_interval, 200),
        batch_bytes: values
            .size("spec.batch.maxSize", batch.max_size)
            .unwrap_or(3 * MIB),
        memory_bytes: values.size("spec.buffer.memory", buffer.memory),
        disk_bytes: values.size("spec.buffer.disk.size", disk),
        export_timeout: values.duration("spec.export.timeout", export.timeout, 10_000),
        sdk_flush: values.duration(
            "spec.workloads.flushInterval",
            workloads.flush_interval,
            500,
        ),
        start_gate: values.start_gate(workloads.start_gate),
        hold_old: values.duration("spec.switchover.holdOld", switchover.hold_old, 60_000),
        max_unready: values.max_unready(switchover.max_unready),
        selection: selection(agent),
        namespace,
        spec: spec.clone(),
        configuration: None,
    };
    let configuration = agent_config::render(&valid, topology(valid.wanted()).placement);
    problems.extend(config_problems(&valid, &configuration.text));
    let unreachable = configuration.unreachable.iter().cloned();
    problems.extend(unreachable.map(|message| Problem {
        reason: "InvalidValue",
        message,
    }));
    problems.extend(size_problems(&valid, &configuration, environment));
    valid.configuration = Some(configuration);
    if problems.is_empty() {
        Ok(valid)
    } else {
        Err(problems)
    }
}

/// Reads values whose syntax the schema has checked, and notes those that still do not fit.
struct Values<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Values<'_> {
    fn duration(&mut self, field: &str, text: Option<String>, default_ms: u64) -> Duration {
        let expected = "a duration such as 200ms, 5s or 1m30s";
        let read = self.read(field, text, quantity::duration, expected);
        read.unwrap_or(Duration::from_millis(default_ms))
    }

    fn start_gate(&mut self, gate: Option<StartGate>) -> Option<Duration> {
        let gate = gate.filter(|gate| gate.kind == StartGateType::Wait)?;
        let field = "spec.workloads.startGate.timeout";
        Some(self.duration(field, gate.timeout, 60_000))
    }

    fn size(&mut self, field: &str, text: Option<String>) -> Option<u64> {
        self.read(field, text, quantity::bytes, "a size such as 64Mi or 1Gi")
    }

    fn max_unready(&mut self, value: Option<IntOrString>) -> MaxUnready {
        let text = value.map(|value| match value {
            IntOrString::Int(nodes) => nodes.to_string(),
            IntOrString::String(text) => text,
        });
        let expected = "a count such as 3, or a percentage such as 5%";
        let field = "spec.switchover.maxUnready";
        let read = self.read(field, text, MaxUnready::parse, expected);
        read.unwrap_or_default()
    }

    fn read<T>(
        &mut self,
        field: &str,
        text: Option<String>,
        read: fn(&str) -> Option<T>,
        expected: &str,
    ) -> Option<T> {
        let text = text?;
        let value = read(&text);
        if value.is_none() {
            self.problems.push(Problem {
                reason: "InvalidValue",
                message: format!("{field} is `{text}`, which is not valid; use {expected}"),
            });
        }
        value
    }
}

/// The pods that a spec selects, whether or not the spec is valid; `None` without workloads.
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

/// The problem of an `OtelAgent` with this many older ones in its namespace, if they are too many.
pub fn over_quota(agent: &OtelAgent, environment: &Environment, older: usize) -> Option<Problem> {
    let namespace = agent.namespace().unwrap_or_default();
    let is_over_quota = !environment.is_platform(&namespace) && older >= MAX_PER_NAMESPACE;
    is_over_quota.then(|| Problem {
        reason: "TooManyInNamespace",
        message: format!(
            "namespace `{namespace}` has more than {MAX_PER_NAMESPACE} OtelAgents, and only the oldest \
             {MAX_PER_NAMESPACE} are active; delete some: one OtelAgent can select all pods of its namespace"
        ),
    })
}

/// Whether an object asks for nothing that is reserved for platform namespaces. Its status does not count:
/// its owner may write that too.
pub fn is_permitted(agent: &OtelAgent, environment: &Environment) -> bool {
    let namespace = agent.namespace().unwrap_or_default();
    platform_problems(&agent.spec, &namespace, environment).is_empty()
}

/// Whether an `OtelAgent` of this namespace may select these pods. A namespace may have been a platform
/// namespace when its selection became active.
pub fn may_select(namespace: &str, selection: &Selection, environment: &Environment) -> bool {
    environment.is_platform(namespace)
        || matches!(&selection.namespaces, Namespaces::Named(named) if named == namespace)
}

fn platform_problems(
    spec: &OtelAgentSpec,
    namespace: &str,
    environment: &Environment,
) -> Vec<Problem> {
    if environment.is_platform(namespace) {
        return Vec::new();
    }
    let platform = environment.platform_namespaces.iter().cloned();
    let platform = platform.collect::<Vec<_>>().join(", ");
    let problem = |what: &str, instead: &str| Problem {
        reason: "NotAPlatformNamespace",
        message: format!(
            "{what} is only for OtelAgents in platform namespaces ({platform}), and `{namespace}` is not one; {instead}, \
             or ask the platform team to create the OtelAgent there"
        ),
    };
    let mut problems = Vec::new();
    if spec.mode.on_nodes() {
        let what = format!("mode {}", spec.mode);
        problems.push(problem(&what, "use mode Sidecar"));
    }
    if selects_elsewhere(spec) {
        let instead = "remove it to select pods of this namespace";
        problems.push(problem("workloads.namespaceSelector", instead));
    }
    if spec.agent.as_ref().is_some_and(|a| a.image.is_some()) {
        let instead = "remove it to use the bundled agent";
        problems.push(problem("agent.image", instead));
    }
    problems
}

fn selects_elsewhere(spec: &OtelAgentSpec) -> bool {
    let workloads = spec.workloads.as_ref();
    workloads.is_some_and(|workloads| workloads.namespace_selector.is_some())
}

/// What keeps a spec from ever selecting a pod.
fn selection_problem(agent: &OtelAgent, environment: &Environment) -> Option<Problem> {
    let selection = selection(agent)?;
    let message = match &selection.namespaces {
        Namespaces::Named(own) if environment.is_excluded(own) => format!(
            "spec.workloads has no namespaceSelector, so it selects pods of its own namespace `{own}`, which are never injected; \
             add workloads.namespaceSelector, such as {{matchLabels: {{kubernetes.io/metadata.name: shop}}}}"
        ),
        _ if selection.is_impossible() => "spec.workloads selects no pod, because namespaceSelector or podSelector asks for labels \
             that it excludes; correct the selector"
            .into(),
        _ => return None,
    };
    Some(Problem {
        reason: "SelectsNothing",
        message,
    })
}

fn server_problems(spec: &OtelAgentSpec, environment: &Environment) -> Option<Problem> {
    let prefer = spec.mode == Mode::NodeLocal && spec.node_local.routing == Routing::Prefer;
    (prefer && !environment.server.is_at_least(PREFER_SAME_NODE)).then(|| Problem {
        reason: "ServerTooOld",
        message: format!(
            "nodeLocal.routing Prefer needs Kubernetes 1.{PREFER_SAME_NODE} or newer (trafficDistribution PreferSameNode), and this API \
             server is {}; use routing Require",
            environment.server
        ),
    })
}

/// The kubelet mounts Secrets and `ConfigMap`s from the namespace of the pod that runs the agent; in mode
/// Sidecar that is the application's.
fn secret_problems(spec: &OtelAgentSpec) -> Option<Problem> {
    let mut headers = spec.export.headers.iter();
    let tls = spec.export.tls.as_ref();
    let mounted = headers.any(|header| header.secret_key_ref.is_some())
        || tls.is_some_and(|t| t.ca_config_map.is_some() || t.client_certificate_secret.is_some());
    (spec.mode == Mode::Sidecar && selects_elsewhere(spec) && mounted).then(|| Problem {
        reason: "SecretOutOfReach",
        message: "spec.export refers to Secrets or ConfigMaps of this namespace, and sidecars in other namespaces cannot mount \
                  them; use mode NodeLocal, or create an OtelAgent in each application namespace"
            .into(),
    })
}

/// Every agent appends the path of the signal to an HTTP endpoint.
fn endpoint_problem(spec: &OtelAgentSpec) -> Option<Problem> {
    let export = &spec.export;
    let (signal, base) = otelagent_agent::config::signal_of(&export.endpoint)?;
    let path = signal.http_path();
    let message = match export.protocol {
        Protocol::Http => {
            format!(
                "spec.export.endpoint ends in `{path}`, which the agent appends itself; write {base}"
            )
        }
        Protocol::Grpc => format!(
            "spec.export.endpoint ends in `{path}`, which is of OTLP/HTTP; write {base} and protocol http, or the address of \
             OTLP/gRPC without a path"
        ),
    };
    Some(Problem {
        reason: "InvalidValue",
        message,
    })
}

/// Only the bundled agent can share the node's port with its successor.
fn surge_problems(spec: &OtelAgentSpec) -> Option<Problem> {
    let agent = spec.agent.as_ref().filter(|agent| agent.image.is_some())?;
    let strategy = agent.update_strategy.as_ref()?;
    let (surge, unavailable) = (&strategy.max_surge, &strategy.max_unavailable);
    let surges = surge.as_ref().is_some_and(|surge| !no_nodes(surge))
        || unavailable.as_ref().is_some_and(no_nodes);
    (spec.mode == Mode::HostNetwork && surges).then(|| Problem {
        reason: "SurgeNotPossible",
        message: "spec.agent.updateStrategy asks for a surge, but in mode HostNetwork only the bundled agent can share the \
                  node's port with its successor; set maxUnavailable above zero, or remove agent.image"
            .into(),
    })
}

/// What is too large for a pod or an admission policy. Other `OtelAgent`s' exclusions are not known here.
fn size_problems(
    agent: &ValidAgent,
    configuration: &AgentConfiguration,
    environment: &Environment,
) -> Option<Problem> {
    let too_large = |message: String| Problem {
        reason: "TooLarge",
        message,
    };
    let bytes = configuration.text.len();
    if bytes > MAX_CONFIGURATION {
        return Some(too_large(format!(
            "the agent's configuration has {bytes} bytes, and a pod's annotations can hold {MAX_CONFIGURATION}; shorten \
             spec.config"
        )));
    }
    let selection = agent.selection.as_ref()?;
    let input = RenderInput {
        agent,
        environment,
        configuration,
    };
    let recipe = (topology(agent.wanted()).recipe)(&input);
    let policies = policy::render(&agent.policy_input(environment, recipe, selection));
    policies.err().map(|error| too_large(error.to_string()))
}

/// What the bundled agent finds wrong with its configuration. The configuration of another image is not
/// checked.
fn config_problems(agent: &ValidAgent, configuration: &str) -> Vec<Problem> {
    if agent.own_image().is_some() {
        return Vec::new();
    }
    // What is said of the spec is not said again of what is made of it.
    let is_said = endpoint_problem(&agent.spec).is_some();
    let found = otelagent_agent::config::check(configuration).err();
    let found = found.into_iter().flatten();
    let problem = |problem| Problem {
        reason: "ConfigurationRefused",
        message: format!(
            "the agent would refuse its configuration; change spec.export or spec.config: {problem}"
        ),
    };
    found
        .filter(|problem| !(is_said && problem.path.ends_with(".endpoint")))
        .map(problem)
        .collect()
}
