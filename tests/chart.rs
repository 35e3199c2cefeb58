//! The Helm chart: what is generated of it, and what must be as elsewhere. `lab/tests/helm` tests what it renders.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;
use serde_json::Value;

const BEGIN: &str = "<!-- values: written by make chart -->\n";
const END: &str = "<!-- end of values -->";

fn file(name: &str) -> PathBuf {
    repository().join("charts/otelagent").join(name)
}

fn parsed(name: &str) -> Value {
    let text = text(&format!("charts/otelagent/{name}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|why| panic!("{name}: {why}"))
}

/// A value with its comment.
struct Row {
    path: Vec<String>,
    meaning: String,
}

impl Row {
    /// As a JSON pointer.
    fn pointer(&self) -> String {
        format!("/{}", self.path.join("/"))
    }
}

/// The keys of values.yaml that have a comment.
fn rows(values: &str) -> Vec<Row> {
    let (mut rows, mut comment) = (Vec::new(), Vec::new());
    let mut parents: Vec<(usize, String)> = Vec::new();
    for line in values.lines() {
        let trimmed = line.trim_start();
        if let Some(words) = trimmed.strip_prefix("# ") {
            comment.push(words.to_owned());
            continue;
        }
        let meaning = std::mem::take(&mut comment).join(" ");
        let Some((key, _)) = trimmed.split_once(':') else {
            continue;
        };
        let indent = line.len() - trimmed.len();
        parents.retain(|(outer, _)| *outer < indent);
        parents.push((indent, key.to_owned()));
        if !meaning.is_empty() {
            let path = parents.iter().map(|(_, key)| key.clone()).collect();
            rows.push(Row { path, meaning });
        }
    }
    rows
}

fn table(rows: &[Row], values: &Value) -> String {
    let line = |row: &Row| {
        let default = values.pointer(&row.pointer()).unwrap();
        let path = row.path.join(".");
        format!("| `{path}` | {} | `{default}` |\n", row.meaning)
    };
    let lines: String = rows.iter().map(line).collect();
    format!("| value | meaning | default |\n|---|---|---|\n{lines}")
}

/// Writes a generated file if asked to, else compares it.
fn write_or_compare(name: &str, generated: &str) {
    if std::env::var_os("OTELAGENT_WRITE_CHART").is_some() {
        fs::write(file(name), generated).unwrap();
        return;
    }
    assert!(
        text(&format!("charts/otelagent/{name}")) == generated,
        "charts/otelagent/{name} is not up to date: run `make chart`"
    );
}

#[test]
fn chart_has_the_present_crd_and_a_readme_of_its_values() {
    write_or_compare("files/otelagents.yaml", &text("crds/otelagents.yaml"));
    let readme = text("charts/otelagent/README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("the begin of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    let rows = rows(&text("charts/otelagent/values.yaml"));
    assert!(rows.len() > 50, "{} values", rows.len());
    let table = table(&rows, &parsed("values.yaml"));
    write_or_compare("README.md", &format!("{before}{BEGIN}{table}{END}{after}"));
}

#[test]
fn chart_has_the_version_of_the_workspace() {
    let chart = parsed("Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], version);
}

/// Pointers of every value that is no object, and of empty objects.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value.as_object().filter(|object| !object.is_empty()) {
        Some(object) => {
            for (key, inner) in object {
                leaves(inner, &format!("{at}/{key}"), found);
            }
        }
        None => found.push(at.to_owned()),
    }
}

#[test]
fn every_value_has_a_comment() {
    let rows = rows(&text("charts/otelagent/values.yaml"));
    let commented: Vec<String> = rows.iter().map(Row::pointer).collect();
    let mut all = Vec::new();
    leaves(&parsed("values.yaml"), "", &mut all);
    let is_silent = |leaf: &&String| {
        let has = |row: &String| *leaf == row || leaf.starts_with(&format!("{row}/"));
        !commented.iter().any(has)
    };
    let silent: Vec<&String> = all.iter().filter(is_silent).collect();
    assert!(silent.is_empty(), "values without a comment: {silent:?}");
}

/// Keys of the schema that values.yaml does not need: of charts that depend on this one.
const OF_PARENTS: [&str; 2] = ["enabled", "global"];

#[test]
fn schema_knows_the_values_and_no_others() {
    let schema = parsed("values.schema.json");
    compare(&schema, &schema, &parsed("values.yaml"), "");
}

/// Values that become fields as they are, so that a null leaves the field out.
const OF_KUBERNETES: [&str; 4] = [
    "labels",
    "podSecurityContext",
    "resources",
    "securityContext",
];

fn compare(root: &Value, schema: &Value, values: &Value, at: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(&reference[1..]).expect("a definition"),
        None => schema,
    };
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    assert_eq!(schema["additionalProperties"], false, "{at}");
    let values = values.as_object().unwrap_or_else(|| panic!("{at}"));
    if values.is_empty()
        || ["resources", "affinity"]
            .iter()
            .any(|key| at.ends_with(key))
    {
        // Kubernetes' own fields.
        return;
    }
    let mut known: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    if at.is_empty() {
        known.retain(|key| !OF_PARENTS.contains(key));
    }
    let given: BTreeSet<&str> = values.keys().map(String::as_str).collect();
    assert_eq!(known, given, "{at}");
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (key, value) in values {
        // A null would take all of it away, and templates would look into nothing.
        let is_group = value.as_object().is_some_and(|group| !group.is_empty())
            && !OF_KUBERNETES.contains(&key.as_str());
        let is_required = required.iter().any(|name| name == key);
        assert!(!is_group || is_required, "{at} does not require {key}");
        compare(root, &properties[key], value, &format!("{at}/{key}"));
    }
}
