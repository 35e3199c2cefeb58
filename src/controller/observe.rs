//! Reading the caches: what is so of one `OtelAgent`, as values for the pure rooms.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::slim::SlimPod;
use super::stores::{Stores, namespace_labels, serves};
use crate::api::{Mode, OtelAgent, Routing};
use crate::desired::{Environment, Object, ValidAgent, topology};
use crate::inject::Selection;
use crate::names;
use crate::status::{Coverage, LivePod, PodReport, Serving, count};
use crate::switching::{AgentPod, MaxUnready, NodeState, Vehicle, VehicleState};

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
    let entry = annotation(names::ANNOTATION_ENTRY).map(|hash| format!("webhook {hash}"));
    InForce {
        mode: annotation(names::ANNOTATION_SERVING).and_then(Mode::parse),
        recipe: annotation(names::ANNOTATION_RECIPE).map(Into::into),
        selection: annotation(names::ANNOTATION_SELECTION)
            .and_then(|text| serde_json::from_str(text).ok()),
        policy: policy.or(entry),
        bound_at: annotation(names::ANNOTATION_BOUND_AT).and_then(|text| text.parse().ok()),
        because: annotation(names::ANNOTATION_BECAUSE).map(Into::into),
        written_by: annotation(names::ANNOTATION_OPERATOR).map(Into::into),
    }
}

