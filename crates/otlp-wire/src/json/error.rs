//! Why a JSON text is refused, with the path to the mistake.

use std::fmt;

use crate::malformed::MAX_DEPTH;

/// Why a text cannot be turned into a protobuf request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not such a request: where, and what is wrong.
    #[error(transparent)]
    Malformed(Box<Fault>),
    /// The text is not UTF-8 from this byte on; [`repair`](super::repair()) mends it.
    #[error("not UTF-8 at byte {0}")]
    Utf8(usize),
    /// The protobuf form exceeds the limit.
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    /// The caller granted no memory for the protobuf form.
    #[error("no memory left for the request")]
    Exhausted,
}

/// One mistake in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// For example `resourceSpans[0].scopeSpans[1].spans[3].traceId`; empty for the document.
    pub path: String,
    /// What is wrong with the value there.
    pub message: String,
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.path, self.message)
        }
    }
}

impl Error {
    pub(super) fn fault(message: impl Into<String>) -> Self {
        Self::Malformed(Box::new(Fault {
            path: String::new(),
            message: message.into(),
        }))
    }

    pub(super) fn too_deep() -> Self {
        Self::fault(format!("values are nested deeper than {MAX_DEPTH}"))
    }

    /// The same error with the key of the object around it in its path.
    pub(super) fn under(self, key: &[u8]) -> Self {
        self.inside(&excerpt(key))
    }

    /// The same error with the index in the array around it in its path.
    pub(super) fn at(self, index: usize) -> Self {
        self.inside(&format!("[{index}]"))
    }

    fn inside(mut self, step: &str) -> Self {
        if let Self::Malformed(fault) = &mut self {
            let dot = match fault.path.as_bytes().first() {
                None | Some(b'[') => "",
                Some(_) => ".",
            };
            fault.path = format!("{step}{dot}{}", fault.path);
        }
        self
    }
}

/// The beginning of a document's own text, for messages.
pub(super) fn excerpt(text: &[u8]) -> String {
    const MOST: usize = 40;
    let text = String::from_utf8_lossy(text.get(..MOST).unwrap_or(text));
    text.chars().filter(|c| !c.is_control()).collect()
}
