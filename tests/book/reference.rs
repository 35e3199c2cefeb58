//! `docs/reference/api.md`, made from the CRD.

use std::fmt::Write as _;

use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;
use serde_json::Value;

const PAGE: &str = "docs/reference/api.md";

const HEAD: &str = "# The OtelAgent API

`make reference` writes this page from `crds/otelagents.yaml`. On a cluster, `kubectl explain oa.spec --recursive` shows the
same. In a path, `[]` stands for the items of a list and `*` for any key of a map.
";

#[test]
fn api_reference_is_that_of_the_crd() {
    let made = page();
    let file = repository().join(PAGE);
    if std::env::var_os("OTELAGENT_WRITE_REFERENCE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, made).unwrap();
        return;
    }
    assert!(
        text(PAGE) == made,
        "{PAGE} is not up to date: run `make reference`"
    );
}

fn page() -> String {
    let crd: Value = serde_saphyr::from_str(&text("crds/otelagents.yaml")).unwrap();
    let spec = &crd["spec"];
    let mut page = HEAD.to_owned();
    for version in spec["versions"].as_array().unwrap() {
        let (group, name) = (text_of(&spec["group"]), text_of(&version["name"]));
        write!(
            page,
            "\n`apiVersion: {group}/{name}`, `kind: {}`, {}.\n",
            text_of(&spec["names"]["kind"]),
            text_of(&spec["scope"]).to_lowercase()
        )
        .unwrap();
        let schema = &version["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            section(&mut page, part, &schema["properties"][part]);
        }
        columns(&mut page, &version["additionalPrinterColumns"]);
    }
    page
}

/// A part of the object: a table of its own fields, and one for each field that has fields.
fn section(page: &mut String, part: &str, schema: &Value) {
    write!(page, "\n## {part}\n\n{}\n", description(schema)).unwrap();
    let (plain, deep): (Vec<_>, Vec<_>) =
        properties(schema).partition(|(_, field)| !is_deep(field));
    let rows = plain.iter().map(|(name, field)| Row {
        path: (*name).clone(),
        field,
        is_required: is_required(schema, name),
    });
    table(page, rows.collect());
    rules(page, vec![(part.to_owned(), schema)]);
    for (name, field) in deep {
        let path = format!("{part}.{name}");
        let needed = if is_required(schema, name) {
            " Required."
        } else {
            ""
        };
        write!(page, "\n### {path}\n\n{}{needed}\n", description(field)).unwrap();
        let mut rows = Vec::new();
        walk("", field, &mut rows);
        let ruled = rows.iter().map(|row| (row.path.clone(), row.field));
        let ruled: Vec<_> = [(path, field)].into_iter().chain(ruled).collect();
        table(page, rows);
        rules(page, ruled);
    }
}

struct Row<'a> {
    path: String,
    field: &'a Value,
    is_required: bool,
}

/// All fields below one, in the order of the CRD.
fn walk<'a>(prefix: &str, schema: &'a Value, rows: &mut Vec<Row<'a>>) {
    for (name, field) in properties(schema) {
        let path = format!("{prefix}{name}");
        rows.push(Row {
            path: path.clone(),
            field,
            is_required: is_required(schema, name),
        });
        walk(&format!("{path}."), field, rows);
    }
    if schema["items"]["properties"].is_object() {
        let prefix = format!("{}[].", prefix.trim_end_matches('.'));
        walk(&prefix, &schema["items"], rows);
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn is_deep(field: &Value) -> bool {
    field["properties"].is_object() || field["items"]["properties"].is_object()
}

fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema["required"].as_array().into_iter().flatten();
    required
        .filter_map(Value::as_str)
        .any(|other| other == name)
}

