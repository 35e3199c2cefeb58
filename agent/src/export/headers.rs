//! Headers of requests: those of the protocol, and those of the configuration, whose files may change.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::error::ExportError;
use crate::config::{Exporter, Text, is_header_value};
use crate::reloadable::{FileSource, Reloadable, SystemResolver};

/// The `user-agent` of requests.
pub(super) const AGENT: &str = concat!("otelagent-agent/", env!("CARGO_PKG_VERSION"));

/// The headers of one exporter's requests.
pub(super) struct Headers(Reloadable<Configured>);

impl Headers {
    /// Adds the configured headers to those of the protocol.
    pub(super) fn new(exporter: &Exporter, fixed: HeaderMap) -> Result<Self, ExportError> {
        let configured = Configured {
            headers: exporter.headers.clone(),
            fixed,
        };
        Reloadable::new(&exporter.id, configured, None).map(Self)
    }

    /// The headers by the current files, at most a second late.
    pub(super) async fn current(&self) -> Arc<HeaderMap> {
        self.0.current().await
    }
}

struct Configured {
    headers: Vec<(String, Text)>,
    fixed: HeaderMap,
}

impl FileSource for Configured {
    type Content = Vec<String>;
    type Made = HeaderMap;
    type Error = ExportError;

    fn can_change(&self) -> bool {
        self.headers.iter().any(|(_, text)| text.can_change())
    }

    fn read(&self) -> Result<Vec<String>, ExportError> {
        let values = self.headers.iter().map(|(name, text)| {
            text.read_again(&SystemResolver)
                .map_err(|why| ExportError::HeaderFile(name.clone(), why))
        });
        values.collect()
    }

    fn make(&self, values: Vec<String>) -> Result<HeaderMap, ExportError> {
        let mut headers = self.fixed.clone();
        for ((name, _), value) in self.headers.iter().zip(values) {
            let wrong = || ExportError::Header(name.clone());
            if !is_header_value(&value) {
                return Err(wrong());
            }
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(headers)
    }
}
