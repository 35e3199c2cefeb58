//! Pods whose annotations choose containers and attributes.

use otelagent_core::names;
use serde_json::json;

use crate::pod_case::{ATTRIBUTES, Case, ENDPOINT, Seen, annotated, app, case, pod};

pub(super) fn cases() -> Vec<Case> {
    let choosing = |names: &str| {
        pod(
            json!({"name": "shape", "annotations": {names::ANNOTATION_CONTAINERS: names}}),
            json!({"containers": [app(json!({})), {"name": "dind", "image": "docker"}]}),
        )
    };
    let only_app = |seen: &Seen| {
        seen.warned();
        for name in [ENDPOINT, ATTRIBUTES, "OTELAGENT_POD_NAME"] {
            seen.without("dind", name);
        }
    };
    let unknown = |seen: &Seen| seen.advised("containers that it does not have: wroker");
    let left_out = |seen: &Seen| {
        seen.warned();
        assert!(
            !seen
                .value("app", ATTRIBUTES)
                .contains("service.instance.id")
        );
    };
    let too_long = |seen: &Seen| {
        seen.warned();
        assert!(!seen.value("app", ATTRIBUTES).contains("note="));
    };
    let alike = |name, pod, check: fn(&Seen)| case(name, pod, check, check);
    let note = annotated("resource.opentelemetry.io/note", &"x".repeat(256));
    let left_empty = annotated("resource.opentelemetry.io/service.instance.id", "");
    vec![
        alike("containers chosen by annotation", choosing("app"), only_app),
        alike(
            "a container chosen that does not exist",
            choosing("app, wroker"),
            unknown,
        ),
        alike(
            "an attribute left out by an empty annotation",
            left_empty,
            left_out,
        ),
        alike("an annotation of more than 255 characters", note, too_long),
    ]
}
