//! Why an exporter cannot be set up.

use crate::tls::TlsError;

/// Why an exporter cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The endpoint is not a valid authority.
    #[error("the endpoint cannot be used in a request")]
    Endpoint(#[source] http::Error),
    /// A header's name or value is invalid.
    #[error("header {0} cannot be sent")]
    Header(String),
    /// A header's value cannot be read.
    #[error("header {0}: {1}")]
    HeaderFile(String, String),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ExportError {
    /// A stable word for logs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Header(_) | Self::HeaderFile(..) => "header",
            Self::Tls(error) => error.reason(),
        }
    }
}
