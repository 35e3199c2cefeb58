//! Reading the caches: what is so of one `OtelAgent`, as values for the pure rooms.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::engine;
use super::kept::Pods;
use super::stores::{Stores, serves};
use otelagent_api::{Mode, OtelAgent, Routing};
use otelagent_core::build::{Environment, ValidAgent, build, template_label};
use otelagent_core::inject::Selection;
use otelagent_core::names;
use otelagent_core::pods::{Coverage, LivePod, PodReport, Serving, count};
use otelagent_core::quantity::MaxUnready;
use otelagent_core::switching::{AgentPod, AgentWorkload, NodeState, WorkloadState};

/// What is in force for one `OtelAgent`, as found on its binding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InForce {
    /// The mode pods are given.
    pub(crate) mode: Option<Mode>,
    /// Hash of the recipe they are given.
    pub(crate) recipe: Option<String>,
    /// The pods it is for.
    pub(crate) selection: Option<Selection>,
    /// The policy it binds, or which entry of the webhook it is.
    pub(crate) policy: Option<String>,
    /// Since when it has been so.
    pub(crate) bound_at: Option<Timestamp>,
    /// What made its recipe the one in force.
    pub(crate) because: Option<String>,
    /// Version of the operator that wrote it last.
    pub(crate) written_by: Option<String>,
}

/// Reads a real binding, or a real entry of the webhook.
pub(crate) fn in_force(binding: &DynamicObject) -> InForce {
    let annotations = binding.annotations();
    let annotation = |key: &str| annotations.get(key).map(String::as_str);
    let policy = binding.data["spec"]["policyName"].as_str().map(Into::into);
    let entry = annotation(names::ANNOTATION_WEBHOOK_HASH).map(engine::entry_in_force);
    InForce {
        mode: annotation(names::ANNOTATION_SERVING).and_then(Mode::parse),
        recipe: annotation(names::ANNOTATION_RECIPE).map(Into::into),
        selection: annotation(names::ANNOTATION_SELECTION)
            .and_then(|text| serde_json::from_str(text).ok()),
        policy: policy.or(entry),
        bound_at: annotation(names::ANNOTATION_BOUND_AT).and_then(|text| text.parse().ok()),
        because: annotation(names::ANNOTATION_REASON).map(Into::into),
        written_by: annotation(names::ANNOTATION_OPERATOR).map(Into::into),
    }
}

/// Vehicles that exist, and since when each has had no user.
pub(crate) fn workloads(
    stores: &Stores,
    namespace: &str,
    name: &str,
) -> BTreeMap<Mode, Option<Timestamp>> {
    let found = |mode| {
        stores
            .daemon_set(namespace, name, mode)
            .map(|object| (mode, unused_since(&object)))
    };
    Mode::ALL.into_iter().filter_map(found).collect()
}

fn unused_since(object: &DaemonSet) -> Option<Timestamp> {
    object
        .annotations()
        .get(names::ANNOTATION_UNUSED_SINCE)
        .and_then(|text| text.parse().ok())
}

/// What is so of a node mode's workload, measured against the template it should have. A vehicle that
/// does not exist yet is waited for.
pub(crate) fn workload_state(
    stores: &Stores,
    agent: &ValidAgent,
    environment: &Environment,
    mode: Mode,
) -> Option<WorkloadState> {
    if !mode.on_nodes() {
        return None;
    }
    let template = wanted_template(agent, environment, mode);
    let Some(object) = stores.daemon_set(&agent.namespace, &agent.name, mode) else {
        return Some(WorkloadState::pending("it does not exist yet"));
    };
    let workload = workload(stores, &object, &agent.label(), mode);
    Some(workload.state(&stores.nodes.read().0, &template, agent.max_unready))
}

/// Vehicles beside the wanted one of which some node has no agent but one of an older spec.
pub(crate) fn outdated(
    stores: &Stores,
    agent: &ValidAgent,
    environment: &Environment,
) -> BTreeSet<Mode> {
    let label = agent.label();
    let is_outdated = |mode: &Mode| {
        let found = stores.daemon_set(&agent.namespace, &agent.name, *mode);
        found.is_some_and(|object| {
            let template = wanted_template(agent, environment, *mode);
            workload(stores, &object, &label, *mode).is_outdated(&stores.nodes.read().0, &template)
        })
    };
    let others = Mode::ALL.into_iter().filter(|mode| *mode != agent.wanted());
    others.filter(is_outdated).collect()
}

fn wanted_template(agent: &ValidAgent, environment: &Environment, mode: Mode) -> String {
    let mut desired = build(agent, environment, [mode]);
    let desired = desired.modes.remove(&mode);
    desired.map(|desired| desired.template).unwrap_or_default()
}

