//! The configuration of agents on nodes: a `ConfigMap` with a key for each pod template. So an agent never sees a file
//! that was made for another image, other limits or other variables, and finds its own when it restarts.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::step::Mount;
use crate::names;
use crate::switching::{AgentWorkload, WantedAgents};

/// Adds the live keys of earlier templates that agents mount, or may mount.
pub(super) fn keep_used(body: &mut Value, live: &Value, workload: Option<&AgentWorkload>) {
    for (key, text) in live["data"].as_object().into_iter().flatten() {
        if is_used(key, workload) && body["data"][key].is_null() {
            body["data"][key] = text.clone();
        }
    }
}

fn is_used(key: &str, workload: Option<&AgentWorkload>) -> bool {
    // A controller that has not observed a change may still make pods of any earlier template.
    let Some(workload) = workload.filter(|workload| workload.observed) else {
        return true;
    };
    let pods = workload.pods.iter();
    let mut templates = pods
        .filter_map(|pod| pod.template.as_deref())
        .chain([workload.template.as_str()]);
    templates.any(|template| names::configuration_key(template) == key)
}

/// The agents whose kubelets are to mount what is written now: those of the wanted template that do not run it yet.
/// Without it, kubelets take up to two minutes.
pub(super) fn mount(
    wanted: &ConfigMap,
    agents: WantedAgents<'_>,
    live: &Value,
    workload: Option<&AgentWorkload>,
) -> Option<Mount> {
    let mut data = wanted.data.iter().flatten();
    if data.all(|(key, text)| live["data"][key] == **text) {
        return None;
    }
    let configuration = agents.configuration?;
    let pods = workload?.pods.iter();
    let pods = pods.filter(|pod| {
        let runs = pod.word.as_ref().map(|word| word.runs.as_str());
        pod.template.as_deref() == Some(agents.template) && runs != Some(configuration)
    });
    let pods: Vec<String> = pods.map(|pod| pod.name.clone()).collect();
    (!pods.is_empty()).then(|| Mount {
        config_map: wanted.metadata.name.clone().unwrap_or_default(),
        pods,
        configuration: configuration.into(),
    })
}
