//! The webhook configurations of one `OtelAgent`, as JSON objects ready to be applied.
//!
//! The API server calls the webhook for selected pods only: the configuration says what its selectors and
//! match conditions can express, and carries what is injected as an [`Instruction`]. Like a policy, a
//! configuration is named by its content and verified in the canary namespace before it reaches users'
//! pods.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::instruction::{Instruction, Target};
use otelagent_api::{OnFailure, Selector};
use otelagent_core::build::Engine;
use otelagent_core::inject::cel::{printable, quoted, selected};
use otelagent_core::inject::policy::{self, NAMESPACE_NAME, PolicyError, PolicyInput, Rendered};
use otelagent_core::inject::reason::mirror;
use otelagent_core::inject::{Namespaces, Selection};
use otelagent_core::names;
use otelagent_core::reconcile::Render;
use otelagent_core::reconcile::active::webhook_configuration;

/// Bytes that all annotations of an object may have (`ValidateAnnotationsSize` of apimachinery), less those
/// that are added when a configuration is written.
const MAX_ANNOTATIONS: usize = (256 << 10) - 4096;
/// Tells the admissions enforcer of AKS not to add terms to the namespace selectors.
const ENFORCER_DISABLED: &str = "admissions.enforcer/disabled";
/// How long the API server waits for an answer, in seconds. A hung webhook delays each selected pod by this
/// time.
pub const TIMEOUT_SECONDS: u8 = 3;

/// Where the API server reaches the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// At a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// At an address, such as `https://192.0.2.7:8443`, for webhooks outside of the cluster.
    Url(String),
}

/// The webhook as an available engine.
pub struct WebhookEngine {
    /// Where the API server reaches it.
    pub endpoint: Endpoint,
    /// The CA certificates, as PEM, that the API server trusts.
    pub ca_bundle: String,
    /// Reference to the owner of the configurations, a `ClusterRole`; that of the installation owns the warnings.
    pub owner: Option<Value>,
}

impl Render for WebhookEngine {
    fn engine(&self) -> Engine {
        Engine::Webhook
    }

    /// Fails if the recipe does not fit the annotations of an object, or the warnings a policy.
    fn render(&self, input: &PolicyInput) -> Result<Rendered, PolicyError> {
        let warnings = policy::warnings(input)?;
        let input = &PolicyInput {
            owner_reference: self.owner.clone(),
            ..input.clone()
        };
        let instruction = Instruction {
            recipe: input.recipe.clone(),
            exclusions: input.exclusions.clone(),
            canary_namespace: input.canary_namespace.clone(),
        }
        .to_text();
        let client = |hash, ca_bundle| client_config(input, &self.endpoint, hash, ca_bundle);
        let unnamed = json!([
            instruction,
            users_pods(input, &client("", "")),
            canary_pods(input, &client("", ""), "")
        ]);
        let hash = names::hash(&unnamed.to_string(), 10);
        let client = client(&hash, &self.ca_bundle);
        let name = |part: Option<&str>| names::cluster_object(&input.namespace, &input.name, part);
        let mut annotations = json!({
            names::ANNOTATION_INSTRUCTION: instruction,
            names::ANNOTATION_WEBHOOK_HASH: hash,
            ENFORCER_DISABLED: "true",
        });
        let canary = object(
            input,
            &name(Some("canary")),
            &annotations,
            &json!([verification_pods(input, &client, &hash)]),
        );
        let selection = serde_json::to_string(&input.selection).unwrap_or_default();
        annotations[names::ANNOTATION_SELECTION] = printable(&selection).into();
        annotations[names::ANNOTATION_SERVING] = input.recipe.mode.as_str().into();
        check_size(&annotations)?;
        let webhooks = json!([
            users_pods(input, &client),
            canary_pods(input, &client, &hash)
        ]);
        Ok(Rendered {
            name: webhook_configuration(&hash),
            hash,
            policy: None,
            canary,
            binding: object(input, &name(None), &annotations, &webhooks),
            warnings,
        })
    }
}

fn object(input: &PolicyInput, name: &str, annotations: &Value, webhooks: &Value) -> Value {
    let mut metadata = policy::metadata(input, name);
    metadata["annotations"] = annotations.clone();
    json!({
        "apiVersion": policy::API_VERSION,
        "kind": "MutatingWebhookConfiguration",
        "metadata": metadata,
        "webhooks": webhooks,
    })
}

fn check_size(annotations: &Value) -> Result<(), PolicyError> {
    let each = annotations.as_object().into_iter().flatten();
    let size = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    let bytes = each.map(size).sum();
    if bytes > MAX_ANNOTATIONS {
        return Err(PolicyError::TooLargeForAnnotations { bytes });
    }
    Ok(())
}

