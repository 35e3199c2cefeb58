//! Upkeep of the webhook's CA by the controller: the CA's Secret, and the bundle that webhook
//! configurations trust.
//!
//! [`crate::ca`] decides when a new CA is due. The Secret is part of the manifests, so the operator needs
//! no right to create Secrets; it fills and renews the Secret, and restores it when its content is lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::MissedTickBehavior;

use crate::ca::{Ca, TrustedFile};
use crate::issue;
use otelagent_core::in_full;
use otelagent_core::names;

/// How often the Secret or the file is read.
const READ_EVERY: Duration = Duration::from_secs(5);

/// Where the CA comes from.
#[derive(Clone, Debug)]
pub struct CaSettings {
    /// A file with the CA certificates that another program renews; without one the CA is our own.
    pub file: Option<PathBuf>,
    /// How long a CA of our own lives.
    pub lifetime: Duration,
}

/// The CA certificates that webhook configurations trust; clones of the handle share them.
#[derive(Clone, Default)]
pub struct CaBundle(Arc<Mutex<String>>);

impl CaBundle {
    /// As PEM; empty until they are known.
    pub fn pem(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the certificates, and returns whether they differ from those before.
    fn replace(&self, pem: String) -> bool {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *current != pem;
        *current = pem;
        is_new
    }
}

/// Learns what the upkeep does.
pub trait CaObserver: Send + Sync {
    /// The bundle changed; every webhook configuration must be rendered again.
    fn changed(&self);
    /// The CA's Secret was written.
    fn wrote_secret(&self);
    /// The upkeep failed, for one of a closed set of reasons; it tries again.
    fn failed(&self, reason: &'static str);
}

/// Why the CA could not be kept.
#[derive(Debug, thiserror::Error)]
enum CaError {
    #[error("{action}")]
    Api {
        action: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the file with the webhook's CA certificates cannot be read")]
    File(#[source] std::io::Error),
    #[error("no CA can be made")]
    Issue(#[from] issue::Failed),
}

impl CaError {
    fn api(action: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api {
            action,
            source: Box::new(source),
        }
    }

    /// Stable word for logs and metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_forbidden() => "Forbidden",
                kube::Error::Api(status) if status.is_conflict() => "Conflict",
                kube::Error::Api(status) if status.is_invalid() => "Invalid",
                kube::Error::Api(_) => "ApiRefused",
                _ => "ApiUnreachable",
            },
            Self::File(_) => "AuthorityFileUnreadable",
            Self::Issue(_) => "NoAuthority",
        }
    }
}

/// Keeps the CA's Secret and `bundle` up to date until the task is aborted. Run it in the leader only.
/// `namespace` is that of the Secret.
pub async fn maintain(
    client: Client,
    namespace: String,
    settings: CaSettings,
    bundle: CaBundle,
    observer: impl CaObserver,
) -> &'static str {
    let mut upkeep = CaUpkeep {
        secrets: Api::namespaced(client, &namespace),
        settings,
        file: TrustedFile::default(),
        last: None,
        observer,
    };
    let mut clock = tokio::time::interval(READ_EVERY);
    // A process that was paused reads once, not once for each tick it missed.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = None;
    loop {
        clock.tick().await;
        let outcome = upkeep.trusted().await;
        let reason = outcome.as_ref().err().map(CaError::reason);
        match outcome {
            Ok(pem) => {
                if bundle.replace(pem) {
                    tracing::info!("the CA certificates that the API server trusts changed");
                    upkeep.observer.changed();
                }
            }
            Err(error) if reported != reason => {
                upkeep.observer.failed(error.reason());
                let (reason, error) = (error.reason(), in_full(&error));
                tracing::warn!(reason, error, "cannot keep the webhook's CA, trying again");
            }
            Err(_) => {}
        }
        reported = reason;
    }
}

struct CaUpkeep<O> {
    secrets: Api<Secret>,
    settings: CaSettings,
    file: TrustedFile,
    /// Our own CA as last read or written.
    last: Option<Ca>,
    observer: O,
}

impl<O: CaObserver> CaUpkeep<O> {
    /// The certificates to trust now, as PEM.
    async fn trusted(&mut self) -> Result<String, CaError> {
        let now = Timestamp::now();
        if let Some(path) = self.settings.file.clone() {
            let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
            let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            return Ok(self.file.read(read.map_err(CaError::File)?, now));
        }
        let secret = self.secrets.get(names::CA_SECRET).await;
        let secret = secret.map_err(CaError::api("read the webhook's CA"))?;
        let stored = stored(&secret);
        // Configurations and replicas still trust what was in an emptied or broken Secret: put it back.
        let mut ca = stored
            .clone()
            .or_else(|| self.last.clone())
            .unwrap_or_default();
        if ca.is_to_be_renewed(now) {
            ca = ca.with(issue::issuer(now, self.settings.lifetime)?, now);
        }
        if stored.as_ref() != Some(&ca) {
            self.write(secret, &ca).await?;
        }
        let pem = ca.bundle(now);
        self.last = Some(ca);
        Ok(pem)
    }

    /// Replaces only the version that was read.
    async fn write(&self, mut secret: Secret, ca: &Ca) -> Result<(), CaError> {
        let text = ByteString(ca.to_text().into_bytes());
        secret.data = Some(BTreeMap::from([(names::CA_KEY.to_owned(), text)]));
        let params = PostParams {
            field_manager: Some(names::FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        self.secrets
            .replace(names::CA_SECRET, &params, &secret)
            .await
            .map_err(CaError::api("write the webhook's CA"))?;
        self.observer.wrote_secret();
        tracing::info!("wrote the webhook's CA");
        Ok(())
    }
}

fn stored(secret: &Secret) -> Option<Ca> {
    let bytes = secret.data.as_ref()?.get(names::CA_KEY)?;
    Ca::parse(std::str::from_utf8(&bytes.0).ok()?)
}
