//! Reads everything that the caches hold about one `OtelAgent`, once.

use std::cell::{Cell, LazyCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::{
    MAX_PER_NAMESPACE, NodePorts, PORT_IN_USE, PortUser, Problem, ValidAgent, port_problem,
};
use otelagent_core::inject::Selection;
use otelagent_core::inject::kinds::ADMISSION_KINDS;
use otelagent_core::inject::precedence::{self, Candidate};
use otelagent_core::names;
use otelagent_core::pods::{Coverage, LivePod, PodTally, count};
use otelagent_core::read::Decoded;
use otelagent_core::reconcile::overlap::{self, KnownAgents, created, may_meet, refusal};
use otelagent_core::reconcile::{Active, AdmissionObject, Observation, binding_kind};
use otelagent_core::switching::{NodeStates, mode_served};
use serde_json::Value;

use super::context::Context;
use crate::cache::{Demand, Stores, agent_workload, in_namespaces};

/// How many `OtelAgent`s that do not exist a log line names.
const MAX_NAMED: usize = 5;

/// Everything that the caches hold about one `OtelAgent`. Without `valid` its spec was refused, and the
/// active binding says which pods it selects.
pub(crate) fn observe<'a>(
    context: &Context,
    agent: &'a OtelAgent,
    valid: Option<&ValidAgent>,
) -> Observation<'a> {
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let admission = admission_objects(&context.stores, agent);
    let own = names::cluster_object(&namespace, &name, None);
    let active = active(context, &admission, &own);
    // An object over quota takes no pods, so its exclusions do not matter.
    let is_platform = context.environment.is_platform(&namespace);
    let preceding = if is_platform || older(&context.stores, agent) < MAX_PER_NAMESPACE {
        preceding(context, agent)
    } else {
        Vec::new()
    };
    let exclusions = precedence::exclusions(&preceding);
    let selection = match valid {
        Some(valid) => valid.selection.clone(),
        None => active.selection.clone(),
    };
    let nodes = context.stores.nodes.read().states();
    let workloads = Mode::ALL.into_iter().filter_map(|mode| {
        let found = context.stores.daemon_set(&namespace, &name, mode)?;
        Some((mode, agent_workload(&context.stores, agent, &found, mode)))
    });
    Observation {
        now: Timestamp::now(),
        agent,
        pods: pods(context, agent, &nodes, selection.as_ref(), &exclusions),
        selects_namespaces: selects_namespaces(context, selection.as_ref()),
        namespace_limits: namespace_limits(context, agent, selection.as_ref()),
        active,
        exclusions,
        preceding: preceding
            .iter()
            .map(|other| format!("{}/{}", other.namespace, other.name))
            .collect(),
        workloads: workloads.collect(),
        service: service(&context.stores, &namespace, &name),
        nodes,
        admission,
        unconfirmed: BTreeSet::new(),
        used: BTreeMap::new(),
    }
}

/// Cluster-scoped objects whose names contain that of an `OtelAgent`.
fn admission_objects(stores: &Stores, agent: &OtelAgent) -> Vec<AdmissionObject> {
    let own = Some((agent.namespace().unwrap_or_default(), agent.name_any()));
    let uid = agent.uid().unwrap_or_default();
    let mut found = Vec::new();
    for kind in ADMISSION_KINDS {
        let Some(store) = stores.admission.get(kind) else {
            continue;
        };
        let named =
            |object: &DynamicObject| names::owner_of_cluster_object(&object.name_any()) == own;
        for object in store.state_filter(named) {
            let owner = object.labels().get(names::LABEL_OWNER_UID);
            found.push(AdmissionObject {
                kind,
                name: object.name_any(),
                uid: object.uid(),
                is_ours: owner.is_some_and(|owner| *owner == uid),
                object: serde_json::to_value(object.as_ref()).unwrap_or_default(),
            });
        }
    }
    found
}

