//! What one pod has that another has not, with items of lists known by their names.

use std::fmt;

use serde_json::Value;

use crate::build::covers;
use crate::names;

/// Where in a pod, such as `spec.containers[app].env[OTEL_SERVICE_NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<PathStep>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathStep {
    /// A field of an object.
    Field(String),
    /// The item of a list with this name.
    Item(String),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                PathStep::Item(name) => write!(f, "[{name}]")?,
                PathStep::Field(name) if at == 0 => f.write_str(name)?,
                // Keys of labels and annotations have dots.
                PathStep::Field(name) if name.contains('.') => write!(f, "[{name}]")?,
                PathStep::Field(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}

impl Path {
    fn with(&self, step: PathStep) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// What stands there.
    fn find<'a>(&self, pod: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(pod, |found, step| match step {
            PathStep::Field(name) => found.get(name).filter(|value| !value.is_null()),
            PathStep::Item(name) => {
                let mut items = found.as_array()?.iter();
                items.find(|item| item["name"] == name.as_str())
            }
        })
    }

    /// Whether injection writes there, of all that admission may do.
    fn is_ours(&self) -> bool {
        let has = |list: &str, is_own: fn(&str) -> bool| {
            let mut steps = self.0.windows(2);
            steps.any(|two| {
                matches!(two, [PathStep::Field(of), PathStep::Item(name) | PathStep::Field(name)]
                    if of == list && is_own(name))
            })
        };
        let is_name = |name: &str| name.starts_with("otelagent");
        has("labels", |key| {
            [names::LABEL_AGENT, names::LABEL_MODE, names::LABEL_CONFIG].contains(&key)
        }) || has("annotations", |key| key == names::ANNOTATION_CONFIG)
            || has("initContainers", is_name)
            || has("volumes", is_name)
            || has("env", |name| {
                name.starts_with("OTEL_") || name.starts_with("OTELAGENT_")
            })
    }
}

/// A difference at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Where.
    pub path: Path,
    /// What is there first; `None` for nothing.
    pub before: Option<Value>,
    /// What is there then; `None` for nothing.
    pub after: Option<Value>,
}

/// What makes `after` of `before`: what was added and changed. What `before` alone has does not count.
pub fn edits(before: &Value, after: &Value) -> Vec<Edit> {
    let mut found = Vec::new();
    compare(&Path::default(), Some(before), after, &mut found);
    found
}

fn compare(path: &Path, before: Option<&Value>, after: &Value, found: &mut Vec<Edit>) {
    let before = before.filter(|value| !value.is_null());
    match (before, after) {
        (before, Value::Object(fields))
            if before.is_none_or(Value::is_object) && path.0.len() <= 2 =>
        {
            for (key, value) in fields {
                let own = before.and_then(|before| before.get(key));
                compare(&path.with(PathStep::Field(key.clone())), own, value, found);
            }
        }
        (Some(Value::Object(own)), Value::Object(fields)) => {
            for (key, value) in fields {
                compare(
                    &path.with(PathStep::Field(key.clone())),
                    own.get(key),
                    value,
                    found,
                );
            }
        }
        (before, Value::Array(items)) if are_named(items) && before.is_none_or(Value::is_array) => {
            for item in items {
                let name = item["name"].as_str().unwrap_or_default();
                let path = path.with(PathStep::Item(name.to_owned()));
                let mut own = before.and_then(Value::as_array).into_iter().flatten();
                compare(&path, own.find(|own| own["name"] == name), item, found);
            }
        }
        (Some(before), after) if before == after => {}
        (None, Value::Null) => {}
        (before, after) => found.push(Edit {
            path: path.clone(),
            before: before.cloned(),
            after: Some(after.clone()),
        }),
    }
}

fn are_named(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| item["name"].is_string())
}

/// What injection has added to a running pod, of which `new` is a new one before injection.
pub fn added(new: &Value, running: &Value) -> Vec<Edit> {
    let mut all = edits(new, running);
    all.retain(|edit| edit.path.is_ours());
    all
}

