//! The admission policies of one `OtelAgent`, as JSON objects ready to be applied.
//!
//! The API server silently skips a policy that it cannot evaluate, and a policy that makes a pod invalid
//! breaks its creation whatever the failure policy. So the injecting policy is named by its content, and
//! the controller verifies it in the canary namespace before the real binding points to it.

use serde_json::{Value, json};

use super::advice::advice;
use super::cel::{labelled, printable, quoted, selected};
use super::json::{list, text};
use super::kinds::{BINDING, POLICY, WARNING, WARNING_BINDING};
use super::program;
use super::reason::{conditions, mirror};
use super::recipe::Recipe;
use super::selection::{Namespaces, Selection};
use crate::names;
use otelagent_api::OnFailure;

/// Longest CEL expression that the API server accepts, in code points (cel-go's default).
pub const MAX_EXPRESSION: usize = 100_000;

/// Group and version of admission policies and webhook configurations.
pub const API_VERSION: &str = "admissionregistration.k8s.io/v1";
/// The label with a namespace's name, which the API server sets.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The input for the policies of one `OtelAgent`.
#[derive(Clone, Debug)]
pub struct PolicyInput {
    /// Namespace of the `OtelAgent`.
    pub namespace: String,
    /// Name of the `OtelAgent`.
    pub name: String,
    /// Uid of the `OtelAgent`, for the sweep.
    pub uid: String,
    /// The recipe.
    pub recipe: Recipe,
    /// The selected pods.
    pub selection: Selection,
    /// Pods of older `OtelAgent`s, from [`super::precedence::preceding`].
    pub exclusions: Vec<Selection>,
    /// Namespaces whose pods are never injected: kube-system and the operator's.
    pub excluded_namespaces: Vec<String>,
    /// The canary namespace, which has no pods.
    pub canary_namespace: String,
    /// Whether a pod that was not injected is refused.
    pub on_failure: OnFailure,
    /// Reference to the owner of all these objects, a `ClusterRole`.
    pub owner_reference: Option<Value>,
}

/// The objects of an engine for a [`PolicyInput`], in the order of their application. The controller
/// verifies the engine on the canary's pods before it applies the binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The name of the policy or webhook configuration that the binding activates.
    pub name: String,
    /// Hash of the content, a label of the pods that verify it.
    pub hash: String,
    /// `MutatingAdmissionPolicy`, named by its content; the webhook needs none.
    pub policy: Option<Value>,
    /// The binding for the pods that verify the engine.
    pub canary: Value,
    /// The binding for users' pods.
    pub binding: Value,
    /// `ValidatingAdmissionPolicy` that tells the creator of a pod why it was not injected, or refuses
    /// the pod, and its binding.
    pub warnings: [Value; 2],
}

/// Why the policies cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The API server would refuse an expression for its length.
    #[error(
        "the injection does not fit an admission policy: `{expression}` has {length} characters of at most {MAX_EXPRESSION}; \
         make the configuration or the selectors smaller"
    )]
    TooLarge {
        /// The expression.
        expression: String,
        /// Its length in code points.
        length: usize,
    },
    /// The API server would refuse the annotations of a webhook configuration.
    #[error(
        "the injection does not fit the annotations of a webhook configuration: {bytes} bytes of at most 256 KiB; \
         make the configuration or the selectors smaller"
    )]
    TooLargeForAnnotations {
        /// Their length.
        bytes: usize,
    },
}

/// Renders the policies. Equal input gives equal bytes.
///
/// # Errors
/// If an expression is longer than the API server allows.
pub fn render(input: &PolicyInput) -> Result<Rendered, PolicyError> {
    let unnamed = policy_spec(input, "");
    let hash = names::hash(&unnamed.to_string(), 10);
    let spec = policy_spec(input, &hash);
    check_sizes(&spec)?;
    let name = |part: Option<&str>| names::cluster_object(&input.namespace, &input.name, part);
    let (policy_name, own_name) = (name(Some(&hash)), name(None));
    let canary_name = name(Some("canary"));
    let bound = json!({"policyName": policy_name});
    let narrowed = narrowed(bound, input, &[&input.canary_namespace]);
    let mut binding = object(input, BINDING, &own_name, &narrowed);
    binding["metadata"]["annotations"] = json!({
        names::ANNOTATION_SELECTION: printable(&serde_json::to_string(&input.selection).unwrap_or_default()),
        names::ANNOTATION_SERVING: input.recipe.mode.as_str(),
    });
    let canary = canary_binding_spec(input, &policy_name, &hash);
    Ok(Rendered {
        policy: Some(object(input, POLICY, &policy_name, &spec)),
        canary: object(input, BINDING, &canary_name, &canary),
        binding,
        warnings: warnings(input)?,
        name: policy_name,
        hash,
    })
}

