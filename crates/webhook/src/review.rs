//! The webhook engine as a function from review to response.
//!
//! Anyone on the network may send anything: a body that is not a review is refused with the reason, anything
//! but the creation of a pod is admitted unchanged, and the answer contains only what the instruction says.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::instruction::Instruction;
use otelagent_core::inject::json::text;
use otelagent_core::inject::{Injection, Reason, Selection, inject};

use crate::patch;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Why a request is not a valid review; the answer has HTTP status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReview {
    /// Not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// Another version of the API, or another kind.
    #[error("this is not an AdmissionReview of admission.k8s.io/v1")]
    NotAReview,
    /// No request with a uid.
    #[error("the review has no request with a uid")]
    NoRequest,
}

impl BadReview {
    /// The `meta/v1 Status` for the answer.
    pub fn status(&self) -> Value {
        failure(400, "BadRequest", &self.to_string())
    }
}

/// An answer without a review, as a `meta/v1 Status`.
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

/// A request of the API server (`admission.k8s.io/v1 AdmissionReview`).
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    uid: String,
    namespace: String,
    /// The pod that is being created; `None` for any other request.
    pod: Option<Value>,
}

/// The outcome of a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer carries a patch.
    Injected,
    /// The pod has everything already.
    Unchanged,
    /// The pod is admitted unchanged.
    Skipped(Reason),
    /// The pod belongs to an older `OtelAgent`.
    Excluded,
    /// The labels of the pod's namespace are unknown, and precedence depends on them.
    UnknownNamespace,
    /// The review is not about the creation of a pod.
    NotAPodCreation,
    /// There is no instruction for this `OtelAgent` that this version understands.
    NoInstruction,
}

impl Outcome {
    /// A stable word for metrics.
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

/// The `AdmissionReview` to send back, and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The review with its response. Always allows: only the warning policy denies.
    pub review: Value,
    /// Its outcome.
    pub outcome: Outcome,
}

impl Review {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// If it is not a review of the version that webhook configurations request.
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

    /// The namespace of the pod.
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

    /// The answer. `namespace_labels` are those of [`Self::namespace`], if known.
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

/// Whether a request is the creation of a pod itself, not of a subresource.
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
