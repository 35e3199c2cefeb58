//! The agent as a TLS server: how it identifies itself, and which clients it accepts.

use std::io;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::credentials::{self, Found, FoundIdentity, TlsError};
use super::named::NamedOrSigned;
use crate::config::ServerTls;
use crate::logging::LogThrottle;
use crate::reloadable::{FileSource, Reloadable};
use crate::stream::Stream;

/// Performs handshakes with the clients of one port.
pub(crate) struct Acceptor {
    config: Reloadable<ServerTls>,
    pub(crate) failures: LogThrottle,
}

impl Acceptor {
    /// Reads the files for the first time; `place` names the port in the log.
    pub(crate) fn new(tls: &ServerTls, place: &str) -> Result<Self, TlsError> {
        Ok(Self {
            config: Reloadable::new(place, tls.clone(), tls.reload_interval)?,
            failures: LogThrottle::default(),
        })
    }

    /// Performs the handshake on a new connection.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let acceptor = TlsAcceptor::from(self.config.current().await);
        Ok(Box::new(acceptor.accept(stream).await?))
    }
}

/// The content of a port's certificate files.
#[derive(Hash)]
pub(crate) struct ServerContent {
    identity: FoundIdentity,
    client_ca: Option<Found>,
}

impl FileSource for ServerTls {
    type Content = ServerContent;
    type Made = ServerConfig;
    type Error = TlsError;

    fn read(&self) -> Result<ServerContent, TlsError> {
        let client_ca = self.client_ca.as_ref();
        Ok(ServerContent {
            identity: credentials::read_identity(&self.identity)?,
            client_ca: client_ca.map(credentials::read).transpose()?,
        })
    }

    fn make(&self, content: ServerContent) -> Result<ServerConfig, TlsError> {
        let provider = credentials::provider();
        let versions = credentials::protocol_versions(self.versions);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(TlsError::Versions)?;
        let builder = match &content.client_ca {
            None => builder.with_no_client_auth(),
            Some(found) => {
                let mut roots = RootCertStore::empty();
                credentials::add_cas(found, &mut roots)?;
                let signed = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(TlsError::Verifier)?;
                let named = credentials::certificates(found)?;
                let verifier = NamedOrSigned { signed, named };
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
        };
        let (chain, key) = credentials::chain_and_key(&content.identity)?;
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(TlsError::Identity)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}