/// The policy that warns the creator of a pod that it was not injected, or refuses the pod, and its
/// binding. Both engines use the same.
///
/// # Errors
/// As [`render`].
pub fn warnings(input: &PolicyInput) -> Result<[Value; 2], PolicyError> {
    let name = names::cluster_object(&input.namespace, &input.name, None);
    let spec = warning_spec(input);
    check_sizes(&spec)?;
    let action = if input.on_failure == OnFailure::Fail {
        "Deny"
    } else {
        "Warn"
    };
    let binding = json!({"policyName": name, "validationActions": [action, "Audit"]});
    let binding = narrowed(binding, input, &[]);
    Ok([
        object(input, WARNING, &name, &spec),
        object(input, WARNING_BINDING, &name, &binding),
    ])
}

fn object(input: &PolicyInput, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata(input, name), "spec": spec})
}

/// Name, labels and owner of a cluster-scoped object.
pub fn metadata(input: &PolicyInput, name: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {
            names::LABEL_MANAGED_BY: names::MANAGED_BY,
            names::LABEL_OWNER: names::agent_label(&input.namespace, &input.name),
            names::LABEL_OWNER_UID: input.uid,
        },
    });
    if let Some(owner) = &input.owner_reference {
        metadata["ownerReferences"] = json!([owner]);
    }
    metadata
}

/// The injecting policy. `hash` is its own hash, which the pods that verify it name; empty while it is
/// computed.
fn policy_spec(input: &PolicyInput, hash: &str) -> Value {
    let excluded: Vec<&String> = input
        .excluded_namespaces
        .iter()
        .filter(|name| **name != input.canary_namespace)
        .collect();
    let [first, second] = selected_or_canary(input, hash);
    let mut match_conditions = vec![json!({"name": "selected", "expression": first})];
    match_conditions.extend(conditions(&input.recipe).into_iter().map(|condition| {
        json!({"name": format!("not-{}", condition.name), "expression": format!("!({})", condition.applies)})
    }));
    let variables = std::iter::once((program::SELECTED, second));
    let variables: Vec<Value> = variables
        .chain(program::variables(&input.recipe))
        .map(|(name, expression)| json!({"name": name, "expression": expression}))
        .collect();
    json!({
        // A pod without telemetry is better than no pod; onInjectionFailure: Fail says otherwise.
        "failurePolicy": "Ignore",
        // With IfNeeded, each policy's own change would make it run twice for every pod.
        "reinvocationPolicy": "Never",
        "matchConstraints": matched_pods(&excluded),
        "matchConditions": match_conditions,
        "variables": variables,
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": program::patch(&input.recipe)}}],
    })
}

/// Creation of pods that did not opt out. Sets every default explicitly, so that the stored object equals
/// the written one.
fn matched_pods(excluded: &[&String]) -> Value {
    json!({
        "matchPolicy": "Equivalent",
        "namespaceSelector": {"matchExpressions": [
            {"key": NAMESPACE_NAME, "operator": "NotIn", "values": excluded},
        ]},
        "objectSelector": {"matchExpressions": [
            {"key": names::LABEL_INJECT, "operator": "NotIn", "values": ["false"]},
        ]},
        "resourceRules": [{
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["pods"],
            "scope": "Namespaced",
        }],
    })
}

/// In the canary namespace, only the pods that verify this policy or probe this agent's active injection;
/// elsewhere the selection. In two parts, as [`selected`].
fn selected_or_canary(input: &PolicyInput, hash: &str) -> [String; 2] {
    let [first, second] = selected(&input.selection, &input.exclusions);
    let canary = format!("request.namespace == {}", quoted(&input.canary_namespace));
    let asked = format!(
        "{} || {}",
        labelled(names::LABEL_VERIFICATION, hash),
        labelled(names::LABEL_CANARY, &input.recipe.agent)
    );
    let second = if second == "true" {
        second
    } else {
        format!("{canary} || {second}")
    };
    [format!("{canary} ? {asked} : {first}"), second]
}

