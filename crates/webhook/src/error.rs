//! What can go wrong in the webhook, each with a stable reason word.

use std::path::PathBuf;

/// An error of the webhook. What callers send is none: that is answered.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The Secret with the CA cannot be read.
    #[error("the webhook's CA cannot be read")]
    CaUnreadable(#[source] Box<kube::Error>),
    /// The Secret holds no CA (yet).
    #[error("the Secret {0} holds no CA; the controller writes it")]
    NoCa(&'static str),
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
    /// Certificate or key are not what they should be.
    #[error("the certificate or its key is unusable: {0}")]
    Unusable(String),
    /// The TLS library refuses its settings.
    #[error("TLS cannot be set up")]
    Tls(#[source] tokio_rustls::rustls::Error),
    /// A part that must go on ended.
    #[error("the {0} ended")]
    Ended(&'static str),
}

impl WebhookError {
    /// Stable word for logs and metrics.
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
