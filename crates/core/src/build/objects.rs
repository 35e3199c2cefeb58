//! Rendered objects, and how a live object differs from one.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Map, Value, json};

use crate::inject::kinds::WEBHOOK_CONFIGURATION;
use crate::names;

/// One object that an `OtelAgent` needs, in its own namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// An agent workload.
    DaemonSet(Box<DaemonSet>),
    /// The Service in front of one.
    Service(Box<Service>),
}

impl Object {
    /// Kind, as in manifests and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::DaemonSet(_) => "DaemonSet",
            Self::Service(_) => "Service",
        }
    }

    /// The hash that labels the pod template of an agent workload.
    pub fn template(&self) -> Option<&str> {
        match self {
            Self::DaemonSet(object) => template_label(object),
            Self::Service(_) => None,
        }
    }

    /// The whole intent, as server-side apply takes it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::DaemonSet(object) => serde_json::to_value(object),
            Self::Service(object) => serde_json::to_value(object),
        }
        .unwrap_or_default()
    }
}

/// The hash that labels a `DaemonSet`'s pod template.
pub fn template_label(object: &DaemonSet) -> Option<&str> {
    let template = &object.spec.as_ref()?.template;
    let labels = template.metadata.as_ref()?.labels.as_ref()?;
    labels.get(names::LABEL_TEMPLATE).map(String::as_str)
}

/// Whether a live object has everything that the intent asks for. Its kind is not compared: items of a list
/// do not carry it.
pub fn is_as_wanted(live: &Value, intent: &Value) -> bool {
    if intent["kind"] == WEBHOOK_CONFIGURATION {
        let live = without_added_terms(live, intent);
        return has_all_fields(&live, intent);
    }
    has_all_fields(live, intent)
}

/// A webhook configuration without the terms that others have added to its namespace selectors. Some platforms add
/// terms that leave their own namespaces alone, and would add them again.
fn without_added_terms(live: &Value, intent: &Value) -> Value {
    let mut live = live.clone();
    let webhooks = live.get_mut("webhooks").and_then(Value::as_array_mut);
    for webhook in webhooks.into_iter().flatten() {
        let mut wanted = intent["webhooks"].as_array().into_iter().flatten();
        let wanted = wanted.find(|wanted| wanted["name"] == webhook["name"]);
        let terms = |of: &Value| {
            of["namespaceSelector"]["matchExpressions"]
                .as_array()
                .cloned()
        };
        let Some(wanted) = wanted.and_then(terms) else {
            continue;
        };
        let found = webhook.pointer_mut("/namespaceSelector/matchExpressions");
        if let Some(found) = found.and_then(Value::as_array_mut) {
            found.retain(|term| wanted.contains(term));
        }
    }
    live
}

fn has_all_fields(live: &Value, intent: &Value) -> bool {
    let mut fields = intent.as_object().into_iter().flatten();
    fields.all(|(key, value)| {
        ["apiVersion", "kind"].contains(&key.as_str())
            || live.get(key).is_some_and(|live| covers(live, value))
    })
}

/// Whether `actual` has everything that `desired` asks for. Additions of others and defaults of the server do
/// not matter. List items with a `name` are matched by it, as server-side apply does.
pub fn covers(actual: &Value, desired: &Value) -> bool {
    match (actual, desired) {
        (Value::Object(actual), Value::Object(desired)) => desired
            .iter()
            .all(|(key, value)| actual.get(key).is_some_and(|actual| covers(actual, value))),
        (Value::Array(actual), Value::Array(desired)) => {
            let named = desired.iter().all(|item| item.get("name").is_some());
            if named && !desired.is_empty() {
                desired.iter().all(|item| {
                    actual
                        .iter()
                        .any(|other| other["name"] == item["name"] && covers(other, item))
                })
            } else {
                actual.len() == desired.len()
                    && actual.iter().zip(desired).all(|(a, d)| covers(a, d))
            }
        }
        (actual, desired) => actual == desired,
    }
}