fn canary_binding_spec(input: &PolicyInput, policy: &str, hash: &str) -> Value {
    json!({
        "policyName": policy,
        "matchResources": {
            "matchPolicy": "Equivalent",
            "namespaceSelector": namespaces(&[&input.canary_namespace]),
            "objectSelector": {"matchLabels": {names::LABEL_VERIFICATION: hash}},
        },
    })
}

/// Restricted to the namespace if it is known, so that pods of other namespaces cost nothing.
fn narrowed(mut spec: Value, input: &PolicyInput, others: &[&String]) -> Value {
    if let Namespaces::Named(namespace) = &input.selection.namespaces {
        let namespaces = namespaces(&[&[namespace], others].concat());
        spec["matchResources"] = json!({"matchPolicy": "Equivalent", "namespaceSelector": namespaces, "objectSelector": {}});
    }
    spec
}

fn namespaces(names: &[&String]) -> Value {
    json!({"matchExpressions": [{"key": NAMESPACE_NAME, "operator": "In", "values": names}]})
}

/// Runs after everything else has changed the pod, and checks only the label, so that it also reports
/// failures that no rule covers. Of injected pods it says what their creator should know.
fn warning_spec(input: &PolicyInput) -> Value {
    let mut excluded: Vec<&String> = input.excluded_namespaces.iter().collect();
    if !excluded.contains(&&input.canary_namespace) {
        excluded.push(&input.canary_namespace);
    }
    let [first, second] = selected(&input.selection, &input.exclusions);
    let reasons = conditions(&input.recipe).into_iter();
    let reasons = reasons.map(|reason| format!("{} ? {} : ", reason.applies, reason.sentence));
    let reasons = reasons.collect::<Vec<_>>().concat();
    let unknown = "injection was not active when the pod was created, or it failed in the API server; create the pod again";
    let agent = format!("OtelAgent {}/{}", input.namespace, input.name);
    let refused = format!("{agent} did not inject this pod");
    let is_injected = labelled(names::LABEL_AGENT, &input.recipe.agent);
    let mut validations = vec![json!({
        "expression": format!("!variables.{} || {is_injected}", program::SELECTED),
        "message": refused,
        "messageExpression": format!(
            "{} + ({reasons}{})",
            quoted(&format!("{refused}: ")),
            quoted(unknown)
        ),
        "reason": "Forbidden",
    })];
    validations.extend(advice(&input.recipe, input.on_failure).iter().map(|advice| {
        let injected = format!("{agent} injected this pod, but");
        json!({
            "expression": format!(
                "!variables.{} || !{is_injected} || !({})",
                program::SELECTED, advice.applies
            ),
            "message": format!("{injected} {}", advice.plain),
            "messageExpression": format!("{} + {}", quoted(&format!("{injected} ")), advice.sentence),
            "reason": "Forbidden",
        })
    }));
    json!({
        "failurePolicy": if input.on_failure == OnFailure::Fail { "Fail" } else { "Ignore" },
        "matchConstraints": matched_pods(&excluded),
        "matchConditions": [
            {"name": "selected", "expression": first},
            {"name": "not-mirror", "expression": format!("!({})", mirror().applies)},
        ],
        "variables": [{"name": program::SELECTED, "expression": second}],
        "validations": validations,
    })
}

/// Checks that every expression of a policy stays below the limit; finds expressions by their keys.
fn check_sizes(spec: &Value) -> Result<(), PolicyError> {
    let items = |key| list(spec, key).iter();
    let named = items("matchConditions").chain(items("variables"));
    let named = named.map(|item| (text(item, "name"), text(item, "expression")));
    let mutations = items("mutations").map(|item| &item["jsonPatch"]);
    let mutations = mutations.map(|patch| ("mutation", text(patch, "expression")));
    let messages = items("validations").map(|item| ("message", text(item, "messageExpression")));
    let all = named.chain(mutations).chain(messages);
    let mut lengths = all.map(|(name, expression)| (name, expression.chars().count()));
    match lengths.find(|(_, length)| *length > MAX_EXPRESSION) {
        None => Ok(()),
        Some((name, length)) => Err(PolicyError::TooLarge {
            expression: name.to_owned(),
            length,
        }),
    }
}