/// Vehicles that exist, and since when each has had no user.
pub(crate) fn vehicles(
    stores: &Stores,
    namespace: &str,
    label: &str,
) -> BTreeMap<Mode, Option<Timestamp>> {
    let found = |mode| {
        stores
            .daemon_set(namespace, label, mode)
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

/// What is so of a node mode's vehicle, measured against the template it should have. A vehicle that
/// does not exist yet is waited for.
pub(crate) fn vehicle_state(
    stores: &Stores,
    agent: &ValidAgent,
    environment: &Environment,
    mode: Mode,
) -> Option<VehicleState> {
    if !mode.on_nodes() {
        return None;
    }
    let template = wanted_template(agent, environment, mode);
    let label = agent.label();
    let Some(object) = stores.daemon_set(&agent.namespace, &label, mode) else {
        return Some(VehicleState::pending("it does not exist yet"));
    };
    let vehicle = vehicle(stores, &object, &label, mode);
    Some(vehicle.state(&node_states(stores), &template, agent.max_unready))
}

/// Vehicles beside the wanted one of which some node has no agent but one of an older spec.
pub(crate) fn outdated(
    stores: &Stores,
    agent: &ValidAgent,
    environment: &Environment,
) -> BTreeSet<Mode> {
    let label = agent.label();
    let is_outdated = |mode: &Mode| {
        let found = stores.daemon_set(&agent.namespace, &label, *mode);
        found.is_some_and(|object| {
            let template = wanted_template(agent, environment, *mode);
            vehicle(stores, &object, &label, *mode).is_outdated(&node_states(stores), &template)
        })
    };
    let others = Mode::ALL.into_iter().filter(|mode| *mode != agent.wanted());
    others.filter(is_outdated).collect()
}

fn wanted_template(agent: &ValidAgent, environment: &Environment, mode: Mode) -> String {
    let objects = topology(mode).objects(agent, environment);
    objects.iter().find_map(template_of).unwrap_or_default()
}

/// What is so of a vehicle as it stands, whatever it should be: for objects whose spec is refused.
pub(crate) fn standing_vehicle(
    stores: &Stores,
    namespace: &str,
    label: &str,
    mode: Mode,
) -> Option<VehicleState> {
    let object = stores.daemon_set(namespace, label, mode)?;
    let vehicle = vehicle(stores, &object, label, mode);
    let template = vehicle.template.clone();
    Some(vehicle.state(&node_states(stores), &template, MaxUnready::default()))
}

fn vehicle(stores: &Stores, object: &DaemonSet, label: &str, mode: Mode) -> Vehicle {
    let status = object.status.clone().unwrap_or_default();
    let pods = stores
        .pods
        .state_filter(|pod: &SlimPod| serves(pod.labels(), label, mode));
    Vehicle {
        observed: status.observed_generation.is_some()
            && status.observed_generation == object.metadata.generation,
        desired: status.desired_number_scheduled,
        template: template_label(object).unwrap_or_default(),
        pods: pods
            .iter()
            .map(|pod| AgentPod {
                name: pod.name_any(),
                node: pod.spec.node().map(Into::into),
                ready: pod.status.is_ready() && pod.metadata.deletion_timestamp.is_none(),
                waits_for: pod.status.waits_for(),
                template: pod.labels().get(names::LABEL_TEMPLATE).cloned(),
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
    let live = stores.daemon_set(&agent.namespace, &agent.label(), mode)?;
    let version = live.annotations().get(names::ANNOTATION_OPERATOR)?;
    let differs = *version != environment.operator_version
        && template_label(&live).unwrap_or_default() != wanted_template(agent, environment, mode);
    differs.then(|| version.clone())
}

fn template_of(object: &Object) -> Option<String> {
    match object {
        Object::DaemonSet(object) => template_label(object),
        Object::Service(_) => None,
    }
}

fn template_label(object: &DaemonSet) -> Option<String> {
    object
        .spec
        .as_ref()?
        .template
        .metadata
        .as_ref()?
        .labels
        .as_ref()?
        .get(names::LABEL_TEMPLATE)
        .cloned()
}

fn node_states(stores: &Stores) -> NodeState {
    stores
        .nodes
        .state()
        .iter()
        .map(|node| (node.name_any(), node.status.is_ready()))
        .collect()
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
    let label = names::agent_label(&agent.namespace().unwrap_or_default(), &agent.name_any());
    let live = stores
        .pods
        .state_filter(|pod: &SlimPod| !pod.is_mirror() && !is_system(pod, environment));
    let names_of: Vec<String> = live
        .iter()
        .map(|pod| pod.namespace().unwrap_or_default())
        .collect();
    let mut namespaces: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for name in &names_of {
        namespaces
            .entry(name)
            .or_insert_with(|| namespace_labels(&stores.namespaces, name));
    }
    let pods = live.iter().zip(&names_of).map(|(pod, namespace)| LivePod {
        namespace,
        namespace_labels: &namespaces[namespace.as_str()],
        labels: pod.labels(),
        name: pod.metadata.name.as_deref().unwrap_or_default(),
        node: pod.spec.node_name.as_deref(),
        controller: pod.owner_references().first(),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        ready: pod.status.is_ready(),
    });
    let serving = in_force
        .mode
        .zip(in_force.recipe.as_deref())
        .map(|(mode, recipe)| Serving { mode, recipe });
    let coverage = coverage(stores, agent, &label);
    let serving = serving.as_ref();
    count(&label, serving, selection, exclusions, &coverage, pods)
}

/// Where the agents of one `OtelAgent` are ready.
fn coverage(stores: &Stores, agent: &OtelAgent, label: &str) -> Coverage {
    let nodes = node_states(stores).into_iter();
    let mut coverage = Coverage {
        nodes: nodes
            .filter_map(|(name, ready)| ready.then_some(name))
            .collect(),
        ..Coverage::default()
    };
    let ready = stores.pods.state_filter(|pod: &SlimPod| {
        pod.labels()
            .get(names::LABEL_OWNER)
            .is_some_and(|owner| owner == label)
            && pod.status.is_ready()
    });
    for pod in ready {
        let mode = pod.labels().get(names::LABEL_VEHICLE);
        let mode = mode.and_then(|mode| Mode::parse(mode));
        if let Some((mode, node)) = mode.zip(pod.spec.node_name.clone()) {
            coverage.ready.entry(mode).or_default().insert(node);
        }
    }
    if agent.spec.node_local.routing == Routing::Prefer {
        coverage.anywhere.insert(Mode::NodeLocal);
    }
    coverage
}

/// Namespaces whose pods nobody injects.
fn is_system(pod: &SlimPod, environment: &Environment) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    environment
        .excluded_namespaces()
        .any(|excluded| excluded == namespace)
}