/// Where what was injected into a running pod differs from what would be injected now. `new` is a new pod in its place
/// before injection, `injected` the same afterwards. Of others' admission nothing is told.
pub fn drift(running: &Value, new: &Value, injected: &Value) -> Vec<Edit> {
    let wanted = edits(new, injected);
    let differs = wanted.iter().filter_map(|edit| {
        let (found, after) = (edit.path.find(running), edit.after.as_ref()?);
        let is_same = found.is_some_and(|found| covers(found, after));
        (!is_same).then(|| Edit {
            path: edit.path.clone(),
            before: found.cloned(),
            after: Some(after.clone()),
        })
    });
    let dropped = added(new, running).into_iter();
    let dropped = dropped.filter(|edit| edit.path.find(injected).is_none());
    let dropped = dropped.map(|edit| Edit {
        path: edit.path,
        before: edit.after,
        after: None,
    });
    differs.chain(dropped).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(edits: &[Edit]) -> Vec<String> {
        let text = |value: &Option<Value>| value.as_ref().map_or("-".into(), Value::to_string);
        let shown = edits.iter().map(|edit| {
            format!(
                "{}: {} -> {}",
                edit.path,
                text(&edit.before),
                text(&edit.after)
            )
        });
        shown.collect()
    }

    fn pod(labels: &Value, env: &Value) -> Value {
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "a", "env": env}]}})
    }

    #[test]
    fn additions_are_told_by_name_and_changes_with_both_values() {
        let variable = |name: &str, value: &str| json!({"name": name, "value": value});
        let before = pod(
            &json!(null),
            &json!([
                variable("A", "1"),
                variable("OTEL_RESOURCE_ATTRIBUTES", "x=y")
            ]),
        );
        let after = pod(
            &json!({"otelagent.dev/agent": "shop.a"}),
            &json!([
                variable("OTEL_X", "2"),
                variable("A", "1"),
                variable("OTEL_RESOURCE_ATTRIBUTES", "x=y,z=1")
            ]),
        );
        let expected = [
            r#"metadata.labels[otelagent.dev/agent]: - -> "shop.a""#,
            r#"spec.containers[app].env[OTEL_X]: - -> {"name":"OTEL_X","value":"2"}"#,
            r#"spec.containers[app].env[OTEL_RESOURCE_ATTRIBUTES].value: "x=y" -> "x=y,z=1""#,
        ];
        assert_eq!(shown(&edits(&before, &after)), expected);
        assert_eq!(shown(&edits(&after, &after)), [""; 0]);
    }

    #[test]
    fn drift_tells_what_a_restart_would_change_and_nothing_of_others() {
        let variable = |name: &str, value: &str| json!({"name": name, "value": value});
        let new = pod(&json!({"app": "cart"}), &json!([]));
        let injected = pod(
            &json!({"app": "cart", names::LABEL_MODE: "NodeLocal"}),
            &json!([variable("OTEL_E", "new"), variable("OTEL_S", "same")]),
        );
        let mut running = pod(
            &json!({"app": "cart", names::LABEL_MODE: "Sidecar", "others": "label"}),
            &json!([
                variable("OTEL_E", "old"),
                variable("OTEL_S", "same"),
                variable("OTHERS", "x")
            ]),
        );
        running["spec"]["initContainers"] = json!([{"name": names::CONTAINER, "image": "agent:1"}]);
        running["spec"]["volumes"] = json!([{"name": "kube-api-access-x"}]);
        let expected = [
            r#"metadata.labels[otelagent.dev/mode]: "Sidecar" -> "NodeLocal""#,
            r#"spec.containers[app].env[OTEL_E]: {"name":"OTEL_E","value":"old"} -> {"name":"OTEL_E","value":"new"}"#,
            r#"spec.initContainers[otelagent]: {"image":"agent:1","name":"otelagent"} -> -"#,
        ];
        assert_eq!(shown(&drift(&running, &new, &injected)), expected);
        assert_eq!(shown(&drift(&injected, &new, &injected)), [""; 0]);
    }
}
