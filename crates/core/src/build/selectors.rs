//! The syntax of a spec's label selectors.
//!
//! The API server checks it whenever an object is written, but an object may have been stored under an older CRD, and
//! a selector that asks for what no label can be selects nothing without a word.

use otelagent_api::{Operator, OtelAgentSpec, Requirement, Selector};

/// Most characters of a label's value, and of a key without its prefix.
const MAX_NAME: usize = 63;
/// Most characters of a key's prefix.
const MAX_PREFIX: usize = 253;

/// What is wrong with the selectors of `spec.workloads`.
pub(super) fn wrong_selectors(spec: &OtelAgentSpec) -> Vec<String> {
    let Some(workloads) = &spec.workloads else {
        return Vec::new();
    };
    let selectors = [
        ("namespaceSelector", &workloads.namespace_selector),
        ("podSelector", &workloads.pod_selector),
    ];
    let found = selectors.into_iter().flat_map(|(field, selector)| {
        let wrong = selector.as_ref().map(wrong).unwrap_or_default();
        let named = move |why| format!("spec.workloads.{field}.{why}");
        wrong.into_iter().map(named)
    });
    found.collect()
}

/// What is wrong with a selector: the rest of the field's name, and a sentence.
fn wrong(selector: &Selector) -> Vec<String> {
    let labels = selector.match_labels.iter();
    let labels = labels
        .filter(|(key, value)| !is_key(key) || !is_value(value))
        .map(|(key, value)| {
            format!(
                "matchLabels has `{key}: {value}`, which is no label; use one such as example.com/role: agents, with a \
                 value of at most {MAX_NAME} letters, digits, '-', '_' and '.'"
            )
        });
    let requirements = selector.match_expressions.iter().enumerate();
    let requirements = requirements.filter_map(|(index, requirement)| {
        Some(format!(
            "matchExpressions[{index}] {}",
            wrong_with(requirement)?
        ))
    });
    labels.chain(requirements).collect()
}

fn wrong_with(requirement: &Requirement) -> Option<String> {
    let Requirement {
        key,
        operator,
        values,
    } = requirement;
    if !is_key(key) {
        return Some(format!(
            "has key `{key}`, which no label has; use one such as app or example.com/role"
        ));
    }
    if let Some(value) = values.iter().find(|value| !is_value(value)) {
        return Some(format!(
            "has value `{value}`, which no label has; use at most {MAX_NAME} letters, digits, '-', '_' and '.'"
        ));
    }
    let needs_values = matches!(operator, Operator::In | Operator::NotIn);
    match (needs_values, values.is_empty()) {
        (true, true) => Some("has no values, which operators In and NotIn need".into()),
        (false, false) => Some("has values, which Exists and DoesNotExist do not take".into()),
        _ => None,
    }
}

/// Whether it is a key of labels: a name, with an optional DNS subdomain before it.
fn is_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_value(name)
}

/// Whether it is a value of labels; an empty one is.
fn is_value(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_outer = |c: char| c.is_ascii_alphanumeric();
    text.len() <= MAX_NAME
        && text.chars().all(is_inner)
        && text.starts_with(is_outer) != text.is_empty()
        && text.ends_with(is_outer) != text.is_empty()
}

fn is_subdomain(text: &str) -> bool {
    let is_outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.chars().all(|c| is_outer(c) || c == '-')
            && label.starts_with(is_outer)
            && label.ends_with(is_outer)
    };
    text.len() <= MAX_PREFIX && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_those_that_the_api_server_takes() {
        let long = "a".repeat(MAX_NAME);
        let of_longest_prefix = format!("{}.{long}/x", "a".repeat(MAX_PREFIX - MAX_NAME - 1));
        for key in [
            "app",
            "a",
            "A_b.c-D",
            "example.com/role",
            "x-1.y/Z",
            &long,
            &of_longest_prefix,
        ] {
            assert!(is_key(key), "{key}");
        }
        for key in [
            "",
            "/",
            "/x",
            "x/",
            "a/b/c",
            "-a",
            "a-",
            ".a",
            "a b",
            "ä",
            "Example.com/x",
            "a..b/x",
            "-a/x",
            "a_b/x",
            "telemetry:",
            &format!("{long}a"),
            &format!("a{of_longest_prefix}"),
        ] {
            assert!(!is_key(key), "{key}");
        }
        for value in ["", "v", "a.b_c-D", "0", &long] {
            assert!(is_value(value), "{value}");
        }
        for value in [
            "otel agent",
            "-v",
            "v.",
            "_",
            "a/b",
            "ä",
            &format!("{long}a"),
        ] {
            assert!(!is_value(value), "{value}");
        }
    }
}
