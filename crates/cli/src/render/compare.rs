//! How objects of a cluster differ from what the operator would write.

use otelagent_core::build::{is_as_wanted, restricted};
use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use super::rendering::{ProblemReport, Rendered};
use crate::error::CliError;

/// How many unchanged lines are shown around a change.
const CONTEXT: usize = 3;

/// The answer of `diff`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Why the operator would refuse specs, with the `OtelAgent` first.
    pub problems: Vec<ProblemReport>,
    /// The objects that differ.
    pub items: Vec<ObjectDifference>,
    /// What could not be compared.
    pub notes: Vec<String>,
}

/// How one object differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectDifference {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A unified diff of YAML, from the cluster to what the operator would write.
    pub diff: String,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_as_wished(&self) -> bool {
        self.items.is_empty() && self.problems.is_empty()
    }
}

/// The difference of one object; `None` if the live one has everything that was rendered. What others have added to it,
/// and what the server fills in, does not count.
///
/// # Errors
/// If an object cannot be written as YAML.
pub fn compare(
    live: Option<&Value>,
    rendered: &Rendered,
) -> Result<Option<ObjectDifference>, CliError> {
    let wanted = &rendered.0;
    if live.is_some_and(|live| is_as_wanted(live, wanted)) {
        return Ok(None);
    }
    let before = match live {
        Some(live) => yaml(&restricted(live, wanted))?,
        None => String::new(),
    };
    let after = yaml(wanted)?;
    let shown = format!("{} {}", rendered.kind(), rendered.name());
    let header = |live: bool| {
        if live {
            format!("{shown} (live)")
        } else {
            format!("{shown} (rendered)")
        }
    };
    let diff = TextDiff::from_lines(&before, &after);
    let mut diff = diff.unified_diff();
    let diff = diff
        .context_radius(CONTEXT)
        .header(&header(true), &header(false));
    Ok(Some(ObjectDifference {
        kind: rendered.kind().to_owned(),
        namespace: rendered.namespace().to_owned(),
        name: rendered.name().to_owned(),
        diff: diff.to_string(),
    }))
}

fn yaml(value: &Value) -> Result<String, CliError> {
    serde_saphyr::to_string(value).map_err(|error| CliError::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(port: u16) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"ports": [{"name": "grpc", "port": port}], "type": "ClusterIP"},
        })
    }

    #[test]
    fn fields_of_others_and_of_the_server_are_no_difference() {
        let mut live = service(4317);
        live["metadata"]["uid"] = "u".into();
        live["spec"]["clusterIP"] = "10.0.0.1".into();
        live["spec"]["ports"][0]["protocol"] = "TCP".into();
        assert_eq!(
            compare(Some(&live), &Rendered(service(4317))).unwrap(),
            None
        );
        let found = compare(Some(&live), &Rendered(service(5317)))
            .unwrap()
            .unwrap();
        let changed: Vec<&str> = found
            .diff
            .lines()
            .filter(|line| line.starts_with(['+', '-']))
            .collect();
        assert_eq!(changed.len(), 4, "{}", found.diff);
        assert!(
            changed[2].contains("4317") && changed[3].contains("5317"),
            "{}",
            found.diff
        );
        assert!(!found.diff.contains("10.0.0.1"));
    }

    #[test]
    fn object_that_does_not_exist_is_added_whole() {
        let found = compare(None, &Rendered(service(4317))).unwrap().unwrap();
        assert!(
            found.diff.lines().skip(3).all(|line| line.starts_with('+')),
            "{}",
            found.diff
        );
    }
}
