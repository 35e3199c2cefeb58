//! The two engines, as the controller handles them: what stands in the way of one, what it makes of a
//! recipe, which kinds it writes.
//!
//! Both are proved, bound, shown and swept in the same way; what differs stands here.

use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::context::Context;
use super::error::ControllerError;
use super::observe::InForce;
use super::stores::{BINDING, ENTRY};
use otelagent_core::build::{Choice, Engine};
use otelagent_core::inject::policy::{self, PolicyInput};
use otelagent_core::names;
use otelagent_core::status::InjectionState;
use otelagent_webhook::configuration::{self, Endpoint};

/// How the name of what is in force begins where the webhook injects; no object is called so.
const BY_WEBHOOK: &str = "webhook ";

/// How injection was set up.
#[derive(Clone, Debug)]
pub struct InjectionSettings {
    /// Which engine is asked for.
    pub engine: Choice,
    /// Where the webhook is reached, if not by its Service: `https://` with host and port.
    pub webhook_url: Option<String>,
    /// A file with the certificate authorities of the webhook's certificates, if they are not our own.
    pub authority_file: Option<std::path::PathBuf>,
    /// How long one certificate authority of our own lives.
    pub authority_life: Duration,
}

impl Default for InjectionSettings {
    fn default() -> Self {
        Self {
            engine: Choice::Auto,
            webhook_url: None,
            authority_file: None,
            authority_life: Duration::from_hours(365 * 24),
        }
    }
}

impl InjectionSettings {
    /// Where entries send the API server.
    pub(super) fn endpoint(&self, namespace: &str) -> Endpoint {
        match &self.webhook_url {
            Some(url) => Endpoint::Url(url.clone()),
            None => Endpoint::Service {
                namespace: namespace.to_owned(),
                name: names::WEBHOOK.into(),
            },
        }
    }
}

/// What an engine makes of a recipe, in the order in which it is written.
pub(super) struct Rendered {
    /// What is in force once `binding` stands.
    pub(super) name: String,
    /// Hash of the content, on pods that prove it.
    pub(super) hash: String,
    /// What acts on nothing by itself.
    pub(super) policy: Option<Value>,
    /// What lets it act on the pods that prove it.
    pub(super) proof: Value,
    /// What lets it act on users' pods.
    pub(super) binding: Value,
    /// Tells who creates a pod that it was not injected, and its binding.
    pub(super) warnings: [Value; 2],
}

/// The kind that lets an engine act on users' pods.
pub(super) fn binding_kind(engine: Engine) -> &'static str {
    match engine {
        Engine::Policy => BINDING,
        Engine::Webhook => ENTRY,
    }
}

/// What is in force where the entry of this hash stands.
pub(super) fn entry_in_force(hash: &str) -> String {
    format!("{BY_WEBHOOK}{hash}")
}

/// The kind of what is in force, or would be if something were.
pub(super) fn kind_in_force(context: &Context, known: &InForce) -> &'static str {
    let chosen = context.engine.clone().unwrap_or(Engine::Policy);
    let engine = known.policy.as_deref().map_or(chosen, |name| {
        if name.starts_with(BY_WEBHOOK) {
            Engine::Webhook
        } else {
            Engine::Policy
        }
    });
    binding_kind(engine)
}

/// The engine that is not used.
pub(super) fn other(engine: Engine) -> Engine {
    match engine {
        Engine::Policy => Engine::Webhook,
        Engine::Webhook => Engine::Policy,
    }
}

/// What keeps the engine from being used now; nothing is changed meanwhile.
pub(super) async fn obstacle(
    context: &Context,
    engine: Engine,
) -> Result<Option<InjectionState>, ControllerError> {
    if engine == Engine::Policy {
        return Ok(None);
    }
    let failed = |reason, message: String| Ok(Some(InjectionState::Failed { reason, message }));
    let seen = context.stores.admission.get(ENTRY);
    let is_seen = seen.is_some_and(|store| store.wait_until_ready().now_or_never().is_some());
    if !is_seen || context.webhook_installation().await?.is_none() {
        return failed(
            "WebhookNotInstalled",
            format!(
                "injection on this server ({}) needs the webhook, which is not installed; apply manifests/webhook",
                context.environment.server
            ),
        );
    }
    if context.authorities.bundle().is_empty() {
        return failed(
            "WebhookNotReady",
            "the webhook has no certificate authority yet".into(),
        );
    }
    Ok(None)
}

/// What the engine makes of a recipe.
pub(super) async fn render(
    context: &Context,
    engine: Engine,
    mut input: PolicyInput,
) -> Result<Rendered, ControllerError> {
    match engine {
        Engine::Policy => {
            let made = policy::render(&input)?;
            Ok(Rendered {
                name: made.policy["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                hash: made.hash,
                policy: Some(made.policy),
                proof: made.proof_binding,
                binding: made.binding,
                warnings: [made.warning, made.warning_binding],
            })
        }
        Engine::Webhook => {
            let warnings = policy::warnings(&input)?;
            // Entries go with the webhook, also where the operator stays.
            input.owner_reference = context.webhook_installation().await?;
            let made =
                configuration::render(&input, &context.endpoint, &context.authorities.bundle())?;
            Ok(Rendered {
                name: entry_in_force(&made.hash),
                hash: made.hash,
                policy: None,
                proof: made.proof,
                binding: made.entry,
                warnings,
            })
        }
    }
}

/// Owner reference to a `ClusterRole` that stands for a part of the installation, so that cluster-scoped
/// objects go with it even if the operator went first. `None` where it does not exist or may not be read,
/// which is the same: the role grants the reading.
pub(super) async fn installation(
    client: &Client,
    name: &str,
) -> Result<Option<Value>, ControllerError> {
    let api: Api<PartialObjectMeta<ClusterRole>> = Api::all(client.clone());
    let found = match api.get_opt(name).await {
        Err(kube::Error::Api(status)) if status.is_forbidden() => None,
        found => found.map_err(ControllerError::api(format!("read the ClusterRole {name}")))?,
    };
    Ok(found.and_then(|role| role.uid()).map(|uid| {
        serde_json::json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "name": name,
            "uid": uid,
        })
    }))
}
