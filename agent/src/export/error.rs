//! Why an exporter cannot be set up.

use std::io::ErrorKind;

use crate::tls::TlsError;

/// Why an exporter cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error("the endpoint cannot be used in a request")]
    Endpoint(#[source] http::Error),
    #[error("header {0} cannot be sent")]
    Header(String),
    #[error("header {0}: {1}")]
    HeaderFile(String, String),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ExportError {
    /// Whether a file that the configuration names is not there, or not yet.
    pub(super) fn is_missing_file(&self) -> bool {
        match self {
            Self::HeaderFile(..) | Self::Tls(TlsError::Reference(_)) => true,
            Self::Tls(TlsError::Read(_, error)) => error.kind() == ErrorKind::NotFound,
            _ => false,
        }
    }

    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Header(_) | Self::HeaderFile(..) => "header",
            Self::Tls(error) => error.reason(),
        }
    }
}
