//! Desired objects as values, and whether a live object covers one.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

/// One object an `OtelAgent` needs, in its own namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A vehicle.
    DaemonSet(Box<DaemonSet>),
    /// The path to one.
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

    /// Name; every rendered object has one.
    pub fn name(&self) -> &str {
        let metadata = match self {
            Self::DaemonSet(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
        };
        metadata.name.as_deref().unwrap_or_default()
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

/// Whether an object as the server keeps it is as wanted. Its type is left out: whoever lists objects gets
/// it once for all of them.
pub fn is_as_wanted(live: &Value, intent: &Value) -> bool {
    let mut fields = intent.as_object().into_iter().flatten();
    fields.all(|(key, value)| {
        ["apiVersion", "kind"].contains(&key.as_str())
            || live.get(key).is_some_and(|live| covers(live, value))
    })
}

/// Whether `actual` has everything that `desired` asks for. What others added or the server defaulted
/// does not matter; list items with a `name` are found by it, as server-side apply does.
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

/// Entries of `actual`'s lists that `desired` does not name though it names the list's others, as JSON
/// pointers (RFC 6901), the last of each list first, so that they can be removed in this order. A list of
/// which nothing would remain is left alone.
pub fn strangers(actual: &Value, desired: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect_strangers("", actual, desired, &mut found);
    found
}

fn collect_strangers(path: &str, actual: &Value, desired: &Value, found: &mut Vec<String>) {
    match (actual, desired) {
        (Value::Object(actual), Value::Object(desired)) => {
            for (key, desired) in desired {
                if let Some(actual) = actual.get(key) {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    collect_strangers(&format!("{path}/{key}"), actual, desired, found);
                }
            }
        }
        (Value::Array(actual), Value::Array(desired)) => {
            let is_meant = |item: &&Value| desired.iter().any(|wanted| covers(item, wanted));
            let is_named = desired.iter().all(|item| item.get("name").is_some());
            if is_named && actual.iter().any(|item| is_meant(&item)) {
                let others = actual.iter().enumerate().rev();
                let others = others.filter(|(_, item)| !is_meant(item));
                found.extend(others.map(|(index, _)| format!("{path}/{index}")));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_from_a_list_which_does_not_say_its_kind_is_as_wanted() {
        let wanted = json!({"apiVersion": "v1", "kind": "Thing", "spec": {"a": 1}});
        assert!(is_as_wanted(&json!({"spec": {"a": 1, "b": 2}}), &wanted));
        assert!(!is_as_wanted(&json!({"spec": {"a": 2}}), &wanted));
    }

    #[test]
    fn defaults_and_foreign_additions_do_not_count_as_drift_but_changes_do() {
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
    fn strangers_are_entries_of_named_lists_that_nobody_wants_last_first() {
        let wanted = json!({"spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}], "args": ["x"]}});
        let live = |ports: Value| json!({"spec": {"ports": ports, "args": ["y"], "more": [{"name": "z"}]}});
        let changed = live(
            json!([{"name": "a", "port": 9}, {"name": "b", "port": 2, "set": 1}, {"name": "c", "port": 3}]),
        );
        assert_eq!(
            strangers(&changed, &wanted),
            ["/spec/ports/2", "/spec/ports/0"]
        );
        let all = live(json!([{"name": "a", "port": 9}]));
        assert!(
            strangers(&all, &wanted).is_empty(),
            "a list without entries may be refused"
        );
        assert!(strangers(&wanted, &wanted).is_empty());
    }
}
