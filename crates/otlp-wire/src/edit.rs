//! Edits resource attributes in the bytes of a request. Only the headers of each entry and of its resource
//! are rewritten; everything else is copied.

use std::fmt;

use crate::malformed::Malformed;
use crate::wire::{Value, field, fields, varint_length, write_field, write_varint};

/// The tag of field 1 with a length: an entry of a request, the resource of an entry, an attribute of a
/// resource, the key of an attribute.
const FIELD_1: u8 = 0x0a;
/// The tag of field 2 with a length: the value of an attribute.
const FIELD_2: u8 = 0x12;

/// One edit of a resource attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct AttributeEdit {
    /// The attribute's key.
    pub key: String,
    /// What happens to the attribute.
    pub action: AttributeAction,
}

/// What an edit does with the attribute of its key.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeAction {
    /// Sets the value if the key is absent.
    Insert(AttributeValue),
    /// Sets the value if the key is present.
    Update(AttributeValue),
    /// Sets the value in both cases.
    Upsert(AttributeValue),
    /// Removes the attribute.
    Delete,
}

/// A literal attribute value.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// UTF-8 text.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// A signed 64-bit integer.
    Integer(i64),
    /// An IEEE double.
    Float(f64),
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(formatter, "{text:?}"),
            Self::Bool(value) => value.fmt(formatter),
            Self::Integer(value) => value.fmt(formatter),
            Self::Float(value) => value.fmt(formatter),
        }
    }
}

/// A list of attribute edits, encoded once and applied to every request.
#[derive(Clone, Debug, Default)]
pub struct Edits(Vec<Edit>);

#[derive(Clone, Debug)]
struct Edit {
    edit: AttributeEdit,
    /// The attribute as a field of the resource; empty for a deletion.
    attribute: Vec<u8>,
}

/// The key and the whole field of an attribute.
type Attribute<'a> = (&'a [u8], &'a [u8]);

impl Edits {
    /// Encodes edits; they apply in this order.
    pub fn new(edits: &[AttributeEdit]) -> Self {
        Self(edits.iter().map(Edit::new).collect())
    }

    /// Whether requests stay unchanged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies the edits to every resource of a request that [`inspect`](crate::inspect()) has accepted. An
    /// entry without a resource gets one. Several resource fields of one entry become one field, as
    /// protobuf reads them.
    ///
    /// # Errors
    /// Only for bytes that were not inspected.
    pub fn apply(&self, request: &[u8]) -> Result<Vec<u8>, Malformed> {
        let growth: usize = self.0.iter().map(|edit| edit.attribute.len() + 4).sum();
        let mut out = Vec::with_capacity(request.len() + growth);
        for field in fields(request) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Length(entry)) => self.entry(entry, &mut out)?,
                _ => out.extend_from_slice(field.raw),
            }
        }
        Ok(out)
    }

    fn entry(&self, entry: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut resource = Vec::new();
        let mut others = 0;
        for field in fields(entry) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Length(bytes)) => resource.extend_from_slice(bytes),
                _ => others += field.raw.len(),
            }
        }
        let resource = self.resource(&resource)?;
        let resource_field = 1 + varint_length(resource.len()) + resource.len();
        out.push(FIELD_1);
        write_varint((resource_field + others) as u64, out);
        write_field(FIELD_1, &resource, out);
        for field in fields(entry) {
            let field = field?;
            if !matches!((field.number, field.value), (1, Value::Length(_))) {
                out.extend_from_slice(field.raw);
            }
        }
        Ok(())
    }

    /// The content of a resource after the edits.
    fn resource(&self, resource: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut attributes: Vec<Attribute<'_>> = Vec::new();
        let mut out = Vec::with_capacity(resource.len());
        for field in fields(resource) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Length(bytes)) => attributes.push((key(bytes)?, field.raw)),
                _ => out.extend_from_slice(field.raw),
            }
        }
        for edit in &self.0 {
            edit.apply(&mut attributes);
        }
        for (_, raw) in attributes {
            out.extend_from_slice(raw);
        }
        Ok(out)
    }
}

/// The key of a `KeyValue`; the last of several, as protobuf reads them.
fn key(key_value: &[u8]) -> Result<&[u8], Malformed> {
    let mut key: &[u8] = &[];
    for field in fields(key_value) {
        let field = field?;
        if let (1, Value::Length(bytes)) = (field.number, field.value) {
            key = bytes;
        }
    }
    Ok(key)
}

impl Edit {
    fn new(edit: &AttributeEdit) -> Self {
        use AttributeAction::{Delete, Insert, Update, Upsert};
        let attribute = match &edit.action {
            Insert(value) | Update(value) | Upsert(value) => attribute(&edit.key, value),
            Delete => Vec::new(),
        };
        let edit = edit.clone();
        Self { edit, attribute }
    }

    fn apply<'a>(&'a self, attributes: &mut Vec<Attribute<'a>>) {
        use AttributeAction::{Delete, Insert, Update, Upsert};
        let edited = self.edit.key.as_bytes();
        let first = attributes.iter().position(|(key, _)| *key == edited);
        match (&self.edit.action, first) {
            (Insert(_) | Upsert(_), None) => attributes.push((edited, &self.attribute)),
            (Update(_) | Upsert(_), Some(at)) => {
                // Duplicate keys are invalid; exactly one edited attribute must remain.
                attributes.retain(|(key, _)| *key != edited);
                attributes.insert(at, (edited, &self.attribute));
            }
            (Delete, Some(_)) => attributes.retain(|(key, _)| *key != edited),
            (Insert(_), Some(_)) | (Update(_) | Delete, None) => {}
        }
    }
}

/// A `KeyValue` as field 1 of a resource.
fn attribute(key: &str, value: &AttributeValue) -> Vec<u8> {
    let any_value = match value {
        AttributeValue::Text(text) => field(FIELD_1, text.as_bytes()),
        AttributeValue::Bool(value) => vec![0x10, u8::from(*value)],
        AttributeValue::Integer(value) => {
            let mut any_value = vec![0x18];
            write_varint(value.cast_unsigned(), &mut any_value);
            any_value
        }
        AttributeValue::Float(value) => [&[0x21], &value.to_le_bytes()[..]].concat(),
    };
    let key = field(FIELD_1, key.as_bytes());
    field(FIELD_1, &[key, field(FIELD_2, &any_value)].concat())
}
