//! Certificates, keys and CAs, from where the configuration says to what rustls needs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Identity, Pem, Versions};
use crate::reloadable::SystemResolver;

/// The trusted CAs of Debian and this agent's image, Fedora, openSUSE and Alpine. `SSL_CERT_FILE` comes first.
const SYSTEM_CA: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read {0}")]
    Read(String, #[source] io::Error),
    #[error("{0}")]
    Reference(String),
    #[error("{0} holds no {1} in PEM form")]
    Pem(String, &'static str, #[source] pem::Error),
    #[error("{0} holds a certificate that is not a CA")]
    Ca(String, #[source] rustls::Error),
    #[error("this system has no file of CA certificates; set ca_file or SSL_CERT_FILE")]
    NoSystemCas,
    #[error("certificate and private key cannot be used")]
    Identity(#[source] rustls::Error),
    #[error("the other side's certificates cannot be verified")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("the TLS versions are not supported")]
    Versions(#[source] rustls::Error),
    #[error("`{0}` is not a valid name for a certificate; set server_name_override")]
    ServerName(String),
}

impl TlsError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Read(..) | Self::Reference(_) => "tls_file",
            Self::Pem(..) => "tls_pem",
            Self::Ca(..) | Self::NoSystemCas | Self::Verifier(_) => "tls_ca",
            Self::Identity(_) => "tls_identity",
            Self::Versions(_) => "tls_versions",
            Self::ServerName(_) => "tls_name",
        }
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn protocol_versions(versions: Versions) -> Vec<&'static SupportedProtocolVersion> {
    let tls13 = versions.tls13.then_some(&rustls::version::TLS13);
    let tls12 = versions.tls12.then_some(&rustls::version::TLS12);
    tls13.into_iter().chain(tls12).collect()
}

/// PEM text and its origin, for messages.
#[derive(Hash)]
pub(super) struct Found {
    place: String,
    text: Vec<u8>,
}

fn read_file(path: &str) -> Result<Found, TlsError> {
    let place = path.to_owned();
    match std::fs::read(path) {
        Ok(text) => Ok(Found { place, text }),
        Err(source) => Err(TlsError::Read(place, source)),
    }
}

pub(super) fn read(pem: &Pem) -> Result<Found, TlsError> {
    match pem {
        Pem::File(path) => read_file(path),
        Pem::Inline(text) => Ok(Found {
            place: "the configuration".to_owned(),
            text: text
                .read_again(&SystemResolver)
                .map_err(TlsError::Reference)?
                .into_bytes(),
        }),
    }
}

pub(super) fn read_system_cas() -> Result<Found, TlsError> {
    if let Ok(path) = std::env::var("SSL_CERT_FILE") {
        return read_file(&path);
    }
    let path = SYSTEM_CA
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .ok_or(TlsError::NoSystemCas)?;
    read_file(path)
}

/// The text of a certificate and its key.
#[derive(Hash)]
pub(super) struct FoundIdentity {
    certificate: Found,
    key: Found,
}

pub(super) fn read_identity(identity: &Identity) -> Result<FoundIdentity, TlsError> {
    Ok(FoundIdentity {
        certificate: read(&identity.certificate)?,
        key: read(&identity.key)?,
    })
}

pub(super) fn certificates(found: &Found) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem(found.place.clone(), "certificate", source);
    let certificates = CertificateDer::pem_slice_iter(&found.text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(failed(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

pub(super) fn chain_and_key(
    found: &FoundIdentity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let Found { place, text } = &found.key;
    let key = PrivateKeyDer::from_pem_slice(text)
        .map_err(|source| TlsError::Pem(place.clone(), "private key", source))?;
    Ok((certificates(&found.certificate)?, key))
}

/// Adds configured CAs; each must be usable.
pub(super) fn add_cas(found: &Found, roots: &mut RootCertStore) -> Result<(), TlsError> {
    let failed = |source| TlsError::Ca(found.place.clone(), source);
    for certificate in certificates(found)? {
        roots.add(certificate).map_err(failed)?;
    }
    Ok(())
}

/// Adds the system's CAs; some of a hundred may be unsupported.
pub(super) fn add_system_cas(found: &Found, roots: &mut RootCertStore) -> Result<(), TlsError> {
    let (usable, _) = roots.add_parsable_certificates(certificates(found)?);
    if usable == 0 {
        return Err(TlsError::NoSystemCas);
    }
    Ok(())
}
