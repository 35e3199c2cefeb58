//! Renders `OtelAgent`s by the operator's own functions.

use otelagent_api::{Mode, OtelAgent, ResourceExt};
use otelagent_core::build::{Engine, Environment, Problem, build, engine, validate};
use otelagent_core::inject::Selection;
use otelagent_core::inject::policy::PolicyInput;
use otelagent_core::names;
use otelagent_core::reconcile::{PolicyEngine, Render};
use otelagent_webhook::configuration::{Endpoint, WebhookEngine};
use serde::Serialize;
use serde_json::Value;

use crate::installation::Installation;

/// The answer of `render`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rendering {
    /// For which Kubernetes, such as `1.37`.
    pub kubernetes: String,
    /// One for each `OtelAgent`.
    pub items: Vec<AgentRendering>,
}

/// What one `OtelAgent` becomes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRendering {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Where applications send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Why the operator would refuse the spec.
    pub problems: Vec<ProblemReport>,
    /// The objects that the operator writes.
    pub objects: Vec<Rendered>,
    /// The agent's configuration, as YAML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_configuration: Option<String>,
}

/// Why a spec is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemReport {
    /// The reason of the condition `Accepted`.
    pub reason: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// An object that the operator writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Rendered(pub Value);

impl Rendered {
    /// The text at a path of fields.
    fn text(&self, path: &str) -> &str {
        self.0
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Group and version of its kind.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Its namespace; empty for objects of the cluster.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }
}

impl From<Problem> for ProblemReport {
    fn from(problem: Problem) -> Self {
        Self {
            reason: problem.reason.to_owned(),
            message: problem.message,
        }
    }
}

impl Rendering {
    /// Whether the operator would accept everything.
    pub fn is_as_wished(&self) -> bool {
        self.items.iter().all(|item| item.problems.is_empty())
    }
}

/// For what is rendered.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// How the operator is installed.
    pub installation: &'a Installation,
    /// What objects depend on.
    pub environment: &'a Environment,
    /// Whether the server has admission policies.
    pub offers_policies: bool,
}

/// Renders an `OtelAgent`. `exclusions` are the pods that older ones take.
pub fn render(agent: &OtelAgent, site: Site<'_>, exclusions: Vec<Selection>) -> AgentRendering {
    let mut rendered = AgentRendering {
        namespace: agent.namespace().unwrap_or_default(),
        name: agent.name_any(),
        mode: Some(agent.spec.mode),
        ..AgentRendering::default()
    };
    let valid = match validate(agent, site.environment) {
        Ok(valid) => valid,
        Err(problems) => {
            rendered.problems = problems.into_iter().map(Into::into).collect();
            return rendered;
        }
    };
    let mode = valid.wanted();
    let desired = build(&valid, site.environment, [mode]);
    let objects = desired
        .objects(mode)
        .iter()
        .map(|object| Rendered(without_unknown(object.to_json())));
    rendered.objects = objects.collect();
    rendered.endpoint = Some(desired.shown_endpoint(mode));
    let in_template = "/spec/template/metadata/annotations";
    let templates = rendered
        .objects
        .iter()
        .filter_map(|object| object.0.pointer(in_template));
    let in_pods = desired
        .recipe(mode)
        .and_then(|recipe| recipe.annotations.get(names::ANNOTATION_CONFIG));
    let on_nodes =
        templates.filter_map(|annotations| annotations[names::ANNOTATION_CONFIG].as_str());
    rendered.agent_configuration = on_nodes.map(str::to_owned).chain(in_pods.cloned()).next();
    if let Some((recipe, selection)) = desired.recipe(mode).zip(valid.selection.as_ref()) {
        let input = PolicyInput {
            canary_namespace: site.installation.canary_namespace.clone(),
            exclusions,
            ..valid.policy_input(site.environment, recipe.clone(), selection)
        };
        match admission(&input, site) {
            Ok(objects) => rendered.objects.extend(objects),
            Err(problem) => rendered.problems.push(problem),
        }
    }
    rendered
}

/// The objects that inject: without those of the canary, and without their owner and the webhook's CA, which only a
/// cluster has.
fn admission(input: &PolicyInput, site: Site<'_>) -> Result<Vec<Rendered>, ProblemReport> {
    let problem = |reason: &str, message: String| ProblemReport {
        reason: reason.into(),
        message,
    };
    let installation = site.installation;
    let chosen = engine(
        installation.engine,
        site.offers_policies,
        site.environment.server,
    );
    let chosen = chosen.map_err(|message| problem("ServerTooOld", message))?;
    let rendered = match chosen {
        Engine::Policy => PolicyEngine.render(input),
        Engine::Webhook => WebhookEngine {
            endpoint: match &installation.webhook_url {
                Some(url) => Endpoint::Url(url.clone()),
                None => Endpoint::Service {
                    namespace: installation.namespace.clone(),
                    name: installation.webhook.clone(),
                },
            },
            ca_bundle: String::new(),
            owner: None,
        }
        .render(input),
    };
    let rendered = rendered.map_err(|error| problem("PolicyTooLarge", error.to_string()))?;
    let objects = rendered
        .policy
        .into_iter()
        .chain([rendered.binding])
        .chain(rendered.warnings);
    Ok(objects
        .map(|object| Rendered(without_unknown(object)))
        .collect())
}

/// What only the stored `OtelAgent`, or the cluster, has is left out where it is not known.
fn without_unknown(mut object: Value) -> Value {
    let labels = object
        .pointer_mut("/metadata/labels")
        .and_then(Value::as_object_mut);
    if let Some(labels) = labels {
        labels.retain(|key, value| key != names::LABEL_OWNER_UID || value != "");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, value| key != "ownerReferences" || value[0]["uid"] != "");
    }
    let webhooks = object.get_mut("webhooks").and_then(Value::as_array_mut);
    for webhook in webhooks.into_iter().flatten() {
        if let Some(client) = webhook["clientConfig"].as_object_mut() {
            client.retain(|key, value| key != "caBundle" || value != "");
        }
    }
    object
}
