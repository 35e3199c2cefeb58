//! CEL text: literals and label selectors.
//!
//! Knows Kubernetes' CEL dialect (optionals), nothing of recipes.

use serde_json::Value;

use super::{Namespaces, Selection};
use crate::api::{Operator, Requirement, Selector};

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
    Value::from(text).to_string()
}

/// A CEL list of strings.
pub(super) fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

/// [`Selection::matches`] over `request`, `namespaceObject` and `object`, but for the opt-out.
pub(super) fn selection(selection: &Selection) -> String {
    let mut terms = match &selection.namespaces {
        Namespaces::Named(name) => vec![format!("request.namespace == {}", quoted(name))],
        Namespaces::Labelled(labels) => selector("namespaceObject.metadata.?labels", labels),
    };
    terms.extend(selector("object.metadata.?labels", &selection.pods));
    if terms.is_empty() {
        "true".into()
    } else {
        terms.join(" && ")
    }
}

/// Whether any of several selections matches. Whole namespaces, the usual case where many teams have
/// an `OtelAgent` of their own, share one term.
pub(super) fn any_selection(selections: &[Selection]) -> String {
    let whole = |selection: &Selection| match &selection.namespaces {
        Namespaces::Named(name) if selection.pods.is_empty() => Some(name.clone()),
        _ => None,
    };
    let named: Vec<String> = selections.iter().filter_map(whole).collect();
    let mut terms = Vec::new();
    if !named.is_empty() {
        terms.push(format!(
            "request.namespace in {}",
            quoted_list(named.iter().map(String::as_str))
        ));
    }
    let others = selections
        .iter()
        .filter(|selection| whole(selection).is_none());
    terms.extend(others.map(|other| format!("({})", self::selection(other))));
    if terms.is_empty() {
        "false".into()
    } else {
        terms.join(" || ")
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
