//! The rules of a selection, one by one.

use std::collections::BTreeMap;

use crate::inject::{Namespaces, Selection};
use crate::names;
use otelagent_api::{Operator, Requirement, Selector};

/// One rule, and whether a pod meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Whether it does.
    pub is_met: bool,
    /// What was found, as a sentence.
    pub sentence: String,
}

impl Check {
    /// A rule with what was found.
    pub fn of(is_met: bool, sentence: impl Into<String>) -> Self {
        Self {
            is_met,
            sentence: sentence.into(),
        }
    }
}

/// The rules of a selection for a pod with these labels in this namespace. It is selected if it meets all of them, as
/// [`Selection::matches`] says.
pub fn checks(
    selection: &Selection,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    pod_labels: &BTreeMap<String, String>,
) -> Vec<Check> {
    let mut checks = match &selection.namespaces {
        Namespaces::Named(name) if name == namespace => {
            vec![Check::of(true, format!("it is in namespace {name}"))]
        }
        Namespaces::Named(name) => vec![Check::of(
            false,
            format!("it is in namespace {namespace}, not in {name}"),
        )],
        Namespaces::Labelled(selector) => of_selector("its namespace", selector, namespace_labels),
    };
    let opted_out = pod_labels
        .get(names::LABEL_INJECT)
        .is_some_and(|value| value == "false");
    let label = names::LABEL_INJECT;
    checks.push(if opted_out {
        Check::of(false, format!("it opts out with the label {label}=false"))
    } else {
        Check::of(
            true,
            format!("it does not opt out with the label {label}=false"),
        )
    });
    checks.extend(of_selector("it", &selection.pods, pod_labels));
    checks
}

fn of_selector(what: &str, selector: &Selector, labels: &BTreeMap<String, String>) -> Vec<Check> {
    let equal = selector.match_labels.iter().map(|(key, wanted)| {
        let found = labels.get(key);
        let sentence = match found {
            Some(found) if found == wanted => format!("{what} has the label {key}={wanted}"),
            Some(found) => format!("{what} has the label {key}={found}, not {wanted}"),
            None => format!("{what} lacks the label {key}={wanted}"),
        };
        Check::of(found == Some(wanted), sentence)
    });
    let expressions = selector.match_expressions.iter();
    let expressions = expressions.map(|one| {
        let found = match labels.get(&one.key) {
            Some(found) => format!("{what} has the label {}={found}", one.key),
            None => format!("{what} has no label {}", one.key),
        };
        let is_met = one.matches(labels);
        let verb = if is_met { "as" } else { "and" };
        Check::of(is_met, format!("{found}, {verb} it must {}", demand(one)))
    });
    equal.chain(expressions).collect()
}

/// What a requirement asks for, behind "it must".
fn demand(requirement: &Requirement) -> String {
    let values = requirement.values.join(", ");
    match requirement.operator {
        Operator::In => format!("be one of {values}"),
        Operator::NotIn => format!("be none of {values}"),
        Operator::Exists => "be there".into(),
        Operator::DoesNotExist => "be absent".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label() -> impl Strategy<Value = (String, String)> {
        ("[ab]", "[xy]")
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let operator = prop_oneof![
            Just(Operator::In),
            Just(Operator::NotIn),
            Just(Operator::Exists),
            Just(Operator::DoesNotExist),
        ];
        let requirement = ("[ab]", operator, prop::collection::vec("[xy]", 1..3)).prop_map(
            |(key, operator, values)| Requirement {
                key,
                operator,
                values,
            },
        );
        let labels = prop::collection::btree_map("[ab]", "[xy]", 0..2);
        (labels, prop::collection::vec(requirement, 0..2)).prop_map(|(labels, requirements)| {
            Selector {
                match_labels: labels,
                match_expressions: requirements,
            }
        })
    }

    proptest! {
        #[test]
        fn pod_is_selected_if_it_meets_every_rule(
            namespaces in prop_oneof![
                "[mn]".prop_map(Namespaces::Named),
                selector().prop_map(Namespaces::Labelled),
            ],
            pods in selector(),
            namespace in "[mn]",
            of_namespace in prop::collection::btree_map("[ab]", "[xy]", 0..3),
            of_pod in prop::collection::vec(label(), 0..3),
            opts_out in any::<bool>(),
        ) {
            let mut of_pod: BTreeMap<String, String> = of_pod.into_iter().collect();
            if opts_out {
                of_pod.insert(names::LABEL_INJECT.into(), "false".into());
            }
            let selection = Selection { namespaces, pods };
            let all = checks(&selection, &namespace, &of_namespace, &of_pod);
            prop_assert_eq!(
                all.iter().all(|check| check.is_met),
                selection.matches(&namespace, &of_namespace, &of_pod)
            );
        }
    }

    #[test]
    fn rules_name_what_was_found_and_what_was_asked_for() {
        let selector = |labels: &[(&str, &str)]| Selector {
            match_labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            match_expressions: vec![Requirement {
                key: "tier".into(),
                operator: Operator::In,
                values: vec!["web".into(), "api".into()],
            }],
        };
        let selection = Selection {
            namespaces: Namespaces::Labelled(Selector {
                match_expressions: Vec::new(),
                ..selector(&[("telemetry", "otelagent")])
            }),
            pods: selector(&[("app", "cart")]),
        };
        let of_pod = [("app", "till"), ("tier", "web")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let found = checks(&selection, "shop", &BTreeMap::new(), &of_pod.into());
        let found: Vec<(bool, &str)> = found
            .iter()
            .map(|check| (check.is_met, check.sentence.as_str()))
            .collect();
        let expected = [
            (false, "its namespace lacks the label telemetry=otelagent"),
            (
                true,
                "it does not opt out with the label otelagent.dev/inject=false",
            ),
            (false, "it has the label app=till, not cart"),
            (
                true,
                "it has the label tier=web, as it must be one of web, api",
            ),
        ];
        assert_eq!(found, expected);
    }
}