/// What new pods get: from the chosen engine or, until that is active, from the other one. The name of the
/// canary's binding has a further part, the real binding's has none.
fn active(context: &Context, admission: &[AdmissionObject], name: &str) -> Active {
    let found = context.engines().into_iter().find_map(|engine| {
        let kind = binding_kind(engine);
        let mut own = admission.iter();
        own.find(|object| object.kind == kind && object.is_ours && object.name == name)
    });
    found
        .map(|found| Active::of(&found.object))
        .unwrap_or_default()
}

fn service(stores: &Stores, namespace: &str, name: &str) -> Option<Value> {
    let reference = ObjectRef::<Service>::new(name).within(namespace);
    let found = stores.platform.get(namespace)?.services.get(&reference)?;
    serde_json::to_value(found.as_ref()).ok()
}

/// Counts the pods of one `OtelAgent`.
fn pods(
    context: &Context,
    agent: &OtelAgent,
    nodes: &NodeStates,
    selection: Option<&Selection>,
    exclusions: &[Selection],
) -> PodTally {
    let environment = &context.environment;
    let own = agent.namespace().unwrap_or_default();
    let label = names::agent_label(&own, &agent.name_any());
    // In other namespaces the label does not mean that a pod was injected: tenants may set it.
    let reaches = |name: &str| name == own || environment.is_platform(&own);
    let labels_of = context.stores.namespaces.read();
    let known = context.stores.pods.read();
    // Only namespaces with injected or selected pods matter.
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
            outline: &pod.outline,
        })
    });
    let agents = known.agents_of(&own, &label);
    let ready = agents.filter(|(_, pod)| pod.ready);
    let ready = ready.filter_map(|(_, pod)| mode_served(&pod.labels).zip(pod.runs_on()));
    let coverage = Coverage::of(nodes, ready, agent.spec.node_local.routing);
    // Only pods of others are asked about, which are few.
    let agents = LazyCell::new(|| known_agents(context));
    let exists = |label: &str, namespace: &str| agents.reach(label, namespace);
    count(&label, selection, exclusions, &coverage, exists, pods)
}

fn known_agents(context: &Context) -> KnownAgents<'_> {
    let agents = context.stores.agents.state();
    let agents = agents.iter().map(|agent| agent.meta());
    KnownAgents::of(agents, &context.environment)
}

/// How many pods were injected for an `OtelAgent` that does not exist, whether or not another selects them, and
/// the labels of some of these `OtelAgent`s.
pub(crate) fn orphans(context: &Context) -> (usize, BTreeSet<String>) {
    let agents = known_agents(context);
    let (mut pods, mut labels) = (0, BTreeSet::new());
    for (namespace, of_namespace) in context.stores.pods.read().namespaces() {
        let injected = of_namespace.injected().into_iter();
        for (label, count) in injected.filter(|(label, _)| !agents.reach(label, namespace)) {
            pods += count;
            if labels.len() < MAX_NAMED {
                labels.insert(label.to_owned());
            }
        }
    }
    (pods, labels)
}

/// Whether a selection selects any namespace that exists and may be injected.
fn selects_namespaces(context: &Context, selection: Option<&Selection>) -> bool {
    let namespaces = context.stores.namespaces.read();
    selection.is_some_and(|selection| {
        let mut all = namespaces.all();
        all.any(|(name, labels)| {
            !context.environment.is_excluded(name) && selection.in_namespace(name, labels)
        })
    })
}

/// What the selected namespaces demand of a sidecar. Node agents run in the `OtelAgent`'s own namespace.
fn namespace_limits(
    context: &Context,
    agent: &OtelAgent,
    selection: Option<&Selection>,
) -> Vec<Demand> {
    let Some(selection) = selection.filter(|_| agent.spec.mode == Mode::Sidecar) else {
        return Vec::new();
    };
    let stores = &context.stores;
    let labels = stores.namespaces.read();
    in_namespaces(
        &stores.limit_ranges.read(),
        &stores.resource_quotas.read(),
        |namespace| {
            !context.environment.is_excluded(namespace)
                && selection.in_namespace(namespace, &labels.labels(namespace))
        },
    )
}

