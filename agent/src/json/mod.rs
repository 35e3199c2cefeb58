//! OTLP/JSON to OTLP/protobuf, in one pass over the text and without objects in between (OTLP
//! specification, "JSON Protobuf Encoding"; Protocol Buffers, "JSON Mapping"). Pure: memory is asked
//! for by a function of the caller. Must not know HTTP or where requests come from.
//!
//! Taken beyond what the specification asks for: keys in `snake_case`, enums by name, whole numbers with
//! fraction or exponent. Keys that are not known are ignored, whatever they hold; `null` is absence. A
//! key that is given twice, or two keys of one choice, are an error as in Protocol Buffers: any other reading
//! would have to guess which one was meant. Halves of surrogate pairs, which JavaScript leaves behind
//! where it cuts strings, become U+FFFD.

mod number;
mod output;
mod reader;
mod text;
mod transcode;

#[cfg(feature = "server")]
pub(crate) use self::text::base64_in_place;

use crate::scan::{MAX_DEPTH, Signal};

/// Why there is no protobuf form of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no such request: where, and what is wrong there.
    #[error(transparent)]
    Malformed(Box<Fault>),
    /// The protobuf form is larger than the limit.
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    /// The caller gave no memory for the protobuf form.
    #[error("no memory left for the request")]
    Exhausted,
}

/// One mistake in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `resourceSpans[0].scopeSpans[1].spans[3].traceId`; empty for the document.
    pub path: String,
    /// What is wrong with its value.
    pub message: String,
}

impl std::error::Error for Fault {}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.path, self.message)
        }
    }
}

impl Error {
    fn fault(message: impl Into<String>) -> Self {
        Self::Malformed(Box::new(Fault {
            path: String::new(),
            message: message.into(),
        }))
    }

    fn too_deep() -> Self {
        Self::fault(format!("values are nested deeper than {MAX_DEPTH}"))
    }

    /// The same error, seen from the object that holds `key`.
    fn under(mut self, key: &[u8]) -> Self {
        if let Self::Malformed(fault) = &mut self {
            let dot = match fault.path.as_bytes().first() {
                None | Some(b'[') => "",
                Some(_) => ".",
            };
            fault.path = format!("{}{dot}{}", excerpt(key), fault.path);
        }
        self
    }

    /// The same error, seen from the array that holds it at `index`.
    fn at(mut self, index: usize) -> Self {
        if let Self::Malformed(fault) = &mut self {
            let dot = match fault.path.as_bytes().first() {
                None | Some(b'[') => "",
                Some(_) => ".",
            };
            fault.path = format!("[{index}]{dot}{}", fault.path);
        }
        self
    }
}

/// As much of a document's own words as a message can bear.
fn excerpt(text: &[u8]) -> String {
    const MOST: usize = 40;
    let text = String::from_utf8_lossy(text.get(..MOST).unwrap_or(text));
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The protobuf form of an `Export<Signal>ServiceRequest`, at most `limit` bytes of it. Memory beyond
/// the text's is taken only after `grant` has agreed to that many bytes more.
///
/// # Errors
/// The first mistake in the document, or that the result is too large for `limit` or `grant`.
pub fn transcode(
    signal: Signal,
    text: &[u8],
    limit: usize,
    grant: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<u8>, Error> {
    transcode::document(signal.request(), text, limit, grant)
}
