//! The description of a message: its fields by number for `inspect`, and by name for JSON. One
//! declaration gives both.

/// The wire form of a field.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Not in the schema; passed on unchanged.
    Unknown,
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    /// A UTF-8 string.
    Text,
    Message(&'static Message),
    /// A message that counts as one item.
    Item(&'static Message),
    PackedFixed64,
    PackedVarint,
}

/// The type of a field.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    /// A string.
    Text,
    /// Bytes, base64 in JSON.
    Bytes,
    /// Bytes, hexadecimal in JSON (OTLP specification, "JSON Protobuf Encoding").
    Id,
    /// `true` or `false`.
    Bool,
    /// A number, or in JSON one of these names for 0, 1, 2, …
    Enum(&'static [&'static str]),
    /// Two's complement of 64 bits on the wire.
    Int32,
    /// Two's complement.
    Int64,
    /// Unsigned.
    Uint32,
    /// Unsigned.
    Uint64,
    /// Zigzag.
    Sint32,
    /// Four bytes, unsigned.
    Fixed32,
    /// Eight bytes, unsigned.
    Fixed64,
    /// Eight bytes, two's complement.
    Sfixed64,
    /// Eight bytes, IEEE 754.
    Double,
    /// A message.
    Message(&'static Message),
    /// A message that counts as one item.
    Item(&'static Message),
}

/// How often a field occurs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// Once; its default value means absence.
    One,
    /// Once; its default value is a value.
    Optional,
    /// Once, as a member of the message's only `oneof`.
    Choice,
    /// Any number of times; numbers are packed.
    Many,
}

/// A field of a message.
pub(crate) struct FieldSchema {
    pub(crate) number: u32,
    /// The JSON name, in lowerCamelCase.
    pub(crate) name: &'static str,
    pub(crate) label: Label,
    pub(crate) kind: Type,
}

impl FieldSchema {
    const fn wire(&self) -> Kind {
        match self.kind {
            Type::Text => Kind::Text,
            Type::Bytes | Type::Id => Kind::Bytes,
            Type::Message(inner) => Kind::Message(inner),
            Type::Item(inner) => Kind::Item(inner),
            Type::Fixed32 => Kind::Fixed32,
            Type::Fixed64 | Type::Sfixed64 | Type::Double => match self.label {
                Label::Many => Kind::PackedFixed64,
                _ => Kind::Fixed64,
            },
            Type::Bool
            | Type::Enum(_)
            | Type::Int32
            | Type::Int64
            | Type::Uint32
            | Type::Uint64
            | Type::Sint32 => match self.label {
                Label::Many => Kind::PackedVarint,
                _ => Kind::Varint,
            },
        }
    }
}

/// The fields of a message.
pub(crate) struct Message {
    /// The kinds of fields 1, 2, 3, …
    pub(super) by_number: &'static [Kind],
    /// In order, at most [`MAX_FIELDS`].
    pub(super) fields: &'static [FieldSchema],
    /// The type of `instrumentation_library_spans` and similar fields, which OTLP has renamed.
    pub(super) deprecated_1000: Option<&'static Message>,
}

impl Message {
    pub(super) fn kind(&'static self, number: u32) -> Kind {
        let index = (number as usize).wrapping_sub(1);
        match self.by_number.get(index) {
            Some(kind) => *kind,
            None => match self.deprecated_1000 {
                Some(inner) if number == 1000 => Kind::Message(inner),
                _ => Kind::Unknown,
            },
        }
    }

    /// The field with a JSON key, and its position. Keys are in lowerCamelCase or, as in the .proto files,
    /// in `snake_case`.
    pub(crate) fn named(&self, key: &[u8]) -> Option<(usize, &'static FieldSchema)> {
        let exact = |field: &FieldSchema| field.name.as_bytes() == key;
        let index = self.fields.iter().position(exact).or_else(|| {
            let snake = |field: &FieldSchema| is_snake_case_of(key, field.name);
            key.contains(&b'_')
                .then(|| self.fields.iter().position(snake))?
        })?;
        Some((index, self.fields.get(index)?))
    }
}

fn is_snake_case_of(key: &[u8], camel_case: &str) -> bool {
    let mut rest = key;
    for letter in camel_case.bytes() {
        if letter.is_ascii_uppercase() {
            let Some(after) = rest.strip_prefix(b"_") else {
                return false;
            };
            rest = after;
        }
        match rest.split_first() {
            Some((first, after)) if *first == letter.to_ascii_lowercase() => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

/// The maximum number of fields of a message.
pub(crate) const MAX_FIELDS: usize = 32;

/// The wire forms of fields, by number.
#[expect(
    clippy::indexing_slicing,
    reason = "runs at compile time; numbers are from 1 to N"
)]
pub(super) const fn by_number<const N: usize>(mut fields: &[FieldSchema]) -> [Kind; N] {
    assert!(
        fields.len() <= MAX_FIELDS,
        "a bit per field marks those seen"
    );
    let mut kinds = [Kind::Unknown; N];
    while let [field, rest @ ..] = fields {
        kinds[field.number as usize - 1] = field.wire();
        fields = rest;
    }
    kinds
}

/// Declares a message: `number name: label type`, in the order of the numbers.
macro_rules! message {
    ($message:ident $(or $old:ident in 1000)? {
        $($number:literal $name:ident: $label:ident $kind:ident $(($of:expr))?,)*
    }) => {
        pub(super) static $message: Message = {
            // Statics: a constant that contains itself would never end.
            static FIELDS: &[FieldSchema] = &[$(FieldSchema {
                number: $number,
                name: stringify!($name),
                label: Label::$label,
                kind: Type::$kind $(($of))?,
            }),*];
            static BY_NUMBER: [Kind; FIELDS[FIELDS.len() - 1].number as usize] = by_number(FIELDS);
            Message {
                by_number: &BY_NUMBER,
                fields: FIELDS,
                deprecated_1000: message!(@old $($old)?),
            }
        };
    };
    (@old) => { None };
    (@old $old:ident) => { Some(&$old) };
}

pub(super) use message;
