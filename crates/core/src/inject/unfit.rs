//! Nodes on which what is injected cannot run, by their labels: as a function of the pod, and as CEL.

use serde_json::Value;

use super::cel::quoted_list;
use super::json::{list, text};
use crate::names;

/// The labels of nodes with their operating system, the present one and its predecessor.
pub(super) const OS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
/// The labels of nodes with their architecture.
pub(super) const ARCH: [&str; 2] = ["kubernetes.io/arch", "beta.kubernetes.io/arch"];
/// The label that virtual-kubelet gives to its nodes.
pub(super) const NODE_TYPE: &str = "type";

/// Nodes by a label: where an injected pod could not run.
pub(super) struct Unfit {
    /// The present label and its predecessor, if it has one.
    labels: &'static [&'static str],
    /// Values with which it could not.
    values: &'static [&'static str],
    /// The values with which it could, if all are known.
    others: &'static [&'static str],
}

/// Windows nodes.
pub(super) const WINDOWS: Unfit = Unfit {
    labels: &OS,
    values: &["windows"],
    others: &["linux"],
};
/// Nodes for which the bundled image does not exist.
pub(super) const WITHOUT_IMAGE: Unfit = Unfit {
    labels: &ARCH,
    values: &names::ARCHITECTURES_WITHOUT_IMAGE,
    others: &["amd64", "arm64"],
};

/// Nodes without a kubelet. What runs their pods may know no init containers that go on running, and then never starts
/// the application.
pub(super) const VIRTUAL: Unfit = Unfit {
    labels: &[NODE_TYPE],
    values: &["virtual-kubelet"],
    others: &[],
};

impl Unfit {
    /// Whether a pod can be placed on such nodes only.
    pub(super) fn confines(&self, spec: &Value) -> bool {
        let selector = |label: &&str| self.values.contains(&text(&spec["nodeSelector"], label));
        let affinity = &spec["affinity"]["nodeAffinity"];
        // A node needs to match one of the terms.
        let terms = list(
            &affinity["requiredDuringSchedulingIgnoredDuringExecution"],
            "nodeSelectorTerms",
        );
        let mut expressions = terms.iter().map(|term| list(term, "matchExpressions"));
        self.labels.iter().any(selector)
            || !terms.is_empty()
                && expressions.all(|all| all.iter().any(|one| self.excludes_others(one)))
    }

    /// Whether an expression of a node affinity excludes all other nodes.
    fn excludes_others(&self, expression: &Value) -> bool {
        let values = list(expression, "values");
        let is_listed = |other: &&str| values.iter().any(|value| value == other);
        self.labels.contains(&text(expression, "key"))
            && match text(expression, "operator") {
                "In" => {
                    let unfit = |value: &Value| self.values.iter().any(|own| value == own);
                    !values.is_empty() && values.iter().all(unfit)
                }
                "NotIn" => !self.others.is_empty() && self.others.iter().all(is_listed),
                _ => false,
            }
    }

    /// [`Self::confines`] in CEL.
    pub(super) fn confines_in_cel(&self) -> String {
        let labels = quoted_list(self.labels.iter().copied());
        let values = quoted_list(self.values.iter().copied());
        let excludes = if self.others.is_empty() {
            String::new()
        } else {
            let others = quoted_list(self.others.iter().copied());
            format!(" || e.operator == \"NotIn\" && {others}.all(o, o in e.?values.orValue([]))")
        };
        format!(
            "{labels}.exists(l, object.spec.?nodeSelector[?l].orValue(\"\") in {values}) \
             || object.spec.?affinity.?nodeAffinity.?requiredDuringSchedulingIgnoredDuringExecution.?nodeSelectorTerms\
             .optMap(terms, terms.size() > 0 && terms.all(t, t.?matchExpressions.orValue([]).exists(e, e.key in {labels} \
             && (e.operator == \"In\" && e.?values.orValue([]).size() > 0 && e.values.all(v, v in {values})\
             {excludes})))).orValue(false)"
        )
    }
}
