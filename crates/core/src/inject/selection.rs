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
    /// The namespace with this name.
    Named(String),
    /// Namespaces with these labels.
    Labelled(Selector),
}

impl Selection {
    /// Whether a pod with these labels in this namespace is selected: by namespace and labels, unless it
    /// opted out. The caller handles system namespaces and exclusions.
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

    /// Whether it selects namespaces by label.
    pub fn is_by_namespace_labels(&self) -> bool {
        matches!(&self.namespaces, Namespaces::Labelled(selector) if !selector.is_empty())
    }

    /// Whether its selectors contradict themselves, so that no pod can be selected.
    pub fn is_impossible(&self) -> bool {
        let is_opted_out = |labels: &BTreeMap<String, String>| {
            labels
                .get(names::LABEL_INJECT)
                .is_some_and(|value| value == "false")
        };
        let namespaces = match &self.namespaces {
            Namespaces::Named(_) => false,
            Namespaces::Labelled(selector) => contradict(selector, selector),
        };
        namespaces || contradict(&self.pods, &self.pods) || is_opted_out(&self.pods.match_labels)
    }

    /// Whether both may select the same pod; `true` if that is unknown.
    pub fn may_overlap(&self, other: &Self) -> bool {
        match (&self.namespaces, &other.namespaces) {
            (Namespaces::Named(a), Namespaces::Named(b)) if a != b => false,
            _ => !contradict(&self.pods, &other.pods),
        }
    }
}

/// Whether two selectors require different values of one label.
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
