//! Review in, response out: the webhook engine as a function.
//!
//! Anyone on the network may send anything here: what is no review is refused with the reason, what is no
//! creation of a pod is admitted unchanged, and the answer holds nothing but what the instruction says. Must not know how requests arrive.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use crate::instruction::Instruction;
use otelagent_core::inject::json::{entry, text};
use otelagent_core::inject::{Injection, Reason, inject};

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
        json!({
            "apiVersion": "v1",
            "kind": "Status",
            "status": "Failure",
            "reason": "BadRequest",
            "code": 400,
            "message": self.to_string(),
        })
    }
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
        let mut request = review
            .get_mut("request")
            .map(Value::take)
            .unwrap_or_default();
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
                .any(otelagent_core::inject::Selection::is_by_namespace_labels)
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
        if self.namespace == instruction.canary_namespace {
            return false;
        }
        let none = BTreeMap::new();
        let namespace_labels = namespace_labels.unwrap_or(&none);
        let labels = labels_of(pod);
        instruction
            .exclusions
            .iter()
            .any(|other| other.matches(&self.namespace, namespace_labels, &labels))
    }

    fn unchanged(&self, outcome: Outcome) -> Answer {
        self.respond(Map::new(), outcome)
    }

    fn patched(&self, operations: &[Value]) -> Answer {
        if operations.is_empty() {
            return self.unchanged(Outcome::Unchanged);
        }
        let patch = ByteString(Value::from(operations).to_string().into_bytes());
        let fields = [
            ("patchType".to_owned(), json!("JSONPatch")),
            ("patch".to_owned(), json!(patch)),
        ];
        self.respond(Map::from_iter(fields), Outcome::Injected)
    }

    fn respond(&self, mut response: Map<String, Value>, outcome: Outcome) -> Answer {
        response.insert("uid".into(), json!(self.uid));
        response.insert("allowed".into(), json!(true));
        let review = json!({"apiVersion": API_VERSION, "kind": KIND, "response": response});
        Answer { review, outcome }
    }
}

/// Whether a request is the creation of a pod itself, not of something below it.
fn creates_a_pod(request: &Value) -> bool {
    let part = |field: &str, key: &str| {
        request
            .get(field)
            .map(|value| text(value, key).to_owned())
            .unwrap_or_default()
    };
    text(request, "operation") == "CREATE"
        && text(request, "subResource").is_empty()
        && part("resource", "group").is_empty()
        && part("resource", "version") == "v1"
        && part("resource", "resource") == "pods"
}

fn is_a_pod(object: &Value) -> bool {
    text(object, "apiVersion") == "v1" && text(object, "kind") == "Pod"
}

fn labels_of(pod: &Value) -> BTreeMap<String, String> {
    let labels = pod
        .get("metadata")
        .and_then(|metadata| metadata.get("labels"))
        .and_then(Value::as_object);
    let keys = labels.into_iter().flatten().map(|(key, _)| key);
    keys.filter_map(|key| {
        let value = entry(pod, ["metadata", "labels"], key)?;
        Some((key.clone(), value.to_owned()))
    })
    .collect()
}