/// What a live object has in place of what the intent asks for; `None` if it has everything.
pub fn difference(live: &Value, intent: &Value) -> Option<Value> {
    let (Value::Object(fields), Value::Object(wanted)) = (live, intent) else {
        return (!covers(live, intent)).then(|| live.clone());
    };
    let wanted = wanted.iter();
    let wanted = wanted.filter(|(key, _)| !["apiVersion", "kind"].contains(&key.as_str()));
    let differences: Map<String, Value> = wanted
        .filter_map(|(key, value)| {
            let live = fields.get(key).unwrap_or(&Value::Null);
            Some((key.clone(), difference(live, value)?))
        })
        .collect();
    (!differences.is_empty()).then_some(Value::Object(differences))
}

/// As much of a live object as the intent names, with items of lists in its order: what is to be compared with it.
pub fn restricted(live: &Value, intent: &Value) -> Value {
    match (live, intent) {
        (Value::Object(fields), Value::Object(wanted)) => {
            let kept = wanted.iter().filter_map(|(key, value)| {
                let live = fields.get(key)?;
                Some((key.clone(), restricted(live, value)))
            });
            Value::Object(kept.collect())
        }
        (Value::Array(items), Value::Array(wanted))
            if wanted.iter().all(|item| item.get("name").is_some()) =>
        {
            let kept = wanted.iter().filter_map(|item| {
                let mut items = items.iter();
                let live = items.find(|live| live["name"] == item["name"])?;
                Some(restricted(live, item))
            });
            Value::Array(kept.collect())
        }
        (Value::Array(items), Value::Array(wanted)) if items.len() == wanted.len() => {
            let pairs = items.iter().zip(wanted);
            Value::Array(pairs.map(|(live, item)| restricted(live, item)).collect())
        }
        (live, _) => live.clone(),
    }
}

/// A JSON patch (RFC 6902) that removes entries of others from lists, for an object that rejects `desired`
/// beside them. A list of which nothing would remain is replaced by the desired one, since some lists may not
/// be empty.
pub fn corrections(actual: &Value, desired: &Value) -> Vec<Value> {
    let mut steps = Vec::new();
    correct("", actual, desired, &mut steps);
    steps
}

fn correct(path: &str, actual: &Value, desired: &Value, steps: &mut Vec<Value>) {
    match (actual, desired) {
        (Value::Object(actual), Value::Object(desired)) => {
            for (key, desired) in desired {
                if let Some(actual) = actual.get(key) {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    correct(&format!("{path}/{key}"), actual, desired, steps);
                }
            }
        }
        (Value::Array(actual), Value::Array(desired)) => {
            let meant = |item: &Value| desired.iter().find(|wanted| key(wanted) == key(item));
            if desired.iter().any(|item| key(item).is_none()) {
                return;
            }
            if !actual.iter().any(|item| meant(item).is_some()) {
                steps.push(json!({"op": "replace", "path": path, "value": desired}));
                return;
            }
            // From the end, so that the other indices stay valid.
            for (index, item) in actual.iter().enumerate().rev() {
                let path = format!("{path}/{index}");
                match meant(item) {
                    Some(wanted) => correct(&path, item, wanted, steps),
                    None => steps.push(json!({"op": "remove", "path": path})),
                }
            }
        }
        _ => {}
    }
}

