//! What new pods get now, as the active binding records it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use otelagent_api::Mode;
use serde_json::Value;

use crate::build::Engine;
use crate::inject::Selection;
use crate::names;

/// The prefix of the active name if the webhook injects. No object has such a name.
const WEBHOOK_PREFIX: &str = "webhook ";

/// What new pods get now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// The mode of new pods.
    pub mode: Option<Mode>,
    /// Hash of their recipe.
    pub recipe: Option<String>,
    /// The selected pods.
    pub selection: Option<Selection>,
    /// The name of the bound policy, or of the webhook configuration by its content.
    pub policy: Option<String>,
    /// Since when it has been active.
    pub bound_at: Option<Timestamp>,
    /// Why this recipe became the active one, in words.
    pub reason: Option<String>,
    /// Version of the operator that last wrote the binding.
    pub written_by: Option<String>,
}

impl Active {
    /// Reads a real binding, or a real webhook configuration.
    pub fn of(binding: &Value) -> Self {
        let annotations = &binding["metadata"]["annotations"];
        let annotations: BTreeMap<String, String> =
            serde_json::from_value(annotations.clone()).unwrap_or_default();
        Self::read(&annotations, binding["spec"]["policyName"].as_str())
    }

    /// Reads the annotations of the binding of `policy`, or of a webhook configuration.
    pub fn read(annotations: &BTreeMap<String, String>, policy: Option<&str>) -> Self {
        let text = |key: &str| annotations.get(key).map(String::as_str);
        let configuration = text(names::ANNOTATION_WEBHOOK_HASH).map(webhook_configuration);
        Self {
            mode: text(names::ANNOTATION_SERVING).and_then(Mode::parse),
            recipe: text(names::ANNOTATION_RECIPE).map(Into::into),
            selection: text(names::ANNOTATION_SELECTION)
                .and_then(|text| serde_json::from_str(text).ok()),
            policy: policy.map(Into::into).or(configuration),
            bound_at: text(names::ANNOTATION_BOUND_AT).and_then(|text| text.parse().ok()),
            reason: text(names::ANNOTATION_REASON).map(Into::into),
            written_by: text(names::ANNOTATION_OPERATOR).map(Into::into),
        }
    }

    /// Its engine, or `otherwise` if nothing is active.
    pub fn engine(&self, otherwise: Engine) -> Engine {
        match self.policy.as_deref() {
            None => otherwise,
            Some(name) if name.starts_with(WEBHOOK_PREFIX) => Engine::Webhook,
            Some(_) => Engine::Policy,
        }
    }
}

/// The active name if the webhook configuration with this content hash is active.
pub fn webhook_configuration(hash: &str) -> String {
    format!("{WEBHOOK_PREFIX}{hash}")
}
