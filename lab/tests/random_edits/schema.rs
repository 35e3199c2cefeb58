//! The committed CRD read as YAML, and the fields its schema describes.
//!
//! It visits fields generically, so a field that is added to the API is edited without a line of test code. Knows no
//! Rust type of the API.

use std::fmt;

use serde_json::Value;

/// One step from an object to a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A property.
    Key(String),
    /// The items of a list.
    Item,
    /// The values of a map with free keys.
    Entry,
}

/// Where a field is in the spec, such as `export.headers[].name` or `agent.nodeSelector{}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(pub(super) Vec<Step>);

impl Path {
    fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The last property's name, which tells what a value means.
    pub(super) fn name(&self) -> &str {
        let last = self.0.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Item | Step::Entry => None,
        });
        last.unwrap_or_default()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if index == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Item => f.write_str("[]")?,
                Step::Entry => f.write_str("{}")?,
            }
        }
        Ok(())
    }
}

/// One field and its schema.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) path: Path,
    pub(super) schema: Value,
}

impl Field {
    /// Whether the schema describes nothing within it.
    pub(super) fn is_leaf(&self) -> bool {
        ["properties", "items", "additionalProperties"]
            .iter()
            .all(|inner| !self.schema[*inner].is_object())
    }
}

/// The schema of a whole `OtelAgent`, as committed.
pub(super) fn committed() -> Value {
    let crd: Value = serde_saphyr::from_str(include_str!("../../../crds/otelagents.yaml")).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The schema of the spec.
pub(super) fn spec() -> Value {
    committed()["properties"]["spec"].clone()
}

/// Every field below a schema, outermost first; the schema itself is none.
pub(super) fn fields(schema: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    collect(schema, &Path::default(), &mut found);
    found
}

fn collect(schema: &Value, path: &Path, found: &mut Vec<Field>) {
    let mut visit = |step: Step, inner: &Value| {
        let path = path.then(step);
        found.push(Field {
            path: path.clone(),
            schema: inner.clone(),
        });
        collect(inner, &path, found);
    };
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        visit(Step::Key(name.clone()), inner);
    }
    if schema["items"].is_object() {
        visit(Step::Item, &schema["items"]);
    }
    if schema["additionalProperties"].is_object() {
        visit(Step::Entry, &schema["additionalProperties"]);
    }
}

/// The schema at a path.
pub(super) fn at<'a>(schema: &'a Value, path: &[Step]) -> &'a Value {
    path.iter().fold(schema, |schema, step| match step {
        Step::Key(key) => &schema["properties"][key.as_str()],
        Step::Item => &schema["items"],
        Step::Entry => &schema["additionalProperties"],
    })
}
