//! The conditions of every `OtelAgent`, for the metric of them.

use kube::ResourceExt;
use kube::runtime::reflector::Store;
use otelagent_api::CONDITIONS;

use crate::cache::Decoded;
use crate::runtime::ShownCondition;

/// What a condition can be.
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

/// The conditions as they are reported. Tenants can write into a status: of other types and values nothing is shown.
pub(super) fn shown(agents: &Store<Decoded>) -> Vec<ShownCondition> {
    let agents = agents.state().into_iter();
    agents.flat_map(|agent| of_one(&agent)).collect()
}

fn of_one(agent: &Decoded) -> Vec<ShownCondition> {
    let status = match &agent.agent {
        Ok(agent) => agent.status.as_ref(),
        Err(unreadable) => unreadable.status.as_ref(),
    };
    let conditions = status.map_or(&[][..], |status| &status.conditions);
    let shown = |type_: &'static str| {
        let found = conditions.iter().find(|found| found.type_ == type_)?;
        let mut statuses = STATUSES.into_iter();
        Some(ShownCondition {
            namespace: agent.namespace().unwrap_or_default(),
            name: agent.name_any(),
            type_,
            status: statuses.find(|status| *status == found.status)?,
        })
    };
    CONDITIONS.into_iter().filter_map(shown).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_shown_by_their_status_and_forged_ones_are_not() {
        let condition = |type_: &str, status: &str| {
            json!({
                "type": type_, "status": status, "reason": "Any", "message": "any",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let status = json!({"conditions": [
            condition("Ready", "True"), condition("Delivering", "Unknown"),
            condition("Injected", "Perhaps"), condition("Forged", "True"),
        ]});
        let read = |spec| -> Decoded {
            serde_json::from_value(json!({
                "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
                "metadata": {"name": "node", "namespace": "shop"}, "spec": spec, "status": status,
            }))
            .unwrap()
        };
        let readable = json!({"mode": "Sidecar", "export": {"endpoint": "http://x:4317"}});
        for spec in [readable, json!({"mode": 3})] {
            let shown = of_one(&read(spec)).into_iter();
            let shown: Vec<_> = shown.map(|one| (one.name, one.type_, one.status)).collect();
            let expected = [("Ready", "True"), ("Delivering", "Unknown")];
            assert_eq!(
                shown,
                expected.map(|(type_, status)| ("node".to_owned(), type_, status))
            );
        }
    }
}
