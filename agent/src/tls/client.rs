//! The agent as TLS client: whom it believes, and what it proves itself by.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::{Found, FoundIdentity, TlsError};
use crate::config::ClientTls;
use crate::live::{Live, Source};

/// Handshakes with one upstream.
pub(crate) struct Connector {
    config: Live<Files>,
    name: ServerName<'static>,
}

impl Connector {
    /// Reads the files for the first time. `id` names the exporter in the log, `protocol` is what is
    /// to be spoken (RFC 7301).
    pub(crate) fn new(
        tls: &ClientTls,
        id: &str,
        host: &str,
        protocol: &'static [u8],
    ) -> Result<Self, TlsError> {
        let name = tls.server_name_override.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::ServerName(name.to_owned()))?;
        let files = Files {
            tls: tls.clone(),
            id: id.to_owned(),
            protocol,
        };
        Ok(Self {
            config: Live::new(files, tls.reload_interval)?,
            name: server_name,
        })
    }

    /// Speaks TLS on a fresh connection.
    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.config.current());
        let stream = connector.connect(self.name.clone(), stream).await?;
        Ok(TlsStream::Client(stream))
    }
}

/// Where the certificates of an exporter are.
struct Files {
    tls: ClientTls,
    id: String,
    protocol: &'static [u8],
}

/// What those files hold.
#[derive(Hash)]
struct Content {
    authorities: Option<Found>,
    system: Option<Found>,
    identity: Option<FoundIdentity>,
}

impl Source for Files {
    type Content = Content;
    type Made = ClientConfig;
    type Error = TlsError;

    fn name(&self) -> &str {
        &self.id
    }

    fn can_change(&self) -> bool {
        let tls = &self.tls;
        let ca = tls
            .ca
            .as_ref()
            .map_or(!tls.insecure_skip_verify, super::can_change);
        let identity = tls.identity.as_ref();
        ca || tls.include_system_ca || identity.is_some_and(super::identity_can_change)
    }

    fn read(&self) -> Result<Content, TlsError> {
        let tls = &self.tls;
        let needs_system = !tls.insecure_skip_verify && (tls.ca.is_none() || tls.include_system_ca);
        Ok(Content {
            authorities: tls.ca.as_ref().map(super::read).transpose()?,
            system: needs_system
                .then(super::read_system_authorities)
                .transpose()?,
            identity: tls
                .identity
                .as_ref()
                .map(super::read_identity)
                .transpose()?,
        })
    }

    fn make(&self, content: Content) -> Result<ClientConfig, TlsError> {
        let provider = super::provider();
        let versions = super::protocol_versions(self.tls.versions);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(TlsError::Versions)?;
        let builder = if self.tls.insecure_skip_verify {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            let mut roots = RootCertStore::empty();
            if let Some(found) = &content.authorities {
                super::authorities(found, &mut roots)?;
            }
            if let Some(found) = &content.system {
                super::system_authorities(found, &mut roots)?;
            }
            builder.with_root_certificates(roots)
        };
        let mut config = match &content.identity {
            Some(found) => {
                let (chain, key) = super::chain_and_key(found)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(TlsError::Identity)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![self.protocol.to_vec()];
        Ok(config)
    }
}

/// `insecure_skip_verify`: takes every certificate, as long as its owner signs with it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
