//! The JSON patch (RFC 6902) between a JSON value and the same value with additions.
//!
//! A patch that replaced more than necessary would undo changes of other webhooks. So it replaces nothing
//! that did not change, and lists grow by insertion.

use otelagent_core::inject::pod::is_blank;
use serde_json::{Value, json};

/// The operations, in the order of their application. If `after` is `before` with added fields and list
/// items, all operations add, except for strings that became longer, which are replaced one by one.
/// Anything else that differs is replaced as a whole, so the patch always results in `after`.
pub(super) fn between(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    compare(before, after, "", &mut operations);
    operations
}

fn compare(before: &Value, after: &Value, path: &str, operations: &mut Vec<Value>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after))
            if before.keys().all(|key| after.contains_key(key)) =>
        {
            for (key, value) in after {
                let path = format!("{path}/{}", escaped(key));
                compare_or_add(before.get(key), value, &path, operations);
            }
        }
        (Value::Array(before), Value::Array(list)) => match alignment(before, list) {
            // From left to right, so that every index refers to the list as patched so far.
            Some(partners) => {
                for (index, (value, previous)) in list.iter().zip(partners).enumerate() {
                    compare_or_add(previous, value, &format!("{path}/{index}"), operations);
                }
            }
            None => operations.push(operation("replace", path, after)),
        },
        // Adding at a null value replaces it (RFC 6902 §4.1).
        (Value::Null, _) if !path.is_empty() => operations.push(operation("add", path, after)),
        _ => operations.push(operation("replace", path, after)),
    }
}

fn compare_or_add(
    previous: Option<&Value>,
    value: &Value,
    path: &str,
    operations: &mut Vec<Value>,
) {
    match previous {
        Some(previous) => compare(previous, value, path, operations),
        None => operations.push(operation("add", path, value)),
    }
}

/// For each item of `after`, the item of `before` from which it grew; `None` unless all of `before` is
/// there, in order.
fn alignment<'a>(before: &'a [Value], after: &[Value]) -> Option<Vec<Option<&'a Value>>> {
    let mut rest = before.iter().peekable();
    let partner = |value| rest.next_if(|previous| grew(previous, value));
    let partners = after.iter().map(partner).collect();
    rest.next().is_none().then_some(partners)
}

/// Whether a value may have become another by additions only.
fn grew(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Null, _) => true,
        (Value::Object(before), Value::Object(after)) => before.iter().all(|(key, value)| {
            let exact = key == "name";
            after
                .get(key)
                .is_some_and(|after| value == after || !exact && grew(value, after))
        }),
        (Value::Array(before), Value::Array(after)) => alignment(before, after).is_some(),
        // Attributes are appended to text without the blanks at its end.
        (Value::String(before), Value::String(after)) => {
            after.starts_with(before.trim_end_matches(is_blank))
        }
        _ => before == after,
    }
}

fn operation(kind: &str, path: &str, value: &Value) -> Value {
    json!({"op": kind, "path": path, "value": value})
}

/// A key as part of a JSON pointer (RFC 6901 §3).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &Value, after: &Value) -> Vec<Value> {
        let operations = between(before, after);
        let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
        let mut patched = before.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched, *after, "{operations:#?}");
        operations
    }

    #[test]
    fn equal_values_need_no_operation() {
        assert!(
            check(
                &json!({"a": [1, {"b": null}]}),
                &json!({"a": [1, {"b": null}]})
            )
            .is_empty()
        );
    }

    #[test]
    fn added_items_are_inserted_and_others_left_alone() {
        let operations = check(
            &json!({"env": [{"name": "B", "value": "b, "}, {"name": "C"}]}),
            &json!({"env": [{"name": "A"}, {"name": "B", "value": "b,c"}, {"name": "C"}, {"name": "D"}]}),
        );
        let paths: Vec<&str> = operations
            .iter()
            .filter_map(|operation| operation["path"].as_str())
            .collect();
        assert_eq!(paths, ["/env/0", "/env/1/value", "/env/3"]);
        assert_eq!(operations[1]["op"], "replace");
    }

    #[test]
    fn added_fields_have_escaped_keys_and_fill_nulls() {
        let operations = check(
            &json!({"labels": null, "annotations": {}}),
            &json!({"labels": {"a": "b"}, "annotations": {"x.io/y~z": "1"}}),
        );
        assert_eq!(operations[0]["path"], "/annotations/x.io~1y~0z");
        assert!(operations.iter().all(|operation| operation["op"] == "add"));
    }

    #[test]
    fn value_that_did_not_only_grow_is_replaced() {
        for (before, after) in [
            (json!({"a": [1, 2]}), json!({"a": [2]})),
            (json!({"a": {"b": 1}}), json!({"a": {"c": 1}})),
            (json!({"a": 1}), json!([])),
            (json!(null), json!({"a": 1})),
        ] {
            check(&before, &after);
        }
    }
}
