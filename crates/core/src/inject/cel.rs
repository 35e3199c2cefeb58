//! CEL text: literals and label selectors.
//!
//! Knows Kubernetes' CEL dialect (optionals), nothing of recipes.

use std::fmt::Write;

use serde_json::Value;

use super::selection::{Namespaces, Selection};
use otelagent_api::{Operator, Requirement, Selector};

/// A JSON value as a CEL expression of type `dyn`-valued lists and maps. Elements are wrapped in
/// `dyn()`, since CEL would refuse lists and maps of mixed types. Keys are sorted: equal values give
/// equal text.
pub fn literal(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(boolean) => boolean.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| format!("dyn({})", literal(item)))
                .collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let mut entries: Vec<(&String, &Value)> = fields.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entry = |(key, value): (&String, &Value)| {
                format!("{}: dyn({})", quoted(key), literal(value))
            };
            let entries: Vec<String> = entries.into_iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// A CEL string. The escapes of JSON are all escapes of CEL as well (language definition, "String and
/// bytes values").
pub fn quoted(text: &str) -> String {
    printable(&Value::from(text).to_string())
}

/// JSON or CEL whose strings hold no character that YAML refuses raw (YAML 1.2 §5.1): the API server
/// reads the body of a server-side apply as YAML, even where it is JSON.
pub fn printable(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut printable, c| {
            match c {
                '\u{7F}'..='\u{9F}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{FEFF}'
                | '\u{FFFE}'
                | '\u{FFFF}' => {
                    // Writing to a string cannot fail.
                    let _ = write!(printable, "\\u{:04x}", u32::from(c));
                }
                _ => printable.push(c),
            }
            printable
        })
}

/// A CEL list of strings.
pub(super) fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

/// [`Selection::matches`] without the opt-out, in two expressions that must both hold: match conditions
/// are not given the namespace's labels (`namespaceObject` is empty in them, though it compiles), so
/// what asks for those stands in the second, for where they are known.
pub fn selected(selection: &Selection, exclusions: &[Selection]) -> [String; 2] {
    let (late, early): (Vec<&Selection>, Vec<&Selection>) = exclusions
        .iter()
        .partition(|exclusion| !namespace_terms(exclusion).is_empty());
    let mut first = pod_terms(selection);
    first.extend(none_of(&early));
    let mut second = namespace_terms(selection);
    second.extend(none_of(&late));
    [all(&first), all(&second)]
}

/// That no selection matches. Whole namespaces, the usual case where many teams have an `OtelAgent` of
/// their own, share one term.
fn none_of(selections: &[&Selection]) -> Vec<String> {
    let whole: Vec<&str> = selections
        .iter()
        .filter_map(|selection| whole_namespace(selection))
        .collect();
    let names =
        (!whole.is_empty()).then(|| format!("!(request.namespace in {})", quoted_list(whole)));
    let others = selections
        .iter()
        .filter(|selection| whole_namespace(selection).is_none());
    let others = others.map(|other| {
        let terms: Vec<String> = pod_terms(other)
            .into_iter()
            .chain(namespace_terms(other))
            .collect();
        format!("!({})", all(&terms))
    });
    names.into_iter().chain(others).collect()
}

fn whole_namespace(selection: &Selection) -> Option<&str> {
    match &selection.namespaces {
        Namespaces::Named(name) if selection.pods.is_empty() => Some(name),
        _ => None,
    }
}

fn all(terms: &[String]) -> String {
    if terms.is_empty() {
        "true".into()
    } else {
        terms.join(" && ")
    }
}

/// What is asked of the request and the pod.
fn pod_terms(selection: &Selection) -> Vec<String> {
    let named = match &selection.namespaces {
        Namespaces::Named(name) => Some(format!("request.namespace == {}", quoted(name))),
        Namespaces::Labelled(_) => None,
    };
    named
        .into_iter()
        .chain(selector("object.metadata.?labels", &selection.pods))
        .collect()
}

/// What is asked of the namespace's labels.
fn namespace_terms(selection: &Selection) -> Vec<String> {
    match &selection.namespaces {
        Namespaces::Named(_) => Vec::new(),
        Namespaces::Labelled(labels) => selector("namespaceObject.metadata.?labels", labels),
    }
}

/// One term per label asked for; `labels` is an optional map.
fn selector(labels: &str, selector: &Selector) -> Vec<String> {
    let equal = |(key, value): (&String, &String)| {
        format!(
            "{labels}[?{}].optMap(v, v == {}).orValue(false)",
            quoted(key),
            quoted(value)
        )
    };
    let requirement = |requirement: &Requirement| {
        let label = format!("{labels}[?{}]", quoted(&requirement.key));
        let values = quoted_list(requirement.values.iter().map(String::as_str));
        match requirement.operator {
            Operator::In => format!("{label}.optMap(v, v in {values}).orValue(false)"),
            Operator::NotIn => format!("!{label}.optMap(v, v in {values}).orValue(false)"),
            Operator::Exists => format!("{label}.hasValue()"),
            Operator::DoesNotExist => format!("!{label}.hasValue()"),
        }
    };
    let equals = selector.match_labels.iter().map(equal);
    equals
        .chain(selector.match_expressions.iter().map(requirement))
        .collect()
}