fn table(page: &mut String, rows: Vec<Row<'_>>) {
    if rows.is_empty() {
        return;
    }
    page.push_str("\n| field | value | default | meaning |\n|---|---|---|---|\n");
    for Row {
        path,
        field,
        is_required,
    } in rows
    {
        let default = match &field["default"] {
            Value::Null if is_required => "(required)".to_owned(),
            // An object's default only repeats those of its fields.
            Value::Null | Value::Object(_) => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let meaning = cell(&first_sentence(&path, description(field)));
        writeln!(
            page,
            "| `{path}` | {} | {default} | {meaning} |",
            value(field)
        )
        .unwrap();
    }
}

/// The first sentence only, where Kubernetes itself describes a condition at length.
fn first_sentence(path: &str, description: String) -> String {
    let of_conditions = [
        "lastTransitionTime",
        "message",
        "observedGeneration",
        "reason",
        "status",
        "type",
    ];
    let name = path.trim_start_matches("[].");
    if path.starts_with("[].") && of_conditions.contains(&name) {
        let sentence = description.split(". ").next().unwrap_or_default();
        return format!("{}.", sentence.trim_end_matches('.'));
    }
    description
}

/// What the API server checks beyond types, in its own words.
fn rules(page: &mut String, fields: Vec<(String, &Value)>) {
    let mut lines = Vec::new();
    for (path, field) in fields {
        let inner = [
            ("", field),
            ("[]", &field["items"]),
            (".*", &field["additionalProperties"]),
        ];
        for (suffix, schema) in inner {
            let rules = schema["x-kubernetes-validations"].as_array();
            for rule in rules.into_iter().flatten() {
                let message = cell(&text_of(&rule["message"]));
                lines.push(format!("- `{path}{suffix}`: {message}"));
            }
        }
    }
    lines.dedup();
    if !lines.is_empty() {
        write!(
            page,
            "\nThe API server also checks:\n\n{}\n",
            lines.join("\n")
        )
        .unwrap();
    }
}

/// The values that a field takes.
fn value(field: &Value) -> String {
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .filter_map(Value::as_str)
            .map(|value| format!("`{value}`"))
            .collect();
        return values.join(", ");
    }
    if field["x-kubernetes-int-or-string"] == true {
        return "count or percentage".into();
    }
    if field["x-kubernetes-preserve-unknown-fields"] == true {
        return "any object".into();
    }
    let number = |key: &str| field[key].as_f64().map(|number| number.to_string());
    match field["type"].as_str().unwrap_or_default() {
        "array" => with("list", &limit(field, "maxItems")),
        "object" if field["additionalProperties"].is_object() => {
            with("map", &limit(field, "maxProperties"))
        }
        "integer" => match (number("minimum"), number("maximum")) {
            (Some(least), Some(most)) => format!("integer, {least} to {most}"),
            _ => "integer".into(),
        },
        "string" if field["format"] == "date-time" => "time".into(),
        kind => kind.into(),
    }
}

fn limit(field: &Value, key: &str) -> String {
    let most = field[key].as_u64();
    most.map_or_else(String::new, |most| format!("at most {most}"))
}

fn with(kind: &str, limit: &str) -> String {
    if limit.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}, {limit}")
    }
}

/// The columns of `kubectl get`.
fn columns(page: &mut String, columns: &Value) {
    page.push_str("\n## Columns of kubectl get\n\n| column | shows | field |\n|---|---|---|\n");
    for column in columns.as_array().into_iter().flatten() {
        let wide = if column["priority"] == 1 {
            " (`-o wide`)"
        } else {
            ""
        };
        writeln!(
            page,
            "| {}{wide} | {} | `{}` |",
            text_of(&column["name"]).to_uppercase(),
            cell(&text_of(&column["description"])),
            text_of(&column["jsonPath"])
        )
        .unwrap();
    }
}

fn description(schema: &Value) -> String {
    text_of(&schema["description"])
}

fn text_of(value: &Value) -> String {
    let words = value.as_str().unwrap_or_default().split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

/// A text that ends no cell and is no HTML.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