fn client_config(input: &PolicyInput, endpoint: &Endpoint, hash: &str, ca_bundle: &str) -> Value {
    let target = Target {
        namespace: input.namespace.clone(),
        name: input.name.clone(),
        hash: hash.to_owned(),
    };
    let bundle = ByteString(ca_bundle.as_bytes().to_vec());
    match endpoint {
        Endpoint::Service { namespace, name } => json!({
            "caBundle": bundle,
            "service": {"namespace": namespace, "name": name, "path": target.path(), "port": 443},
        }),
        Endpoint::Url(url) => json!({
            "caBundle": bundle,
            "url": format!("{}{}", url.trim_end_matches('/'), target.path()),
        }),
    }
}

/// What all webhooks share: they apply to the creation of pods. Sets every default explicitly.
fn webhook(name: &str, client: &Value, fails: bool, fields: Value) -> Value {
    let mut webhook = json!({
        "name": format!("{name}.injection.otelagent.dev"),
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "failurePolicy": if fails { "Fail" } else { "Ignore" },
        "matchPolicy": "Equivalent",
        // Injection is idempotent, and containers that others add later need their variables as well.
        "reinvocationPolicy": "IfNeeded",
        "rules": [{
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["pods"],
            "scope": "Namespaced",
        }],
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_SECONDS,
    });
    if let (Some(webhook), Value::Object(fields)) = (webhook.as_object_mut(), fields) {
        webhook.extend(fields);
    }
    webhook
}

/// For the selected pods. Match conditions do not know the labels of namespaces, so the webhook itself
/// applies exclusions by those labels.
fn users_pods(input: &PolicyInput, client: &Value) -> Value {
    let [first, _] = selected(&input.selection, &input.exclusions);
    let fields = json!({
        "namespaceSelector": namespace_selector(input),
        "objectSelector": object_selector(&input.selection),
        "matchConditions": [
            {"name": "selected", "expression": first},
            {"name": "not-mirror", "expression": format!("!({})", mirror().applies)},
        ],
    });
    webhook("pods", client, input.on_failure == OnFailure::Fail, fields)
}

/// For dry-run pods that probe whether injection is active. Its failure policy is Fail, so that the answer
/// has the error.
fn canary_pods(input: &PolicyInput, client: &Value, hash: &str) -> Value {
    let label = |key: &str, value: &str| {
        let (key, value) = (quoted(key), quoted(value));
        format!("object.metadata.?labels[?{key}].orValue(\"\") == {value}")
    };
    let verifies = label(names::LABEL_VERIFICATION, hash);
    let asks = label(names::LABEL_CANARY, &input.recipe.agent);
    let fields = json!({
        "namespaceSelector": in_canary_namespace(input),
        "objectSelector": {},
        "matchConditions": [{"name": "asked", "expression": format!("{verifies} || {asks}")}],
    });
    webhook("canary", client, true, fields)
}

/// For dry-run pods that verify this configuration.
fn verification_pods(input: &PolicyInput, client: &Value, hash: &str) -> Value {
    let fields = json!({
        "namespaceSelector": in_canary_namespace(input),
        "objectSelector": {"matchLabels": {names::LABEL_VERIFICATION: hash}},
    });
    webhook("verification", client, true, fields)
}

fn in_canary_namespace(input: &PolicyInput) -> Value {
    json!({"matchExpressions": [
        {"key": NAMESPACE_NAME, "operator": "In", "values": [input.canary_namespace]},
        {"key": NAMESPACE_NAME, "operator": "NotIn", "values": input.excluded_namespaces},
    ]})
}

/// Every configuration excludes the namespaces that are never injected.
fn namespace_selector(input: &PolicyInput) -> Value {
    let mut excluded: Vec<&String> = input.excluded_namespaces.iter().collect();
    if !excluded.contains(&&input.canary_namespace) {
        excluded.push(&input.canary_namespace);
    }
    let excluded = json!({"key": NAMESPACE_NAME, "operator": "NotIn", "values": excluded});
    match &input.selection.namespaces {
        Namespaces::Named(name) => json!({"matchExpressions": [
            {"key": NAMESPACE_NAME, "operator": "In", "values": [name]},
            excluded,
        ]}),
        Namespaces::Labelled(labels) => with_requirement(labels, excluded),
    }
}

fn object_selector(selection: &Selection) -> Value {
    let not_opted_out =
        json!({"key": names::LABEL_INJECT, "operator": "NotIn", "values": ["false"]});
    with_requirement(&selection.pods, not_opted_out)
}

/// A label selector with one more requirement.
fn with_requirement(selector: &Selector, requirement: Value) -> Value {
    let mut all = json!(selector);
    match &mut all["matchExpressions"] {
        Value::Array(requirements) => requirements.push(requirement),
        none => *none = json!([requirement]),
    }
    all
}