/// What is so of a vehicle as it stands, whatever it should be: for objects whose spec is refused.
pub(crate) fn existing_workload(
    stores: &Stores,
    namespace: &str,
    name: &str,
    mode: Mode,
) -> Option<WorkloadState> {
    let object = stores.daemon_set(namespace, name, mode)?;
    let label = names::agent_label(namespace, name);
    let workload = workload(stores, &object, &label, mode);
    let template = workload.template.clone();
    Some(workload.state(&stores.nodes.read().0, &template, MaxUnready::default()))
}

fn workload(stores: &Stores, object: &DaemonSet, label: &str, mode: Mode) -> AgentWorkload {
    let status = object.status.clone().unwrap_or_default();
    let known = stores.pods.read();
    let namespace = object.namespace().unwrap_or_default();
    let pods = known
        .agents_of(&namespace, label)
        .filter(|(_, pod)| serves(&pod.labels, label, mode));
    AgentWorkload {
        observed: status.observed_generation.is_some()
            && status.observed_generation == object.metadata.generation,
        desired: status.desired_number_scheduled,
        template: template_label(object).unwrap_or_default().to_owned(),
        pods: pods
            .map(|(name, pod)| AgentPod {
                name: name.to_owned(),
                node: pod.node.as_deref().map(Into::into),
                ready: pod.ready && !pod.terminating,
                waits_for: pod.waits_for.as_deref().map(Into::into),
                template: pod.labels.get(names::LABEL_TEMPLATE).cloned(),
            })
            .collect(),
    }
}

/// Another version of the operator that wrote a vehicle whose agents this one renders anew, and so
/// replaces.
pub(crate) fn replaced_version(
    stores: &Stores,
    agent: &ValidAgent,
    environment: &Environment,
    mode: Mode,
) -> Option<String> {
    let live = stores.daemon_set(&agent.namespace, &agent.name, mode)?;
    let version = live.annotations().get(names::ANNOTATION_OPERATOR)?;
    let differs = *version != environment.operator_version
        && template_label(&live).unwrap_or_default() != wanted_template(agent, environment, mode);
    differs.then(|| version.clone())
}

/// Counts the pods of one `OtelAgent`.
pub(crate) fn pods(
    stores: &Stores,
    environment: &Environment,
    agent: &OtelAgent,
    in_force: &InForce,
    selection: Option<&Selection>,
    exclusions: &[Selection],
) -> PodReport {
    let own = agent.namespace().unwrap_or_default();
    let label = names::agent_label(&own, &agent.name_any());
    // Elsewhere a pod that bears the label was not injected: anybody may label pods.
    let reaches = |name: &str| name == own || environment.is_platform(&own);
    let labels_of = stores.namespaces.read();
    let known = stores.pods.read();
    // Others of the cluster's pods can neither be this object's nor be missed by it.
    let namespaces: Vec<_> = known
        .namespaces()
        .filter(|(name, _)| !environment.is_excluded(name) && reaches(name))
        .map(|(name, namespace)| (name, labels_of.labels(name), namespace))
        .filter(|(name, labels, namespace)| {
            namespace.has_injected(&label)
                || selection.is_some_and(|selection| selection.in_namespace(name, labels))
        })
        .collect();
    let pods = namespaces.iter().flat_map(|(namespace, labels, of)| {
        of.pods().map(|(name, pod)| LivePod {
            namespace,
            namespace_labels: labels,
            labels: &pod.labels,
            name,
            node: pod.runs_on(),
            controller: pod.controller.as_deref(),
            terminating: pod.terminating,
            ready: pod.ready,
        })
    });
    let serving = in_force
        .mode
        .zip(in_force.recipe.as_deref())
        .map(|(mode, recipe)| Serving { mode, recipe });
    let coverage = coverage(&stores.nodes.read().0, &known, agent, &label);
    let serving = serving.as_ref();
    count(&label, serving, selection, exclusions, &coverage, pods)
}

/// Where the agents of one `OtelAgent` are ready.
fn coverage(nodes: &NodeState, known: &Pods, agent: &OtelAgent, label: &str) -> Coverage {
    let nodes = nodes.iter();
    let mut coverage = Coverage {
        nodes: nodes
            .filter(|(_, ready)| **ready)
            .map(|(name, _)| name.clone())
            .collect(),
        ..Coverage::default()
    };
    let namespace = agent.namespace().unwrap_or_default();
    let agents = known.agents_of(&namespace, label);
    for (_, pod) in agents.filter(|(_, pod)| pod.ready) {
        let mode = pod.labels.get(names::LABEL_WORKLOAD);
        let mode = mode.and_then(|mode| Mode::parse(mode));
        if let Some((mode, node)) = mode.zip(pod.runs_on()) {
            let ready = coverage.ready.entry(mode).or_default();
            ready.insert(node.to_owned());
        }
    }
    if agent.spec.node_local.routing == Routing::Prefer {
        coverage.anywhere.insert(Mode::NodeLocal);
    }
    coverage
}