/// The key by which the server identifies a list entry: the number of a port, else the name.
fn key(item: &Value) -> Option<&Value> {
    ["containerPort", "port", "name"]
        .iter()
        .find_map(|key| item.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_of_a_list_is_compared_without_its_kind() {
        let wanted = json!({"apiVersion": "v1", "kind": "Thing", "spec": {"a": 1}});
        assert!(is_as_wanted(&json!({"spec": {"a": 1, "b": 2}}), &wanted));
        assert!(!is_as_wanted(&json!({"spec": {"a": 2}}), &wanted));
    }

    #[test]
    fn defaults_and_additions_are_no_drift_but_changes_are() {
        let actual = json!({"a": 1, "defaulted": true, "list": [{"name": "x", "v": 1, "d": 2}, {"name": "foreign"}]});
        assert!(covers(
            &actual,
            &json!({"a": 1, "list": [{"name": "x", "v": 1}]})
        ));
        assert!(!covers(&actual, &json!({"a": 2})));
        assert!(!covers(&actual, &json!({"list": [{"name": "x", "v": 9}]})));
        assert!(!covers(
            &json!({"args": ["a", "b"]}),
            &json!({"args": ["a"]})
        ));
    }

    #[test]
    fn difference_names_what_others_changed_and_nothing_that_they_added() {
        let wanted = json!({"kind": "A", "a": 1, "in": {"b": [1], "c": 2}});
        assert_eq!(
            difference(&json!({"a": 1, "in": {"b": [1], "c": 2, "d": 3}}), &wanted),
            None
        );
        let changed = json!({"a": 1, "in": {"b": [1, 2]}, "added": 1});
        let expected = json!({"in": {"b": [1, 2], "c": null}});
        assert_eq!(difference(&changed, &wanted), Some(expected));
    }

    #[test]
    fn restricted_object_has_the_fields_of_the_intent_with_the_values_of_the_cluster() {
        let wanted = json!({"a": 1, "list": [{"name": "x", "v": 1}, {"name": "y"}], "args": ["a", {"b": 1}]});
        let live = json!({
            "a": 2, "defaulted": true, "list": [{"name": "others"}, {"name": "x", "v": 3, "d": 4}],
            "args": ["z", {"b": 2, "c": 3}],
        });
        let expected = json!({"a": 2, "list": [{"name": "x", "v": 3}], "args": ["z", {"b": 2}]});
        assert_eq!(restricted(&live, &wanted), expected);
        assert_eq!(restricted(&wanted, &wanted), wanted);
    }

    #[test]
    fn webhook_configuration_may_have_further_terms_in_its_namespace_selector_only() {
        let term = |key: &str| json!({"key": key, "operator": "NotIn", "values": ["x"]});
        let object = |namespaces: Value, objects: Value| {
            json!({"kind": WEBHOOK_CONFIGURATION, "webhooks": [{"name": "w",
                "namespaceSelector": {"matchExpressions": namespaces},
                "objectSelector": {"matchExpressions": objects}}]})
        };
        let wanted = object(json!([term("a"), term("b")]), json!([term("c")]));
        let added = json!([term("a"), term("b"), term("control-plane")]);
        assert!(is_as_wanted(
            &object(added.clone(), json!([term("c")])),
            &wanted
        ));
        assert!(!is_as_wanted(
            &object(json!([term("a"), term("x")]), json!([term("c")])),
            &wanted
        ));
        assert!(!is_as_wanted(
            &object(added, json!([term("c"), term("d")])),
            &wanted
        ));
    }

    #[test]
    fn corrections_remove_list_entries_of_others() {
        let port = |name: &str, port: u16| json!({"name": name, "port": port});
        let object = |ports: Value, env: Value| json!({"spec": {"ports": ports, "args": ["x"], "parts": [{"name": "p", "env": env}]}});
        let named = |name: &str| json!({"name": name});
        let wanted = object(json!([port("a", 1), port("b", 2)]), json!([named("E")]));
        let renumbered = object(
            json!([port("a", 9), port("b", 2), port("c", 3)]),
            json!([named("E"), named("F")]),
        );
        let remove = |path: &str| json!({"op": "remove", "path": path});
        assert_eq!(
            corrections(&renumbered, &wanted),
            [
                remove("/spec/parts/0/env/1"),
                remove("/spec/ports/2"),
                remove("/spec/ports/0")
            ]
        );
        let others = object(json!([port("a", 9)]), json!([named("E")]));
        let ports = &wanted["spec"]["ports"];
        assert_eq!(
            corrections(&others, &wanted),
            [json!({"op": "replace", "path": "/spec/ports", "value": ports})]
        );
        assert!(corrections(&wanted, &wanted).is_empty());
    }
}
