//! The two engines, as the controller handles them: what stands in the way of one, what it makes of a
//! recipe, which kinds it writes.
//!
//! Both are proved, bound, shown and swept in the same way; what differs stands here.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::context::Context;
use super::error::ControllerError;
use super::observe::InForce;
use super::stores::{BINDING, ENTRY, Trigger};
use otelagent_core::build::{Choice, Engine};
use otelagent_core::inject::policy::{self, PolicyInput, Rendered};
use otelagent_core::names;
use otelagent_core::status::InjectionState;
use otelagent_webhook::ca_upkeep::{self, CaObserver, CaSettings};
use otelagent_webhook::configuration::{self, Endpoint};

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

/// The kind that lets an engine act on users' pods.
pub(super) fn binding_kind(engine: Engine) -> &'static str {
    match engine {
        Engine::Policy => BINDING,
        Engine::Webhook => ENTRY,
    }
}

/// The kind of what is in force, or would be if something were.
pub(super) fn kind_in_force(context: &Context, known: &InForce) -> &'static str {
    let chosen = context.engine.clone().unwrap_or(Engine::Policy);
    let engine = known.policy.as_deref().map_or(chosen, |name| {
        if configuration::is_active_name(name) {
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
    if context.ca.pem().is_empty() {
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
    input: PolicyInput,
) -> Result<Rendered, ControllerError> {
    let rendered = match engine {
        Engine::Policy => policy::render(&input),
        Engine::Webhook => {
            // Entries go with the webhook, also where the operator stays.
            let owner = context.webhook_installation().await?;
            configuration::render(&input, &context.endpoint, &context.ca.pem(), owner.as_ref())
        }
    };
    Ok(rendered?)
}

/// Keeps the webhook's CA, and has every entry looked at when it changes.
pub(super) fn keep_ca(
    context: Arc<Context>,
    settings: InjectionSettings,
    trigger: Trigger,
) -> impl Future<Output = &'static str> {
    let settings = CaSettings {
        file: settings.authority_file,
        lifetime: settings.authority_life,
    };
    ca_upkeep::maintain(
        context.client.clone(),
        context.environment.operator_namespace.clone(),
        settings,
        context.ca.clone(),
        CaEvents { context, trigger },
    )
}

struct CaEvents {
    context: Arc<Context>,
    trigger: Trigger,
}

impl CaObserver for CaEvents {
    fn changed(&self) {
        self.trigger.each(|agent| agent.spec.workloads.is_some());
    }

    fn wrote_secret(&self) {
        self.context.metrics.wrote("Secret", "update");
    }

    fn failed(&self, reason: &'static str) {
        self.context.metrics.failed(reason);
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
