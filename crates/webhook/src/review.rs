//! Review in, response out: the webhook engine as a function.
//!
//! Anyone on the network may send anything here: what is no review is refused with the reason, what is no
//! creation of a pod is admitted unchanged, and the answer holds nothing but what the instruction says. Must not know how requests arrive.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::instruction::Instruction;
use otelagent_core::inject::json::text;
use otelagent_core::inject::{Injection, Reason, Selection, inject};

use crate::patch;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Why a request is no review that can be answered. Answered with HTTP status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReview {
    /// Not JSON at all.
    #[error("the body is no JSON")]
    NotJson,
    /// Another version of the API, or another kind.
    #[error("this is no AdmissionReview of admission.k8s.io/v1")]
    NotAReview,
    /// Nothing to answer to.
    #[error("the review has no request with a uid")]
    NoRequest,
}

impl BadReview {
    /// The `meta/v1 Status` that says so.
    pub fn status(&self) -> Value {
        failure(400, "BadRequest", &self.to_string())
    }
}

/// An answer that is no review, in the API server's own form (`meta/v1 Status`).
pub(crate) fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": reason,
        "code": code,
        "message": message,
    })
}

/// A question of the API server (`admission.k8s.io/v1 AdmissionReview`).
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    uid: String,
    namespace: String,
    /// The pod that is created; `None` where the question is about anything else.
    pod: Option<Value>,
}

/// What became of a reviewed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer carries a patch.
    Injected,
    /// Everything is there already.
    Unchanged,
    /// The pod is admitted as it is.
    Skipped(Reason),
    /// The pod belongs to an older `OtelAgent`.
    Excluded,
    /// The labels of the pod's namespace are not known, and whose the pod is depends on them.
    UnknownNamespace,
    /// The review is not about the creation of a pod.
    NotAPodCreation,
    /// No instruction for this `OtelAgent` is known, or none that this version understands.
    NoInstruction,
}

impl Outcome {
    /// Stable word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Injected => "Injected",
            Self::Unchanged => "Unchanged",
            Self::Skipped(reason) => reason.word(),
            Self::Excluded => "Excluded",
            Self::UnknownNamespace => "UnknownNamespace",
            Self::NotAPodCreation => "NotAPodCreation",
            Self::NoInstruction => "NoOrder",
        }
    }
}

/// An answer: the `AdmissionReview` to send back, and what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The review with its response. Allows in every case: to deny is the warning policy's.
    pub review: Value,
    /// What it means.
    pub outcome: Outcome,
}

impl Review {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Where it is no review of the one version that webhook configurations ask for.
    pub fn parse(body: &[u8]) -> Result<Self, BadReview> {
        let mut review: Value = serde_json::from_slice(body).map_err(|_| BadReview::NotJson)?;
        if text(&review, "apiVersion") != API_VERSION || text(&review, "kind") != KIND {
            return Err(BadReview::NotAReview);
        }
        let request = review.get_mut("request").map(Value::take);
        let mut request = request.unwrap_or_default();
        let uid = text(&request, "uid").to_owned();
        if uid.is_empty() {
            return Err(BadReview::NoRequest);
        }
        let is_creation = creates_a_pod(&request);
        let object = request.get_mut("object").map(Value::take);
        Ok(Self {
            uid,
            namespace: text(&request, "namespace").to_owned(),
            pod: object.filter(|object| is_creation && is_a_pod(object)),
        })
    }

    /// The namespace the pod is created in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether the answer depends on the labels of the pod's namespace.
    pub fn needs_namespace_labels(&self, instruction: &Instruction) -> bool {
        self.pod.is_some()
            && self.namespace != instruction.canary_namespace
            && instruction
                .exclusions
                .iter()
                .any(Selection::is_by_namespace_labels)
    }

    /// The answer. `namespace_labels` are those of [`Self::namespace`], where they are known.
    pub fn answer(
        &self,
        instruction: Option<&Instruction>,
        namespace_labels: Option<&BTreeMap<String, String>>,
    ) -> Answer {
        let Some(pod) = &self.pod else {
            return self.unchanged(Outcome::NotAPodCreation);
        };
        let Some(instruction) = instruction else {
            return self.unchanged(Outcome::NoInstruction);
        };
        if namespace_labels.is_none() && self.needs_namespace_labels(instruction) {
            return self.unchanged(Outcome::UnknownNamespace);
        }
        if self.is_excluded(pod, instruction, namespace_labels) {
            return self.unchanged(Outcome::Excluded);
        }
        match inject(pod, &self.namespace, &instruction.recipe) {
            Injection::Skipped(reason) => self.unchanged(Outcome::Skipped(reason)),
            Injection::Injected(injected) => self.patched(&patch::between(pod, &injected)),
        }
    }

    fn is_excluded(
        &self,
        pod: &Value,
        instruction: &Instruction,
        namespace_labels: Option<&BTreeMap<String, String>>,
    ) -> bool {
        let none = BTreeMap::new();
        let (namespace_labels, labels) = (namespace_labels.unwrap_or(&none), labels_of(pod));
        let excludes =
            |other: &Selection| other.matches(&self.namespace, namespace_labels, &labels);
        self.namespace != instruction.canary_namespace
            && instruction.exclusions.iter().any(excludes)
    }

    fn unchanged(&self, outcome: Outcome) -> Answer {
        self.respond(json!({}), outcome)
    }

    fn patched(&self, operations: &[Value]) -> Answer {
        if operations.is_empty() {
            return self.unchanged(Outcome::Unchanged);
        }
        let patch = ByteString(Value::from(operations).to_string().into_bytes());
        let response = json!({"patchType": "JSONPatch", "patch": patch});
        self.respond(response, Outcome::Injected)
    }

    fn respond(&self, mut response: Value, outcome: Outcome) -> Answer {
        response["uid"] = self.uid.as_str().into();
        response["allowed"] = true.into();
        let review = json!({"apiVersion": API_VERSION, "kind": KIND, "response": response});
        Answer { review, outcome }
    }
}

/// Whether a request is the creation of a pod itself, not of something below it.
fn creates_a_pod(request: &Value) -> bool {
    let resource = &request["resource"];
    text(request, "operation") == "CREATE"
        && text(request, "subResource").is_empty()
        && text(resource, "group").is_empty()
        && text(resource, "version") == "v1"
        && text(resource, "resource") == "pods"
}

fn is_a_pod(object: &Value) -> bool {
    text(object, "apiVersion") == "v1" && text(object, "kind") == "Pod"
}

fn labels_of(pod: &Value) -> BTreeMap<String, String> {
    let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
    let texts = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    texts.collect()
}
