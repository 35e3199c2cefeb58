//! The outline of a pod has everything that decides whether it can be injected.

use otelagent_core::inject::outline::{outline, why_not_outlined};
use otelagent_core::inject::{Injection, Recipe, inject};
use otelagent_core::names;
use otelagent_test_support::pods::{any_pod, table};
use otelagent_test_support::recipes;
use proptest::prelude::*;
use serde_json::Value;

/// The word of the reason for the whole pod, and for its outline.
fn both(pod: &Value, recipe: &Recipe) -> [Option<&'static str>; 2] {
    let mut pod = pod.clone();
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("labels");
    }
    let annotations = pod["metadata"]["annotations"].clone();
    let annotations = serde_json::from_value(annotations).unwrap_or_default();
    let spec = serde_json::from_value(pod["spec"].clone()).expect("a pod that a server returns");
    let found = why_not_outlined(&outline(&annotations, spec, false), recipe);
    let whole = match inject(&pod, "shop", recipe) {
        Injection::Skipped(reason) => Some(reason.word()),
        Injection::Injected(_) => None,
    };
    // Mirror pods are not counted at all.
    [
        whole.filter(|word| *word != "MirrorPod"),
        found.map(|reason| reason.word()),
    ]
}

#[test]
fn outline_gives_the_reason_of_the_whole_pod_for_every_known_pod() {
    let mut reasons = std::collections::BTreeSet::new();
    for recipe in recipes::each() {
        for (name, pod) in table(recipe) {
            let [whole, outlined] = both(&pod, recipe);
            assert_eq!(outlined, whole, "{name}, {}: {pod:#}", recipe.mode);
            reasons.extend(whole);
        }
    }
    assert!(reasons.len() > 8, "{reasons:?}");
}

/// Of an injected pod it is that of one that is not injected yet.
#[test]
fn outline_of_an_injected_pod_lets_it_be_injected_again() {
    for recipe in recipes::each() {
        for (name, pod) in table(recipe) {
            let Injection::Injected(pod) = inject(&pod, "shop", recipe) else {
                continue;
            };
            assert!(pod["metadata"]["labels"][names::LABEL_AGENT].is_string());
            let annotations = pod["metadata"]["annotations"].clone();
            let annotations = serde_json::from_value(annotations).unwrap_or_default();
            let spec = serde_json::from_value(pod["spec"].clone()).unwrap();
            let outline = outline(&annotations, spec, true);
            assert_eq!(
                why_not_outlined(&outline, recipe),
                None,
                "{name}: {outline}"
            );
        }
    }
}

proptest! {
    #[test]
    fn outline_gives_the_reason_of_the_whole_pod_for_any_pod(pod in any_pod()) {
        for recipe in recipes::each() {
            let [whole, outlined] = both(&pod, recipe);
            prop_assert_eq!(outlined, whole);
        }
    }
}
