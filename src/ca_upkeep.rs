//! Upkeep of the webhook's CA: the CA's Secret, and the bundle that webhook configurations trust.
//!
//! [`otelagent_webhook::ca`] decides when a new CA is due. The Secret is part of the manifests, so the operator
//! needs no right to create Secrets; it fills and renews the Secret, and restores it when its content is lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use otelagent_core::{in_full, names};
use otelagent_webhook::ca::{Ca, TrustedFile};
use otelagent_webhook::{issue, stored_ca};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cache::Trigger;
use crate::controller::{ControllerError, Result};
use crate::runtime::Metrics;

/// How often the operator reads the Secret or the file.
const READ_EVERY: Duration = Duration::from_secs(5);
/// How long reading and writing must have failed before conditions say so: a server may be away for a moment.
const FAILS_FOR: Duration = Duration::from_mins(1);

/// Keeps the CA's Secret and the bundle up to date.
pub(crate) struct CaUpkeep {
    /// The namespace of the Secret.
    pub(crate) secrets: Api<Secret>,
    /// Its name.
    pub(crate) secret: String,
    /// A file with CA certificates that another program renews; without one, the operator makes the CA.
    pub(crate) file: Option<PathBuf>,
    /// How long the previous CA certificates of that file stay trusted.
    pub(crate) trusted_on: Duration,
    /// What webhook configurations trust when this process starts, as PEM: replicas may still serve by it.
    pub(crate) trusted: Option<String>,
    /// How long a CA that the operator makes lives.
    pub(crate) lifetime: Duration,
    /// The CA certificates that webhook configurations trust, as PEM, or why none are known.
    pub(crate) bundle: watch::Sender<Result<String, String>>,
    /// Why they cannot be kept up to date, if that has lasted.
    pub(crate) problem: watch::Sender<Option<String>>,
    /// Triggers a new rendering of every webhook configuration.
    pub(crate) trigger: Trigger,
    pub(crate) metrics: Metrics,
}

/// What the operator knows about the CA.
struct Known {
    file: TrustedFile,
    /// The operator's own CA as last read or written.
    last: Option<Ca>,
}

impl CaUpkeep {
    /// Runs until the task is aborted. Only the leader may run it.
    pub(crate) async fn run(self) -> ControllerError {
        let mut known = Known {
            file: TrustedFile::that_held(self.trusted.clone().unwrap_or_default()),
            last: None,
        };
        let mut clock = tokio::time::interval(READ_EVERY);
        // A process that was paused reads once, not once for each tick it missed.
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reported, mut failing) = (None, None);
        loop {
            clock.tick().await;
            let outcome = self.trusted(&mut known).await;
            failing = outcome
                .as_ref()
                .err()
                .map(|_| failing.unwrap_or_else(Instant::now));
            let lasts = failing.is_some_and(|since| since.elapsed() >= FAILS_FOR);
            let problem = outcome.as_ref().err().filter(|_| lasts);
            self.tell(problem.map(|error| in_full(error)));
            let failed = outcome.as_ref().err().map(ControllerError::reason);
            match outcome {
                Ok(pem) => self.trust(pem),
                Err(error) if reported != failed => {
                    let (reason, error) = (error.reason(), in_full(&error));
                    self.metrics.failed(reason);
                    tracing::warn!(reason, error, "cannot keep the webhook's CA, trying again");
                    self.explain(error);
                }
                Err(_) => {}
            }
            reported = failed;
        }
    }

    fn trust(&self, pem: String) {
        let trusted = Ok(pem);
        if self
            .bundle
            .send_if_modified(|known| std::mem::replace(known, trusted) != *known)
        {
            tracing::info!("the CA certificates that the API server trusts changed");
            self.trigger.each(|agent| agent.spec.workloads.is_some());
        }
    }

    /// Says whether the CA cannot be kept up to date, and why.
    fn tell(&self, problem: Option<String>) {
        let is_new = self
            .problem
            .send_if_modified(|known| std::mem::replace(known, problem) != *known);
        if is_new {
            self.trigger.each(|agent| agent.spec.workloads.is_some());
        }
    }

    /// Says why there is no CA; one that is known stays in use.
    fn explain(&self, error: String) {
        let is_new = self.bundle.send_if_modified(|known| {
            let is_unknown = known.is_err();
            if is_unknown {
                *known = Err(error);
            }
            is_unknown
        });
        if is_new {
            self.trigger.each(|agent| agent.spec.workloads.is_some());
        }
    }

    /// The certificates to trust now, as PEM.
    async fn trusted(&self, known: &mut Known) -> Result<String> {
        let now = Timestamp::now();
        if let Some(path) = self.file.clone() {
            let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
            let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let text = read.map_err(ControllerError::CaFile)?;
            return Ok(known.file.read(text, now, self.trusted_on));
        }
        let secret = self.secrets.get(&self.secret).await;
        let secret = secret.map_err(ControllerError::api("read the webhook's CA"))?;
        let stored = stored_ca(&secret);
        // Configurations and replicas still trust what was in the Secret before somebody emptied or broke
        // it.
        let mut ca = stored
            .clone()
            .or_else(|| known.last.clone())
            .unwrap_or_default();
        if ca.is_to_be_renewed(now) {
            ca = ca.with(issue::issuer(now, self.lifetime)?, now);
        }
        if stored.as_ref() != Some(&ca) {
            self.write(secret, &ca).await?;
        }
        let pem = ca.bundle(now);
        known.last = Some(ca);
        Ok(pem)
    }

    /// Replaces the Secret only if it has not changed since it was read.
    async fn write(&self, mut secret: Secret, ca: &Ca) -> Result<()> {
        let text = ByteString(ca.to_text().into_bytes());
        secret.data = Some(BTreeMap::from([(names::CA_KEY.to_owned(), text)]));
        let params = PostParams {
            field_manager: Some(names::FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        self.secrets
            .replace(&self.secret, &params, &secret)
            .await
            .map_err(ControllerError::api("write the webhook's CA"))?;
        self.metrics.wrote("Secret", "update");
        tracing::info!("wrote the webhook's CA");
        Ok(())
    }
}
