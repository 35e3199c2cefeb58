//! Headers of every request: those the protocol needs, and those of the configuration, which may come
//! from files that change. Must not know requests.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::ExportError;
use crate::config::{Exporter, Text, is_header_value};
use crate::live::{Live, Process, Source};

/// All headers of one exporter's requests.
pub(super) struct Headers(Live<Configured>);

impl Headers {
    /// `fixed` are those of the protocol.
    pub(super) fn new(exporter: &Exporter, fixed: HeaderMap) -> Result<Self, ExportError> {
        let configured = Configured {
            id: exporter.id.clone(),
            headers: exporter.headers.clone(),
            fixed,
        };
        Live::new(configured, None).map(Self)
    }

    /// As the files are now, give or take a second.
    pub(super) fn current(&self) -> Arc<HeaderMap> {
        self.0.current()
    }
}

struct Configured {
    id: String,
    headers: Vec<(String, Text)>,
    fixed: HeaderMap,
}

impl Source for Configured {
    type Content = Vec<String>;
    type Made = HeaderMap;
    type Error = ExportError;

    fn name(&self) -> &str {
        &self.id
    }

    fn can_change(&self) -> bool {
        self.headers.iter().any(|(_, text)| text.can_change())
    }

    fn read(&self) -> Result<Vec<String>, ExportError> {
        let values = self.headers.iter().map(|(name, text)| {
            text.read_again(&Process)
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
