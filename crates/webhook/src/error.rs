//! The webhook's errors, each with a stable reason.

use std::path::PathBuf;

/// An error of the webhook. A malformed request is not one: it gets an answer.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The Secret with the CA cannot be read.
    #[error("the webhook's CA cannot be read")]
    CaUnreadable(#[source] Box<kube::Error>),
    /// The Secret holds no CA (yet).
    #[error("the Secret {0} holds no CA; the controller writes it")]
    NoCa(String),
    /// No certificate can be made.
    #[error("no certificate can be signed")]
    Sign(#[from] rcgen::Error),
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The certificate or its key is unusable.
    #[error("the certificate or its key is unusable: {0}")]
    Unusable(String),
    /// The TLS library refuses the settings.
    #[error("TLS cannot be set up")]
    Tls(#[source] tokio_rustls::rustls::Error),
    /// A task that must not end has ended.
    #[error("the {0} ended")]
    Ended(&'static str),
}

impl WebhookError {
    /// A stable word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CaUnreadable(_) => "AuthorityUnreadable",
            Self::NoCa(_) => "NoAuthority",
            Self::Sign(_) => "CannotSign",
            Self::File { .. } => "FileUnreadable",
            Self::Unusable(_) => "BadCertificate",
            Self::Tls(_) => "BadTlsSettings",
            Self::Ended(_) => "Ended",
        }
    }
}
