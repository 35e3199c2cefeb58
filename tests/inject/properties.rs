//! What holds for every pod: injection adds only, once, and never fails.

use std::collections::BTreeMap;

use otelagent_core::inject::cel::{literal, quoted};
use otelagent_core::inject::pod::is_blank;
use otelagent_core::inject::policy::render;
use otelagent_core::inject::{Injection, Reason, Recipe, inject};
use otelagent_core::names;
use proptest::prelude::*;
use serde_json::{Value, json};

use otelagent_test_support::pods::{any_pod, sidecar_copy, table};
use otelagent_test_support::recipes;
use otelagent_test_support::recipes::input;

/// Whether `after` is `before` with things added: every field, and every item in its order.
fn is_within(before: &Value, after: &Value, key: &str) -> bool {
    match (before, after) {
        (Value::Null, _) => true,
        (Value::Object(before), Value::Object(after)) => before.iter().all(|(key, value)| {
            value.is_null()
                || after
                    .get(key)
                    .is_some_and(|after| is_within(value, after, key))
        }),
        (Value::Array(before), Value::Array(after)) if key == "env" => {
            let mut rest = after.iter();
            before
                .iter()
                .all(|item| rest.any(|other| is_same_variable(item, other)))
        }
        (Value::Array(before), Value::Array(after)) => {
            let mut rest = after.iter();
            before
                .iter()
                .all(|item| rest.any(|other| is_within(item, other, "")))
        }
        (Value::String(before), Value::String(after)) if key == recipes::EVICTABLE => {
            after.starts_with(before.trim())
        }
        _ => before == after,
    }
}

/// Equal, or attributes with more of them behind, in place of blanks at the end.
fn is_same_variable(before: &Value, after: &Value) -> bool {
    if before["name"] == "OTEL_RESOURCE_ATTRIBUTES" && before["valueFrom"].is_null() {
        let value = |variable: &Value| variable["value"].as_str().unwrap_or_default().to_owned();
        let given = value(before);
        let given = given.trim_end_matches(is_blank);
        return before["name"] == after["name"] && value(after).starts_with(given);
    }
    before == after
}

fn check(pod: &Value, recipe: &Recipe) -> Result<(), TestCaseError> {
    let Injection::Injected(injected) = inject(pod, "shop", recipe) else {
        return Ok(());
    };
    prop_assert!(is_within(pod, &injected, ""), "changed: {injected:#}");
    prop_assert_eq!(
        inject(&injected, "shop", recipe),
        Injection::Injected(injected.clone()),
        "not idempotent"
    );
    let chooses = pod["metadata"]["annotations"].get(names::ANNOTATION_CONTAINERS);
    if chooses.is_some() {
        return Ok(());
    }
    for container in injected["spec"]["containers"].as_array().unwrap() {
        let names: Vec<&str> = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|e| e["name"].as_str())
            .collect();
        let own = |name: &&str| {
            pod["spec"]["containers"]
                .to_string()
                .contains(&format!("\"{name}\""))
        };
        for name in [
            "OTELAGENT_POD_NAME",
            "OTEL_RESOURCE_ATTRIBUTES",
            "OTEL_BSP_SCHEDULE_DELAY",
        ] {
            let count = names.iter().filter(|other| **other == name).count();
            // What `envFrom` may carry is not there at all.
            let carried = count == 0 && container.get("envFrom").is_some();
            prop_assert!(count == 1 || own(&name) || carried, "{name} {count} times");
        }
        // Only earlier variables can be referred to.
        let position = |name: &str| names.iter().position(|other| *other == name);
        prop_assert!(
            own(&"OTELAGENT_POD_NAME")
                || position("OTEL_RESOURCE_ATTRIBUTES").is_none()
                || position("OTELAGENT_POD_NAME") < position("OTEL_RESOURCE_ATTRIBUTES")
        );
    }
    Ok(())
}

pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC*".prop_map(Value::from),
    ];
    let key = "(metadata|spec|labels|annotations|containers|initContainers|env|name|volumes|ownerReferences|x)";
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..5).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn injection_only_adds_and_only_once(pod in any_pod()) {
        for recipe in recipes::each() {
            check(&pod, recipe)?;
        }
    }

    #[test]
    fn injection_survives_json_that_is_no_pod(value in any_json()) {
        for recipe in recipes::each() {
            if let Injection::Injected(injected) = inject(&value, "shop", recipe) {
                prop_assert!(is_within(&value, &injected, ""), "changed: {injected:#}");
            }
        }
    }

    /// CEL has no raw line breaks in strings, and knows all of JSON's escapes.
    #[test]
    fn quoted_string_reads_back_and_stays_on_its_line(text in any::<String>()) {
        let quoted = quoted(&text);
        prop_assert!(!quoted.contains(|c: char| c < ' '));
        prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
    }

    #[test]
    fn literal_does_not_depend_on_the_order_of_keys(map in prop::collection::vec(("[a-z]{1,3}", any::<i32>()), 0..6)) {
        let forth: serde_json::Map<String, Value> = map.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let sorted: BTreeMap<&String, &Value> = forth.iter().collect();
        let back: serde_json::Map<String, Value> = sorted.iter().rev().map(|(k, v)| ((*k).clone(), (*v).clone())).collect();
        prop_assert_eq!(literal(&Value::Object(forth.clone())), literal(&Value::Object(back)));
    }
}

/// What `kubectl debug --copy-to` makes of an injected pod, and a hand that copies the spec alone.
#[test]
fn copy_of_an_injected_pod_gets_back_what_it_lost() {
    for recipe in recipes::each() {
        let pod = json!({"metadata": {"name": "shop"}, "spec": {"containers": [{"name": "app", "image": "shop:1"}]}});
        let Injection::Injected(injected) = inject(&pod, "shop", recipe) else {
            panic!("injectable")
        };
        let mut copy = injected.clone();
        copy["metadata"] = json!({"name": "shop"});
        assert_eq!(inject(&copy, "shop", recipe), Injection::Injected(injected));
    }
}

/// Without its configuration the sidecar would not start, and no other mode has one for it.
#[test]
fn copy_with_a_sidecar_is_skipped_where_another_mode_serves() {
    for recipe in recipes::each()
        .iter()
        .filter(|recipe| recipe.sidecar.is_none())
    {
        let outcome = inject(&sidecar_copy(), "sel", recipe);
        assert_eq!(outcome, Injection::Skipped(Reason::InjectedEarlier));
    }
}

#[test]
fn injection_of_every_pod_in_the_table_only_adds() {
    for recipe in recipes::each() {
        for (name, pod) in table(recipe) {
            // Its own annotation the agent may overwrite; nothing else.
            if name != "forged configuration"
                && name != "forged mode"
                && name != "a copy with a foreign agent"
            {
                check(&pod, recipe).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
}

#[test]
fn equal_input_gives_equal_bytes_and_a_change_another_name() {
    let base = input("a", "shop", &recipes::sidecar());
    let hash = |input| render(&input).unwrap().hash;
    assert_eq!(render(&base).unwrap(), render(&base.clone()).unwrap());
    let mut recipe = base.clone();
    recipe.recipe.env[0].value.push('x');
    let mut selection = base.clone();
    selection
        .selection
        .pods
        .match_labels
        .insert("a".into(), "b".into());
    let mut exclusions = base.clone();
    exclusions.exclusions.push(base.selection.clone());
    let mut excluded = base.clone();
    excluded.excluded_namespaces.push("more".into());
    let hashes: Vec<String> = [base, recipe, selection, exclusions, excluded]
        .into_iter()
        .map(hash)
        .collect();
    let distinct: std::collections::BTreeSet<&String> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len(), "{hashes:?}");
}
