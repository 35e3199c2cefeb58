//! The form of the status and of a mismatch.

use serde_json::json;

use super::super::mismatches;
use super::{
    accepts, reports, settled, settled_sidecar, switching, tell, with_missed_pod, with_status,
};

#[test]
fn settled_agents_have_no_mismatch() {
    accepts(settled());
    accepts(settled_sidecar());
    accepts(switching());
    accepts(with_missed_pod(settled()));
}

#[test]
fn mismatch_names_field_values_and_sentence() {
    let view = with_status(settled(), "pods.missed", json!(7));
    let found = mismatches(&view);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        found[0].to_string(),
        "status.pods.missed is 7, not 0 (crds/otelagents.yaml: \"Running selected pods that this agent did not inject.\")"
    );
}

#[test]
fn older_generation_is_reported() {
    reports(
        with_status(settled(), "observedGeneration", json!(2)),
        &["observedGeneration"],
    );
    let mut view = settled();
    view.agent["status"]["conditions"][1]["observedGeneration"] = 2.into();
    reports(view, &["conditions.Ready"]);
}

#[test]
fn missing_status_is_reported() {
    let mut view = settled();
    view.agent["status"] = json!(null);
    let found = super::fields(view);
    for field in ["observedGeneration", "conditions", "pods.injected", "mode"] {
        assert!(
            found.iter().any(|found| found == field),
            "{field} not in {found:?}"
        );
    }
}

#[test]
fn conditions_are_complete_known_and_unique() {
    let mut view = settled();
    view.agent["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .remove(2);
    reports(view, &["conditions"]);
    let mut view = settled();
    tell(&mut view, "Other", "True", "Any", "any");
    reports(view, &["conditions"]);
    let mut view = settled();
    let again = view.agent["status"]["conditions"][0].clone();
    view.agent["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(again);
    reports(view, &["conditions"]);
}

#[test]
fn condition_without_reason_or_message_is_reported() {
    let mut view = settled();
    tell(&mut view, "Accepted", "True", "", "the spec is valid");
    reports(view, &["conditions.Accepted"]);
    let mut view = settled();
    tell(&mut view, "Ready", "True", "Serving", "");
    reports(view, &["conditions.Ready"]);
    let mut view = settled();
    tell(
        &mut view,
        "Switching",
        "Perhaps",
        "Settled",
        "every pod uses NodeLocal",
    );
    reports(view, &["conditions.Switching"]);
}
