//! Which pods one `OtelAgent` selects, before exclusions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names;
use otelagent_api::{Requirement, Selector};

/// Which pods one `OtelAgent` selects. Serialized into an annotation of its binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Namespaces of the pods.
    pub namespaces: Namespaces,
    /// Labels of the pods.
    pub pods: Selector,
}

/// Namespaces, by name or by label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Namespaces {
    /// The one of this name.
    Named(String),
    /// Those whose labels are selected.
    Labelled(Selector),
}

impl Selection {
    /// Whether a pod with these labels in this namespace is selected: by namespace and labels, unless
    /// it opted out. System namespaces and exclusions are the caller's.
    pub fn matches(
        &self,
        namespace: &str,
        namespace_labels: &BTreeMap<String, String>,
        pod_labels: &BTreeMap<String, String>,
    ) -> bool {
        self.in_namespace(namespace, namespace_labels)
            && pod_labels
                .get(names::LABEL_INJECT)
                .is_none_or(|value| value != "false")
            && self.pods.matches(pod_labels)
    }

    /// Whether pods of a namespace with these labels may be selected at all.
    pub fn in_namespace(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        match &self.namespaces {
            Namespaces::Named(name) => name == namespace,
            Namespaces::Labelled(selector) => selector.matches(labels),
        }
    }

    /// Whether it selects by labels of namespaces.
    pub fn is_by_namespace_labels(&self) -> bool {
        matches!(&self.namespaces, Namespaces::Labelled(selector) if !selector.is_empty())
    }

    /// Whether some pod may be selected by both; `true` where it cannot be told.
    pub fn may_overlap(&self, other: &Self) -> bool {
        match (&self.namespaces, &other.namespaces) {
            (Namespaces::Named(a), Namespaces::Named(b)) if a != b => false,
            _ => !contradict(&self.pods, &other.pods),
        }
    }
}

/// Whether two selectors ask for different values of one label.
fn contradict(a: &Selector, b: &Selector) -> bool {
    let (equal, other) = (&a.match_labels, &b.match_labels);
    let excluded = |labels: &BTreeMap<String, String>, requirements: &[Requirement]| {
        let known = |r: &&Requirement| labels.contains_key(&r.key);
        requirements
            .iter()
            .filter(known)
            .any(|r| !r.matches(labels))
    };
    equal
        .iter()
        .any(|(key, value)| other.get(key).is_some_and(|other| other != value))
        || excluded(equal, &b.match_expressions)
        || excluded(other, &a.match_expressions)
}
