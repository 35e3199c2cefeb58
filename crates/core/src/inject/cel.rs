//! CEL text: literals and label selectors.
//!
//! Knows Kubernetes' CEL dialect (optionals), nothing of recipes.

use std::fmt::Write;

use serde_json::Value;

use super::selection::{Namespaces, Selection};
use otelagent_api::{Operator, Requirement, Selector};

/// The pod's labels, an optional map.
const LABELS: &str = "object.metadata.?labels";

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
            let items = items.iter().map(|item| format!("dyn({})", literal(item)));
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let mut entries: Vec<(&String, &Value)> = fields.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entries = entries
                .into_iter()
                .map(|(key, value)| format!("{}: dyn({})", quoted(key), literal(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
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
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
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
    }
    printable
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
        .partition(|exclusion| exclusion.is_by_namespace_labels());
    let [mut first, mut second] = terms(selection);
    first.extend(none_of(&early));
    second.extend(none_of(&late));
    [all(&first), all(&second)]
}

/// That no selection matches. Whole namespaces, the usual case where many teams have an `OtelAgent` of
/// their own, share one term.
fn none_of(selections: &[&Selection]) -> Vec<String> {
    let (mut whole, mut excluded) = (Vec::new(), Vec::new());
    for selection in selections {
        match &selection.namespaces {
            Namespaces::Named(name) if selection.pods.is_empty() => whole.push(name.as_str()),
            _ => excluded.push(format!("!({})", all(&terms(selection).concat()))),
        }
    }
    if !whole.is_empty() {
        let names = format!("!(request.namespace in {})", quoted_list(whole));
        excluded.insert(0, names);
    }
    excluded
}

fn all(terms: &[String]) -> String {
    if terms.is_empty() {
        "true".into()
    } else {
        terms.join(" && ")
    }
}

/// What is asked of the request and the pod, and what is asked of the namespace's labels.
fn terms(selection: &Selection) -> [Vec<String>; 2] {
    let mut pods = selector(LABELS, &selection.pods);
    match &selection.namespaces {
        Namespaces::Named(name) => {
            pods.insert(0, format!("request.namespace == {}", quoted(name)));
            [pods, Vec::new()]
        }
        Namespaces::Labelled(labels) => {
            [pods, selector("namespaceObject.metadata.?labels", labels)]
        }
    }
}

/// That a label of the pod has this value.
pub(super) fn labelled(key: &str, value: &str) -> String {
    equals(LABELS, key, value)
}

fn equals(labels: &str, key: &str, value: &str) -> String {
    let (key, value) = (quoted(key), quoted(value));
    format!("{labels}[?{key}].optMap(v, v == {value}).orValue(false)")
}

/// One term per label asked for; `labels` is an optional map.
fn selector(labels: &str, selector: &Selector) -> Vec<String> {
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
    let equal = selector.match_labels.iter();
    let equal = equal.map(|(key, value)| equals(labels, key, value));
    let requirements = selector.match_expressions.iter().map(requirement);
    equal.chain(requirements).collect()
}
