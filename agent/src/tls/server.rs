//! The agent as TLS server: what it proves itself by, and which clients it lets in.

use std::io;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::{Found, FoundIdentity, TlsError};
use crate::config::ServerTls;
use crate::live::{Live, Source};

/// Handshakes with the clients of one port.
pub(crate) struct Acceptor(Live<Files>);

impl Acceptor {
    /// Reads the files for the first time; `place` names the port in the log.
    pub(crate) fn new(tls: &ServerTls, place: &str) -> Result<Self, TlsError> {
        let files = Files {
            tls: tls.clone(),
            place: place.to_owned(),
        };
        Live::new(files, tls.reload_interval).map(Self)
    }

    /// Speaks TLS on a fresh connection.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.0.current());
        Ok(TlsStream::Server(acceptor.accept(stream).await?))
    }
}

/// Where the certificates of a port are.
struct Files {
    tls: ServerTls,
    place: String,
}

/// What those files hold.
#[derive(Hash)]
struct Content {
    identity: FoundIdentity,
    client_ca: Option<Found>,
}

impl Source for Files {
    type Content = Content;
    type Made = ServerConfig;
    type Error = TlsError;

    fn name(&self) -> &str {
        &self.place
    }

    fn can_change(&self) -> bool {
        super::identity_can_change(&self.tls.identity) || self.tls.client_ca.is_some()
    }

    fn read(&self) -> Result<Content, TlsError> {
        Ok(Content {
            identity: super::read_identity(&self.tls.identity)?,
            client_ca: self.tls.client_ca.as_ref().map(super::read).transpose()?,
        })
    }

    fn make(&self, content: Content) -> Result<ServerConfig, TlsError> {
        let provider = super::provider();
        let versions = super::protocol_versions(self.tls.versions);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(TlsError::Versions)?;
        let builder = match &content.client_ca {
            None => builder.with_no_client_auth(),
            Some(found) => {
                let mut roots = RootCertStore::empty();
                super::authorities(found, &mut roots)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(TlsError::Verifier)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = super::chain_and_key(&content.identity)?;
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(TlsError::Identity)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}
