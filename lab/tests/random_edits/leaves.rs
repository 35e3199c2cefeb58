//! What each field changes: a table of every leaf of the CRD and of the places that change with it, in every mode.
//!
//! The table is a golden file, so a new field has no row until its author has reviewed what it changes.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::{Environment, validate};
use serde_json::{Value, json};

use super::edits::{self, Edit, apply};
use super::predicate::refusals;
use super::schema::{self, Field};
use super::world::{agent, base};
use otelagent_test_support::agents::{desired, environment};

#[test]
fn each_field_changes_what_its_row_says_and_nothing_else() {
    let mut table = String::new();
    let schema = schema::spec();
    for field in schema::fields(&schema) {
        if !field.is_leaf() {
            continue;
        }
        let changed: BTreeSet<String> = Mode::ALL
            .into_iter()
            .flat_map(|mode| changes(&schema, &field, mode))
            .collect();
        writeln!(table, "{}", field.path).unwrap();
        for place in &changed {
            writeln!(table, "    {place}").unwrap();
        }
        if changed.is_empty() {
            writeln!(table, "    (nothing that is rendered)").unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

/// The places that change in a mode with any of the field's good values.
fn changes(schema: &Value, field: &Field, mode: Mode) -> BTreeSet<String> {
    let mut spec = base();
    spec["mode"] = json!(mode.as_str());
    // A sidecar elsewhere cannot have this namespace's Secrets.
    spec["workloads"]
        .as_object_mut()
        .unwrap()
        .remove("namespaceSelector");
    let before = rendered(&spec).expect("a good spec");
    let mut places = BTreeSet::new();
    for value in edits::values(field) {
        let edit = Edit {
            mode: None,
            path: field.path.clone(),
            value,
        };
        let edited = apply(schema, &spec, &edit);
        // Of a new object: what cannot change later has its effect, too.
        if refusals(schema, None, &edited).is_empty()
            && let Some(after) = rendered(&edited)
        {
            compare(&before, &after, "", &mut places);
        }
    }
    places
}

/// Objects and recipe of the mode asked for, by kind; none where the operator refuses the spec.
fn rendered(spec: &Value) -> Option<Value> {
    let mut object = agent("node", spec);
    object["metadata"]["uid"] = json!("uid");
    let agent: OtelAgent = serde_json::from_value(object).ok()?;
    // Elsewhere than its own namespace, where the operator injects nothing.
    let environment = Environment {
        operator_namespace: "operator".into(),
        ..environment()
    };
    let valid = validate(&agent, &environment).ok()?;
    let desired = desired(&valid);
    let mut all = json!({
        "recipe": desired.recipe,
        "selection": valid.selection,
        "hold": format!("{:?}", valid.hold_old),
        "max unready": format!("{:?}", valid.max_unready),
        "mode": valid.wanted(),
    });
    for object in &desired.objects {
        // The hash of the template follows from all the rest.
        let text = object.to_json().to_string();
        let text = text.replace(&desired.template, "TEMPLATE");
        all[object.kind()] = serde_json::from_str(&text).ok()?;
    }
    Some(all)
}

fn compare(before: &Value, after: &Value, path: &str, places: &mut BTreeSet<String>) {
    match (before, after) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()) {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or_default()
                };
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                compare(&of(a), &of(b), &path, places);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (a, b) in a.iter().zip(b) {
                let name = a["name"].as_str().unwrap_or_default();
                compare(a, b, &format!("{path}[{name}]"), places);
            }
        }
        (a, b) if a != b => {
            places.insert(path.to_owned());
        }
        _ => {}
    }
}
