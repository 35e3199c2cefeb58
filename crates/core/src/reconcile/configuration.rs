//! The configuration of agents on nodes: a `ConfigMap` with a key for each hash of what agents read only when they
//! start. So an agent never sees a file that it could not take over, and finds its own when it restarts.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::observation::ObservedWorkload;
use super::step::Mount;
use crate::names;
use crate::switching::WantedAgents;

/// Adds the live keys that agents of an earlier template still mount.
pub(super) fn keep_used(body: &mut Value, live: &Value, workload: Option<&ObservedWorkload>) {
    let Some(used) = workload.map(Used::of) else {
        return;
    };
    for (key, text) in live["data"].as_object().into_iter().flatten() {
        if used.has(key) && body["data"][key].is_null() {
            body["data"][key] = text.clone();
        }
    }
}

/// The keys that agents mount, or may mount.
struct Used {
    keys: BTreeSet<String>,
    /// Its controller may still make pods of any earlier template.
    any: bool,
}

impl Used {
    fn of(workload: &ObservedWorkload) -> Self {
        let template = &workload.object["spec"]["template"]["metadata"]["labels"];
        let next = template[names::LABEL_START_CONFIG].as_str();
        let pods = workload.workload.pods.iter();
        let pods = pods.filter_map(|pod| pod.start.as_deref());
        Self {
            keys: pods.chain(next).map(names::configuration_key).collect(),
            any: !workload.workload.observed,
        }
    }

    fn has(&self, key: &str) -> bool {
        self.any || self.keys.contains(key)
    }
}

/// The agents whose kubelets are to mount what is written now: those that run another configuration under the same
/// key. Without it, kubelets take up to two minutes.
pub(super) fn mount(
    wanted: &ConfigMap,
    agents: WantedAgents<'_>,
    live: Option<&Value>,
    workload: Option<&ObservedWorkload>,
) -> Option<Mount> {
    let mut data = wanted.data.iter().flatten();
    let (key, _) = data.find(|(key, text)| live.is_some_and(|live| live["data"][key] != **text))?;
    let pods = workload?.workload.pods.iter();
    let pods = pods.filter(|pod| {
        let start = pod.start.as_deref().map(names::configuration_key);
        let runs = pod.word.as_ref().map(|word| word.runs.as_str());
        start.as_ref() == Some(key) && (runs.is_none() || runs != agents.configuration)
    });
    let pods: Vec<String> = pods.map(|pod| pod.name.clone()).collect();
    (!pods.is_empty()).then(|| Mount {
        pods,
        configuration: agents.configuration.unwrap_or_default().into(),
    })
}
