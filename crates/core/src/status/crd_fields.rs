//! Fits a status to the CRD of an older release, which lacks some of its fields.
//!
//! The API server refuses a server-side apply with a field that the schema does not have, so without this nothing of
//! the status would be written.

use std::collections::BTreeSet;

use otelagent_api::{ACCEPTED, OtelAgentStatus};
use serde_json::{Value, json};

/// How the API server ends the line of each field that the schema lacks.
const NOT_DECLARED: &str = ": field not declared in schema";

/// The fields of a status that a refusal says the schema lacks, such as `.status.pods.orphaned`.
pub fn undeclared(refusal: &str) -> Vec<String> {
    let lines = refusal.lines().map(str::trim_end);
    let fields = lines.filter_map(|line| line.strip_suffix(NOT_DECLARED)?.rsplit(' ').next());
    let of_status = fields.filter(|field| field.starts_with(".status."));
    of_status.map(str::to_owned).collect()
}

/// The status without the fields that the CRD lacks, which its condition `Accepted` names.
pub fn fitted(status: OtelAgentStatus, lacking: &BTreeSet<String>) -> OtelAgentStatus {
    if lacking.is_empty() {
        return status;
    }
    let Ok(mut fitted) = serde_json::from_value::<OtelAgentStatus>(without(&status, lacking))
    else {
        return status;
    };
    let mut conditions = fitted.conditions.iter_mut();
    if let Some(accepted) = conditions.find(|condition| condition.type_ == ACCEPTED) {
        let fields: Vec<&str> = lacking.iter().map(|field| &field[1..]).collect();
        let hint = format!(
            "; the CRD is of an older release than the operator and lacks {}: apply the CRD of this release (crds/, or \
             with Helm, set crds.enabled)",
            fields.join(", ")
        );
        accepted.message.push_str(&hint);
    }
    fitted
}

/// The status as the CRD can hold it.
pub fn without(status: &OtelAgentStatus, lacking: &BTreeSet<String>) -> Value {
    let mut whole = json!({"status": status});
    for field in lacking {
        remove(&mut whole, field.trim_start_matches('.'));
    }
    whole["status"].take()
}

fn remove(of: &mut Value, path: &str) {
    let Some(fields) = of.as_object_mut() else {
        return;
    };
    match path.split_once('.') {
        None => {
            fields.remove(path);
        }
        Some((first, rest)) => {
            if let Some(inner) = fields.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_one_field_or_several() {
        let one = "failed to create typed patch object (shop/side; otelagent.dev/v1alpha1, Kind=OtelAgent): \
                   .status.delivery: field not declared in schema";
        assert_eq!(undeclared(one), [".status.delivery"]);
        let several = "failed to create typed patch object (a/b; c, Kind=OtelAgent): errors:\n  .status.pods.orphaned: field \
                       not declared in schema\n  .status.delivery: field not declared in schema";
        let expected = [".status.pods.orphaned", ".status.delivery"];
        assert_eq!(undeclared(several), expected);
        assert!(undeclared("etcdserver: request timed out").is_empty());
    }

    #[test]
    fn status_loses_what_the_crd_lacks_and_says_so() {
        let status = json!({
            "mode": "Sidecar",
            "pods": {"injected": 2, "current": 2, "stale": 0, "missed": 1, "orphaned": 1, "uninjectable": 0, "uncovered": 0},
            "delivery": {"asked": 1, "delivering": 1, "idle": 0, "failing": 0, "unanswered": 0},
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Valid", "message": "the spec is valid",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        let status: OtelAgentStatus = serde_json::from_value(status).unwrap();
        assert_eq!(fitted(status.clone(), &BTreeSet::new()), status);
        let lacking = [".status.delivery", ".status.pods.orphaned"].map(str::to_owned);
        let lacking = lacking.into();
        let found = fitted(status, &lacking);
        assert!(without(&found, &lacking)["pods"].get("orphaned").is_none());
        let pods = found.pods.unwrap();
        assert!(found.delivery.is_none() && pods.orphaned == 0 && pods.missed == 1);
        let message = &found.conditions[0].message;
        assert!(
            message.contains("lacks status.delivery, status.pods.orphaned"),
            "{message}"
        );
    }
}
