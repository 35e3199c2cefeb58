//! OTLP/JSON to OTLP/protobuf in one pass over the text, without objects in between (OTLP specification,
//! "JSON Protobuf Encoding"; Protocol Buffers, "JSON Mapping").
//!
//! The reader accepts more than the specification requires: keys in `snake_case`, enums by name, whole
//! numbers with a fraction or an exponent. It ignores unknown keys with their values and treats `null` as
//! absence. A repeated key, or two keys of one `oneof`, are an error as in Protocol Buffers, since any
//! other reading would be a guess. Unpaired surrogates, which JavaScript leaves where it cuts strings,
//! become U+FFFD.

mod error;
mod number;
mod output;
mod reader;
mod repair;
mod text;
mod transcode;

pub(crate) use self::text::base64_in_place;

pub use self::error::{Error, Fault};
pub use self::repair::repair;
pub use self::transcode::transcode;
