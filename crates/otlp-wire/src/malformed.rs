//! Why bytes are not an OTLP request.

/// The maximum nesting of messages; prost and Go's gRPC have the same limit.
pub const MAX_DEPTH: u32 = 100;

/// Why bytes are not an OTLP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end inside a field, or a length points past their end.
    #[error("the request ends inside a field")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("a varint is longer than ten bytes")]
    Varint,
    /// A tag with an invalid field number.
    #[error("a field has number 0 or one beyond 32 bits")]
    FieldNumber,
    /// A known field with another wire type, or an unknown wire type.
    #[error("a field has the wrong wire type")]
    WireType,
    /// A group without its end tag.
    #[error("a group is not closed")]
    Group,
    /// A string field that is not UTF-8.
    #[error("a string is not valid UTF-8")]
    Utf8,
    /// An id of another length than upstreams take; they refuse the whole request for it, with all that was
    /// merged into it.
    #[error("{field} has {length} bytes, but must have {expected} or none")]
    IdLength {
        /// The JSON name of the field.
        field: &'static str,
        /// The length it may have beside 0.
        expected: usize,
        /// The length it has.
        length: usize,
    },
    /// Messages nested deeper than [`MAX_DEPTH`].
    #[error("values are nested deeper than 100 messages")]
    Depth,
}
