//! Certificates for both sides, issued anew by each test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::agent::temporary;

/// A certificate of X.509 version 1, as `openssl x509 -req` makes without extensions.
pub const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBJDCBywIUYCZtgyeFwKnJUh0yqW+NXDQ8fCMwCgYIKoZIzj0EAwIwFDESMBAG\n\
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTA2MDMzMloYDzIxMjYxMTA1MDYwMzMy\n\
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
AARh8BCqjt6MN7jfu2xhzlu/wQw0RXnJEqbZ6seL4RPkLjLiMnCRCpOdXK9vbSRD\n\
+XdtPSWRCT8fi3gbfLV45ldxMAoGCCqGSM49BAMCA0gAMEUCICt3TKQMNkAsolRy\n\
tPWrbgE2sjGcF9d7BgqGMGa97J/MAiEA1e9QBNpebN5GLZt721OvYsNuLfAv2KZO\n\
50Dxs59keW0=\n\
-----END CERTIFICATE-----\n";

/// Issues certificates.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Ca {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("ca {number}"));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Issued {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        Issued {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// For a server called so.
    pub fn server(&self, names: &[&str]) -> Issued {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a server on this machine.
    pub fn local(&self) -> Issued {
        self.server(&["localhost", "127.0.0.1"])
    }

    /// For a client.
    pub fn client(&self) -> Issued {
        self.issue(&[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

impl Issued {
    /// Its own CA, as `openssl req -x509` makes them.
    pub fn own_ca(names: &[&str]) -> Self {
        Self::of_itself(names, IsCa::Ca(BasicConstraints::Unconstrained), 2100)
    }

    /// The same, out of date.
    pub fn expired_own_ca(names: &[&str]) -> Self {
        Self::of_itself(names, IsCa::Ca(BasicConstraints::Unconstrained), 2020)
    }

    /// Self-signed, and no CA.
    pub fn own_leaf(names: &[&str]) -> Self {
        Self::of_itself(names, IsCa::ExplicitNoCa, 2100)
    }

    fn of_itself(names: &[&str], is_ca: IsCa, until: i32) -> Self {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = is_ca;
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.distinguished_name.push(DnType::CommonName, "sink");
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        (vec![certificate], key)
    }

    /// What a server with this certificate does; with `clients` it wants to see theirs.
    pub fn acceptor(&self, protocols: &[&str], clients: Option<&Ca>) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let roots = Arc::new(ca.roots());
                let provider = Arc::new(default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (chain, key) = self.der();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A server that shows a certificate with a key of another.
pub fn impostor(certificate: &str, protocols: &[&str]) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = KeyPair::generate().unwrap().serialize_der();
    let key = any_supported_type(&PrivateKeyDer::try_from(key).unwrap()).unwrap();
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    let protocols = protocols.iter().map(|name| name.as_bytes().into());
    config.alpn_protocols = protocols.collect();
    TlsAcceptor::from(Arc::new(config))
}

/// What a client sees that trusts `CA` and shows `identity`.
pub async fn connect(
    port: u16,
    protocols: &[&str],
    ca: &Ca,
    identity: Option<&Issued>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(ca.roots());
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let (chain, key) = issued.der();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().into())
        .collect();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// The files of a test, removed at its end.
pub struct Files(PathBuf);

impl Files {
    pub fn new() -> Self {
        let directory = temporary("files");
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file atomically; returns its path.
    pub fn write(&self, name: &str, content: &str) -> String {
        let (fresh, path) = (self.0.join("fresh"), self.0.join(name));
        std::fs::write(&fresh, content).unwrap();
        std::fs::rename(fresh, &path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Points the link `name` at a new directory with these files, as mounted secrets change.
    pub fn swap(&self, name: &str, files: &[(&str, &str)]) -> String {
        let version = temporary("version").file_name().unwrap().to_owned();
        let directory = self.0.join(&version);
        std::fs::create_dir(&directory).unwrap();
        for (file, content) in files {
            std::fs::write(directory.join(file), content).unwrap();
        }
        let (fresh, link) = (self.0.join("fresh"), self.0.join(name));
        std::os::unix::fs::symlink(Path::new(&version), &fresh).unwrap();
        std::fs::rename(fresh, &link).unwrap();
        link.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
