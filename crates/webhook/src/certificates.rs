//! The webhook's serving certificate: in memory, renewed while the webhook runs.
//!
//! If a renewal fails, the last valid certificate stays in use. [`crate::ca`] decides when one is due.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::ca::{Ca, Life, may_serve};
use crate::error::WebhookError;
use crate::issue;
use otelagent_core::in_full;
use otelagent_core::names;

/// How often the webhook checks whether a certificate is due.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The number of checks between two reads of the Secret or the files.
const READ_EVERY: u32 = 10;

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Signed here, by the CA in a Secret that the controller maintains.
    Ca {
        /// Namespace of the Secret.
        namespace: String,
        /// Name of the Secret.
        secret: String,
        /// DNS names and addresses at which the API server calls the webhook.
        names: Vec<String>,
    },
    /// `tls.crt` and `tls.key` of a directory, which another program renews.
    Directory {
        /// The directory.
        path: PathBuf,
        /// How long a changed certificate waits for its CA to be trusted, such as [`crate::ca::SETTLE`].
        settle: Duration,
    },
}

/// The serving certificate.
#[derive(Debug)]
pub(crate) struct Certificates(watch::Sender<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}

impl Certificates {
    /// Starts to obtain and renew certificates.
    pub(crate) fn start(
        client: &Client,
        source: Source,
        tasks: &mut JoinSet<&'static str>,
    ) -> Arc<Self> {
        let certificates = Arc::new(Self(watch::Sender::new(None)));
        let upkeep = Upkeep {
            client: client.clone(),
            source,
            certificates: certificates.clone(),
            ca: None,
            served: None,
            next: None,
        };
        tasks.spawn(upkeep.run());
        certificates
    }

    /// None, for good.
    #[cfg(test)]
    pub(crate) fn none() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(None)))
    }

    /// Returns once there is a certificate.
    pub(crate) async fn until_held(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }

    /// The TLS acceptor, which uses the certificate that is current at the handshake.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, WebhookError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(WebhookError::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The certificate served last: its issuer or its files, and its life if this process signed it.
struct Served {
    by: String,
    life: Option<Life>,
}

struct Upkeep {
    client: Client,
    source: Source,
    certificates: Arc<Certificates>,
    ca: Option<Ca>,
    served: Option<Served>,
    /// Changed files, and when this process first saw them.
    next: Option<(String, Timestamp)>,
}

impl Upkeep {
    async fn run(mut self) -> &'static str {
        let mut clock = tokio::time::interval(CHECK_EVERY);
        // A process that was paused checks once, not once for each tick it missed.
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checks = 0_u32;
        let mut reported = None;
        loop {
            clock.tick().await;
            let needs_one = self.served.is_none() || self.has_no_signer(Timestamp::now());
            let read = needs_one || checks.is_multiple_of(READ_EVERY);
            checks = checks.wrapping_add(1);
            let outcome = self.check(read).await;
            let failed = outcome.as_ref().err().map(WebhookError::reason);
            if let Err(error) = &outcome
                && failed != reported
            {
                let reason = error.reason();
                tracing::warn!(
                    reason,
                    error = in_full(error),
                    "cannot renew the serving certificate, trying again"
                );
            }
            reported = failed;
        }
    }

    /// Whether every known CA certificate has expired.
    fn has_no_signer(&self, now: Timestamp) -> bool {
        let known = self.ca.as_ref();
        known.is_some_and(|ca| ca.signer(now).is_none())
    }

    async fn check(&mut self, read: bool) -> Result<(), WebhookError> {
        match self.source.clone() {
            Source::Ca {
                namespace,
                secret,
                names,
            } => {
                let outcome = if read {
                    self.read_ca(&namespace, &secret).await
                } else {
                    Ok(())
                };
                // If the read failed, the CA that was read before continues to sign.
                self.sign_if_due(&names, Timestamp::now())?;
                outcome
            }
            Source::Directory { path, settle } if read => self.load(&path, settle).await,
            Source::Directory { .. } => Ok(()),
        }
    }

    async fn read_ca(&mut self, namespace: &str, name: &str) -> Result<(), WebhookError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = api.get_opt(name).await;
        let secret = secret.map_err(|error| WebhookError::CaUnreadable(Box::new(error)))?;
        let read = secret.as_ref().and_then(stored_ca);
        self.ca = Some(read.ok_or(WebhookError::NoCa(name.to_owned()))?);
        Ok(())
    }

    fn sign_if_due(&mut self, names: &[String], now: Timestamp) -> Result<(), WebhookError> {
        let Some(issuer) = self.ca.as_ref().and_then(|all| all.signer(now)) else {
            return Ok(());
        };
        let is_good = self.served.as_ref().is_some_and(|served| {
            served.by == issuer.certificate
                && served.life.is_some_and(|life| !life.is_to_be_renewed(now))
        });
        if is_good {
            return Ok(());
        }
        let signed = issue::sign(issuer, names, now)?;
        let (by, life) = (issuer.certificate.clone(), Some(signed.life));
        self.serve(signed.certificate.as_bytes(), signed.key.as_bytes())?;
        self.served = Some(Served { by, life });
        tracing::info!(until = %signed.life.ends, "serving with a new certificate");
        Ok(())
    }

    async fn load(&mut self, directory: &Path, settle: Duration) -> Result<(), WebhookError> {
        let certificate = read(directory.join("tls.crt")).await?;
        let key = read(directory.join("tls.key")).await?;
        let both = [certificate.as_slice(), key.as_slice()].concat();
        let by = names::hash(&String::from_utf8_lossy(&both), 64);
        if self.served.as_ref().is_some_and(|served| served.by == by) {
            return Ok(());
        }
        let now = Timestamp::now();
        let known = self.next.take().filter(|(next, _)| *next == by);
        let first_seen = known.map_or(now, |(_, first_seen)| first_seen);
        if self.served.is_some() && !may_serve(first_seen, now, settle) {
            self.next = Some((by, first_seen));
            return Ok(());
        }
        self.serve(&certificate, &key)?;
        self.served = Some(Served { by, life: None });
        tracing::info!("serving with a new certificate");
        Ok(())
    }

    fn serve(&self, certificate: &[u8], key: &[u8]) -> Result<(), WebhookError> {
        let unusable = |error: &dyn std::fmt::Display| WebhookError::Unusable(error.to_string());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(&error))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(&error))?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| unusable(&error))?;
        self.certificates.0.send_replace(Some(Arc::new(certified)));
        Ok(())
    }
}

/// Reads the CA from the controller's Secret.
pub fn stored_ca(secret: &Secret) -> Option<Ca> {
    let bytes = secret.data.as_ref()?.get(names::CA_KEY)?;
    Ca::parse(std::str::from_utf8(&bytes.0).ok()?)
}

async fn read(path: PathBuf) -> Result<Vec<u8>, WebhookError> {
    let read = path.clone();
    let read = tokio::task::spawn_blocking(move || std::fs::read(read)).await;
    read.unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|source| WebhookError::File { path, source })
}
