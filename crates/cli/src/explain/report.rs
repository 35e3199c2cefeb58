//! The answer of `explain`, as `-o json` and `-o yaml` show it. docs/cli.md describes the fields.

use otelagent_api::Mode;
use otelagent_core::explain::{Check, Edit};
use serde::Serialize;
use serde_json::Value;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The pods.
    pub items: Vec<PodExplanation>,
    /// What could not be read, and what follows.
    pub notes: Vec<String>,
}

/// One pod, or the pods of one manifest.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodExplanation {
    /// Its namespace.
    pub namespace: String,
    /// Kind and name, such as `Pod cart-7d4b9`, or the workload of a manifest.
    pub subject: String,
    /// Whether it is injected as a new one would be, or is not to be injected.
    pub is_as_wished: bool,
    /// What is to be said of it first, in a sentence.
    pub summary: String,
    /// For which `OtelAgent` and in which mode it was injected, if it runs and was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injected: Option<InjectionReport>,
    /// The `OtelAgent`s that may concern it, in the order of precedence, with the rules of each.
    pub candidates: Vec<CandidateReport>,
    /// What would be injected if it were made now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<InjectionReport>,
    /// Where it differs from what would be injected now.
    pub differences: Vec<EditReport>,
    /// What its owner should know.
    pub advice: Vec<String>,
}

/// What is injected.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InjectionReport {
    /// The `OtelAgent`, as `namespace.name`.
    pub agent: String,
    /// The mode, as the pod's label says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Hash of the recipe, as the pod's label says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// What was added or changed.
    pub edits: Vec<EditReport>,
}

/// One thing that is added, changed or gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EditReport {
    /// Where, such as `spec.containers[app].env[OTEL_SERVICE_NAME]`.
    pub path: String,
    /// What is there first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is there then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// An `OtelAgent` that may inject a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The mode of new pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Whether it selects the pod, and no older one does.
    pub selects: bool,
    /// Whether it would inject the pod.
    pub injects: bool,
    /// The rules: of selection, and if it selects the pod of injection.
    pub rules: Vec<RuleReport>,
}

/// A rule, and whether the pod meets it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// Whether it does.
    pub is_met: bool,
    /// What was found.
    pub text: String,
}

impl Explanation {
    /// Whether everything is as wished.
    pub fn is_as_wished(&self) -> bool {
        self.items.iter().all(|item| item.is_as_wished)
    }
}

impl From<Edit> for EditReport {
    fn from(edit: Edit) -> Self {
        Self {
            path: edit.path.to_string(),
            before: edit.before,
            after: edit.after,
        }
    }
}

impl From<Check> for RuleReport {
    fn from(check: Check) -> Self {
        Self {
            is_met: check.is_met,
            text: check.sentence,
        }
    }
}
