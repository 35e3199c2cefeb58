//! Strings that may refer to files: their values, and how to read them again. Never printed, because they
//! may be credentials.

use std::fmt;

use super::expand::{self, Resolve};
use super::tree::Node;

/// A string of the document.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    value: String,
    /// The text of the document, if it refers to files.
    written: Option<String>,
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl Text {
    /// The string `value` of `node`.
    pub(super) fn new(value: String, node: &Node) -> Self {
        let written = match node {
            Node::Resolved { with_files, .. } => with_files.clone(),
            _ => None,
        };
        Self { value, written }
    }

    /// A string that is in no document.
    pub(super) fn literal(value: String) -> Self {
        Self {
            value,
            written: None,
        }
    }

    /// The value when the configuration was loaded.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether its value may change.
    pub fn can_change(&self) -> bool {
        self.written.is_some()
    }

    /// Whether its value comes from this file.
    pub fn is_from(&self, path: &str) -> bool {
        let written = self.written.as_deref().unwrap_or_default();
        written.contains(&format!("${{file:{path}}}"))
    }

    /// The current value.
    ///
    /// # Errors
    /// The name of a file that cannot be read.
    pub fn read_again(&self, resolve: &dyn Resolve) -> Result<String, String> {
        match &self.written {
            Some(written) => expand::again(written, resolve),
            None => Ok(self.value.clone()),
        }
    }
}

/// Whether `name` is a token as RFC 9110 defines it, as names of headers are.
pub(super) fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// The name of a header in lower case.
pub(super) fn header_name(name: &str) -> Result<String, String> {
    if is_header_name(name) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(format!("`{name}` is not the name of a header"))
    }
}

/// Whether `value` is valid in a header.
pub fn is_header_value(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
}
