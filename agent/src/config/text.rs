//! Strings that may refer to files: what they say, and how to read them again. Never printed: they may be
//! credentials. Must not read a file itself.

use std::fmt;

use super::expand::{self, Resolve};
use super::tree::Node;

/// A string of the document.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    value: String,
    /// As it stands in the document, where it refers to files.
    written: Option<String>,
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl Text {
    /// The string `value` that `node` holds.
    pub(super) fn new(value: String, node: &Node) -> Self {
        let written = match node {
            Node::Resolved { with_files, .. } => with_files.clone(),
            _ => None,
        };
        Self { value, written }
    }

    /// What it said when the configuration was loaded.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether it may say something else later.
    pub fn can_change(&self) -> bool {
        self.written.is_some()
    }

    /// What it says now.
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

/// Whether a header can carry `value`.
pub fn is_header_value(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
}
