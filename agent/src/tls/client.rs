//! The agent as a TLS client: which servers it trusts, and how it identifies itself.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::credentials::{self, Found, FoundIdentity, TlsError};
use super::named::NamedOrSigned;
use crate::config::ClientTls;
use crate::reloadable::{FileSource, Reloadable};
use crate::stream::Stream;

/// Performs handshakes with one upstream.
pub(crate) struct Connector {
    config: Reloadable<ClientFiles>,
    name: ServerName<'static>,
}

impl Connector {
    /// Reads the files for the first time. `id` names the exporter in the log; `protocol` is announced by ALPN
    /// (RFC 7301).
    pub(crate) fn new(
        tls: &ClientTls,
        id: &str,
        host: &str,
        protocol: &'static [u8],
    ) -> Result<Self, TlsError> {
        let name = tls.server_name_override.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::ServerName(name.to_owned()))?;
        let files = ClientFiles {
            tls: tls.clone(),
            protocol,
        };
        Ok(Self {
            config: Reloadable::new(id, files, tls.reload_interval)?,
            name: server_name,
        })
    }

    /// Performs the handshake on a new connection.
    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<Stream> {
        let connector = TlsConnector::from(self.config.current().await);
        let stream = connector.connect(self.name.clone(), stream).await?;
        Ok(Box::new(stream))
    }
}

/// The first bytes of a client, to find out whether a server speaks TLS.
pub(crate) fn client_hello(host: &str) -> Option<Vec<u8>> {
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let config = ClientConfig::builder_with_provider(credentials::provider())
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).ok()?;
    Some(hello)
}

/// The certificate files of an exporter.
struct ClientFiles {
    tls: ClientTls,
    protocol: &'static [u8],
}

/// The content of those files.
#[derive(Hash)]
struct ClientContent {
    cas: Option<Found>,
    system: Option<Found>,
    identity: Option<FoundIdentity>,
}

impl FileSource for ClientFiles {
    type Content = ClientContent;
    type Made = ClientConfig;
    type Error = TlsError;

    fn read(&self) -> Result<ClientContent, TlsError> {
        let tls = &self.tls;
        let identity = tls.identity.as_ref();
        let needs_system = !tls.insecure_skip_verify && (tls.ca.is_none() || tls.include_system_ca);
        Ok(ClientContent {
            cas: tls.ca.as_ref().map(credentials::read).transpose()?,
            system: needs_system
                .then(credentials::read_system_cas)
                .transpose()?,
            identity: identity.map(credentials::read_identity).transpose()?,
        })
    }

    fn make(&self, content: ClientContent) -> Result<ClientConfig, TlsError> {
        let provider = credentials::provider();
        let versions = credentials::protocol_versions(self.tls.versions);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(TlsError::Versions)?;
        let builder = if self.tls.insecure_skip_verify {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            let verifier = verifier(&content, provider)?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        };
        let mut config = match &content.identity {
            Some(found) => {
                let (chain, key) = credentials::chain_and_key(found)?;
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

/// Trusts what the configuration says.
fn verifier(
    content: &ClientContent,
    provider: Arc<CryptoProvider>,
) -> Result<NamedOrSigned<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut named = Vec::new();
    if let Some(found) = &content.cas {
        named = credentials::certificates(found)?;
        credentials::add_cas(found, &mut roots)?;
    }
    if let Some(found) = &content.system {
        credentials::add_system_cas(found, &mut roots)?;
    }
    let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(TlsError::Verifier)?;
    Ok(NamedOrSigned { signed, named })
}

/// `insecure_skip_verify`: accepts every certificate whose owner signs with it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