/// Other `OtelAgent`s that take precedence over one and may select its pods, oldest first.
fn preceding(context: &Context, agent: &OtelAgent) -> Vec<Candidate> {
    let Some(me) = candidate(context, agent) else {
        return Vec::new();
    };
    let all = context.stores.agents.state();
    let others = all.iter().filter_map(|other| other.agent.as_ref().ok());
    let platform = &context.environment.platform_namespaces;
    let others: Vec<Candidate> = others
        .filter(|other| may_meet(&agent.metadata, &other.metadata, platform))
        .filter_map(|other| candidate(context, other))
        .collect();
    let preceding = precedence::preceding(&me, &others).into_iter();
    preceding.cloned().collect()
}

fn candidate(context: &Context, agent: &OtelAgent) -> Option<Candidate> {
    overlap::candidate(agent, &context.environment, || {
        let name = names::cluster_object(&agent.namespace()?, &agent.name_any(), None);
        let found = context.engines().into_iter().find_map(|engine| {
            let store = context.stores.admission.get(binding_kind(engine))?;
            store.find(|object| object.name_any() == name)
        })?;
        Active::of(&serde_json::to_value(found.as_ref()).ok()?).selection
    })
}

/// How many `OtelAgent`s of its namespace are older than one. Stops counting at the quota: there may be
/// thousands.
pub(crate) fn older(stores: &Stores, agent: &OtelAgent) -> usize {
    let own = &agent.metadata;
    let counted = Cell::new(0);
    let _enough = stores.agents.find(|other| {
        let other = other.meta();
        if other.namespace == own.namespace && rank(other) < rank(own) {
            counted.set(counted.get() + 1);
        }
        counted.get() == MAX_PER_NAMESPACE
    });
    counted.get()
}

fn rank(of: &ObjectMeta) -> (Option<&Time>, Option<&String>) {
    (of.creation_timestamp.as_ref(), of.name.as_ref())
}

/// The problem of an object that needs ports which another one has. Without a problem, it has its ports from now
/// on.
pub(super) fn node_port_problem(context: &Context, agent: &OtelAgent) -> Option<Problem> {
    NodePorts::wanted(&agent.spec)?;
    let known = context.stores.agents.state();
    let given = &context.given_ports;
    let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = |metadata: &ObjectMeta, agent: Option<&OtelAgent>| {
        let is_given = given.get(metadata.uid.as_deref().unwrap_or_default());
        let is_given = is_given == Some(&metadata.generation);
        user(context, metadata, agent, is_given)
    };
    let others = known.iter().filter(|other| is_asking(context, other));
    let others = others.filter(|other| other.metadata.uid != agent.metadata.uid);
    let others: Vec<PortUser> = others
        .map(|other| {
            let asking = other.agent.as_ref().ok().filter(|agent| is_accepted(agent));
            seen(&other.metadata, asking)
        })
        .collect();
    let me = seen(&agent.metadata, Some(agent));
    let problem = port_problem(&me, agent.spec.ports, &others);
    let uid = agent.uid().unwrap_or_default();
    match problem {
        None => given.insert(uid, agent.metadata.generation),
        Some(_) => given.remove(&uid),
    };
    problem
}

/// Only platform namespaces have agents on nodes, and an object that is deleted takes them with it.
fn is_asking(context: &Context, other: &Decoded) -> bool {
    let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
    other.metadata.deletion_timestamp.is_none() && context.environment.is_platform(namespace)
}

/// Whether nothing but its ports is wrong with a spec.
fn is_accepted(agent: &OtelAgent) -> bool {
    refusal(agent).is_none_or(|reason| reason == PORT_IN_USE)
}

fn user(
    context: &Context,
    metadata: &ObjectMeta,
    asking: Option<&OtelAgent>,
    is_given: bool,
) -> PortUser {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let wanted = asking.and_then(|agent| NodePorts::wanted(&agent.spec));
    let running = Mode::ALL.into_iter().filter_map(|mode| {
        let found = context.stores.daemon_set(&namespace, &name, mode)?;
        NodePorts::running(mode, &found)
    });
    let given = wanted.clone().filter(|_| is_given);
    PortUser {
        created: created(metadata),
        running: running.chain(given).collect(),
        namespace,
        name,
        wanted,
    }
}
