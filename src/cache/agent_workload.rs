//! Reads an agent workload and its pods from the caches.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::names;
use otelagent_core::read::STARTING;
use otelagent_core::reconcile::ObservedWorkload;
use otelagent_core::switching::{AgentPod, AgentWorkload, creation_failure, serves};

use super::events::{STARTUP_PROBE, Warning, Warnings};
use super::pods::CachedPod;
use super::stores::Stores;

/// What the kubelet says of a container until its volumes and its sandbox are there.
const CREATING: &str = "ContainerCreating";

/// The agent workload of a mode, as the caches have it.
pub(crate) fn agent_workload(
    stores: &Stores,
    agent: &OtelAgent,
    object: &DaemonSet,
    mode: Mode,
) -> ObservedWorkload {
    let namespace = agent.namespace().unwrap_or_default();
    let label = names::agent_label(&namespace, &agent.name_any());
    let known = stores.pods.read();
    let pods = known.agents_of(&namespace, &label);
    let pods: Vec<_> = pods
        .filter(|(_, pod)| serves(&pod.labels, &label, mode))
        .collect();
    let warnings = stores.warnings.get(&namespace);
    let warnings = warnings.map(|warnings| warnings.read());
    let text = |key: &str| object.annotations().get(key);
    let newest = pods.iter().filter_map(|(_, pod)| created(pod)).max();
    let failed = warnings.as_deref().and_then(|warnings| {
        let uid = object.metadata.uid.as_deref();
        warnings.last("DaemonSet", &object.name_any(), uid)
    });
    let agents = pods.into_iter();
    let agents = agents.map(|(name, pod)| agent_pod(name, pod, warnings.as_deref()));
    ObservedWorkload {
        workload: AgentWorkload {
            cannot_create: being_deleted(object).or_else(|| {
                failed.and_then(|failed| creation_failure(&failed.message, failed.at, newest))
            }),
            ended: warnings
                .as_deref()
                .map(|warnings| warnings.ended(&object.name_any()))
                .unwrap_or_default(),
            ..AgentWorkload::of(object, agents.collect())
        },
        unused_since: text(names::ANNOTATION_UNUSED_SINCE).and_then(|text| text.parse().ok()),
        written_by: text(names::ANNOTATION_OPERATOR).cloned(),
        object: serde_json::to_value(object).unwrap_or_default(),
    }
}

/// What keeps a `DaemonSet` that somebody has deleted: no agents are created for it any more.
fn being_deleted(object: &DaemonSet) -> Option<String> {
    object.metadata.deletion_timestamp.as_ref()?;
    let keeps = object.finalizers().join(", ");
    let name = object.name_any();
    Some(format!(
        "DaemonSet {name} is being deleted, and is made again once it is gone (finalizers: {keeps})"
    ))
}

fn created(pod: &CachedPod) -> Option<Timestamp> {
    pod.agent.as_ref()?.created
}

/// What the agent said to its startup probe.
fn said_by_probe(warning: &Warning) -> Option<String> {
    let said = warning.message.strip_prefix(STARTUP_PROBE)?;
    Some(said.trim().to_owned())
}

fn agent_pod(name: &str, pod: &CachedPod, warnings: Option<&Warnings>) -> AgentPod {
    let details = pod.agent.as_deref();
    let waits_for = details.and_then(|details| details.waits_for.as_deref());
    let warning = || warnings?.last("Pod", name, None);
    let why = match waits_for {
        Some(CREATING) => warning().map(|said| format!("{CREATING}: {}", said.message)),
        Some(STARTING) => warning().and_then(said_by_probe),
        _ => None,
    };
    AgentPod {
        name: name.to_owned(),
        node: pod.node.as_deref().map(Into::into),
        ready: pod.ready && !pod.terminating,
        waits_for: why.or_else(|| waits_for.map(Into::into)),
        template: pod.labels.get(names::LABEL_TEMPLATE).cloned(),
    }
}
