//! What the metrics show of every `OtelAgent`.

use kube::ResourceExt;
use kube::runtime::reflector::Store;
use otelagent_api::{CONDITIONS, OtelAgentStatus};
use otelagent_core::names;
use otelagent_core::read::Decoded;

use crate::runtime::{Counted, ShownAgent};

/// What a condition can be.
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

/// All objects as their status reports them.
pub(crate) fn shown(agents: &Store<Decoded>) -> Vec<ShownAgent> {
    let agents = agents.state().into_iter();
    agents.map(|agent| of_one(&agent)).collect()
}

/// Tenants can write into a status: of other types and values than the operator's nothing is shown.
fn of_one(agent: &Decoded) -> ShownAgent {
    let (status, wanted) = match &agent.agent {
        Ok(agent) => (agent.status.as_ref(), Some(agent.spec.mode)),
        Err(unreadable) => (unreadable.status.as_ref(), None),
    };
    let conditions = status.map_or(&[][..], |status| &status.conditions);
    let shown = |type_: &'static str| {
        let found = conditions.iter().find(|found| found.type_ == type_)?;
        let mut statuses = STATUSES.into_iter();
        Some((type_, statuses.find(|status| *status == found.status)?))
    };
    let serving = status.and_then(|status| status.mode);
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    ShownAgent {
        label: names::agent_label(&namespace, &name),
        namespace,
        name,
        conditions: CONDITIONS.into_iter().filter_map(shown).collect(),
        modes: wanted.map(|mode| (mode.as_str(), serving.map_or("", |mode| mode.as_str()))),
        counts: status.map(counts).unwrap_or_default(),
    }
}

fn counts(status: &OtelAgentStatus) -> Vec<(Counted, &'static str, i32)> {
    let mut counts = Vec::new();
    let mut add = |of: Counted, numbers: &[(&'static str, i32)]| {
        counts.extend(numbers.iter().map(|(state, number)| (of, *state, *number)));
    };
    if let Some(agents) = &status.agents {
        let numbers = [
            ("desired", agents.desired),
            ("ready", agents.ready),
            ("updated", agents.updated),
        ];
        add(Counted::Agents, &numbers);
    }
    if let Some(pods) = &status.pods {
        let numbers = [
            ("injected", pods.injected),
            ("current", pods.current),
            ("stale", pods.stale),
            ("missed", pods.missed),
            ("orphaned", pods.orphaned),
            ("uninjectable", pods.uninjectable),
            ("uncovered", pods.uncovered),
        ];
        add(Counted::Pods, &numbers);
    }
    if let Some(delivery) = &status.delivery {
        let numbers = [
            ("asked", delivery.asked),
            ("delivering", delivery.delivering),
            ("idle", delivery.idle),
            ("failing", delivery.failing),
            ("unanswered", delivery.unanswered),
        ];
        add(Counted::Delivery, &numbers);
    }
    if let Some(restarts) = &status.restarts {
        let numbers = [
            ("running", restarts.running),
            ("waiting", restarts.waiting),
            ("stuck", restarts.stuck),
            ("not_restartable", restarts.not_restartable),
        ];
        add(Counted::Restarts, &numbers);
    }
    counts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_is_shown_and_forged_conditions_are_not() {
        let condition = |type_: &str, status: &str| {
            json!({
                "type": type_, "status": status, "reason": "Any", "message": "any",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let conditions = [
            condition("Ready", "True"),
            condition("Delivering", "Unknown"),
            condition("Injected", "Perhaps"),
            condition("Forged", "True"),
        ];
        let status = json!({
            "conditions": conditions,
            "mode": "HostPort",
            "agents": {"desired": 3, "ready": 2, "updated": 1},
            "pods": {"injected": 7, "current": 4, "stale": 3, "missed": 2, "uncovered": 1},
        });
        let read = |spec| -> Decoded {
            serde_json::from_value(json!({
                "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
                "metadata": {"name": "node", "namespace": "shop"}, "spec": spec, "status": status,
            }))
            .unwrap()
        };
        let readable = json!({"mode": "Sidecar", "export": {"endpoint": "http://x:4317"}});
        let both = Some(("Sidecar", "HostPort"));
        for (spec, modes) in [(readable, both), (json!({"mode": 3}), None)] {
            let shown = of_one(&read(spec));
            assert_eq!((&*shown.namespace, &*shown.name), ("shop", "node"));
            assert_eq!(shown.label, "shop.node");
            let expected = [("Ready", "True"), ("Delivering", "Unknown")];
            assert_eq!(shown.conditions, expected);
            assert_eq!(shown.modes, modes);
            let number = |of: Counted, state: &str| {
                let mut found = shown.counts.iter();
                found
                    .find(|(counted, name, _)| (*counted, *name) == (of, state))
                    .map(|(.., number)| *number)
            };
            assert_eq!(number(Counted::Agents, "ready"), Some(2));
            assert_eq!(number(Counted::Pods, "stale"), Some(3));
            assert_eq!(number(Counted::Pods, "uninjectable"), Some(0));
            assert_eq!(number(Counted::Delivery, "asked"), None);
        }
    }
}
