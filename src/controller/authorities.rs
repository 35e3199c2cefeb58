//! Keeping the certificate authority of the webhook: its Secret, and what entries trust.
//!
//! When a new one is due is [`otelagent_webhook::ca`]'s to say. The Secret is part of the manifests, so that no
//! right to create Secrets is needed; it is filled, renewed and, if somebody empties it, restored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::time::MissedTickBehavior;

use super::context::Context;
use super::engine::InjectionSettings;
use super::error::ControllerError;
use super::stores::Trigger;
use otelagent_core::in_full;
use otelagent_core::names;
use otelagent_webhook::ca::{Authority, TrustedFile};
use otelagent_webhook::issue;

/// How often Secret or file are read.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The certificate authorities that entries trust, as PEM; clones of the handle share them.
#[derive(Default)]
pub(crate) struct Authorities {
    trusted: Mutex<String>,
    /// Our own, as last read or written.
    own: Mutex<Option<Authority>>,
    /// Those of a file.
    file: Mutex<TrustedFile>,
}

impl Authorities {
    /// As PEM; empty until they are known.
    pub(super) fn bundle(&self) -> String {
        self.trusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether it is news.
    fn trust(&self, bundle: String) -> bool {
        let mut trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *trusted != bundle;
        *trusted = bundle;
        is_new
    }

    fn remembered(&self) -> Option<Authority> {
        self.own
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn remember(&self, authority: &Authority) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority.clone());
    }
}

/// Keeps the authorities for ever, and has every entry looked at when they change.
pub(super) async fn keep(
    context: Arc<Context>,
    settings: InjectionSettings,
    trigger: Trigger,
) -> &'static str {
    let mut clock = tokio::time::interval(LOOK_EVERY);
    // A process that was paused looks once, not once for each look it missed.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        clock.tick().await;
        let outcome = look(&context, &settings).await;
        match &outcome {
            Ok(bundle) => {
                if context.authorities.trust(bundle.clone()) {
                    tracing::info!("the certificate authorities that entries trust changed");
                    trigger.each(|agent| agent.spec.workloads.is_some());
                }
            }
            Err(error) if told != Some(error.reason()) => {
                context.metrics.failed(error.reason());
                tracing::warn!(
                    reason = error.reason(),
                    error = in_full(error),
                    "certificate authority not kept, trying again"
                );
            }
            Err(_) => {}
        }
        told = outcome.as_ref().err().map(ControllerError::reason);
    }
}

/// What is to be trusted now.
async fn look(context: &Context, settings: &InjectionSettings) -> Result<String, ControllerError> {
    if let Some(path) = settings.authority_file.clone() {
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
        let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let text = read.map_err(ControllerError::AuthorityFile)?;
        let file = &context.authorities.file;
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        return Ok(file.read(text, Timestamp::now()));
    }
    let now = Timestamp::now();
    let namespace = &context.environment.operator_namespace;
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let secret = api
        .get(names::CA_SECRET)
        .await
        .map_err(ControllerError::api(
            "read the webhook's certificate authority",
        ))?;
    let kept = kept(&secret);
    // What somebody emptied or broke is what entries and replicas still go by: it is put back.
    let mut authority = kept
        .clone()
        .or_else(|| context.authorities.remembered())
        .unwrap_or_default();
    if authority.is_to_be_renewed(now) {
        let issuer = issue::issuer(now, settings.authority_life)?;
        authority = authority.with(issuer, now);
    }
    if kept.as_ref() != Some(&authority) {
        write(&api, secret, &authority).await?;
        context.metrics.wrote("Secret", "update");
    }
    context.authorities.remember(&authority);
    Ok(authority.bundle(now))
}

fn kept(secret: &Secret) -> Option<Authority> {
    let bytes = secret.data.as_ref()?.get(names::CA_KEY)?;
    Authority::parse(std::str::from_utf8(&bytes.0).ok()?)
}

/// Writes only what was read: the version says so.
async fn write(
    api: &Api<Secret>,
    mut secret: Secret,
    authority: &Authority,
) -> Result<(), ControllerError> {
    let text = ByteString(authority.to_text().into_bytes());
    secret.data = Some(BTreeMap::from([(names::CA_KEY.to_owned(), text)]));
    let by = PostParams {
        field_manager: Some(names::FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    api.replace(names::CA_SECRET, &by, &secret)
        .await
        .map_err(ControllerError::api(
            "write the webhook's certificate authority",
        ))?;
    tracing::info!("wrote the webhook's certificate authority");
    Ok(())
}
