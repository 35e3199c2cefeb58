//! Editing resource attributes in an OTLP request without decoding it: only the headers of each
//! resource entry and of its resource are written anew, everything below is copied as it stands.
//! Pure; must not know where requests come from or go to.
//!
//! Requests of one signal are merged by concatenating their bytes, since their only field is
//! repeated; the queue does that with slices and needs no code of this room.

use crate::config::{AttributeAction, AttributeEdit, AttributeValue};
use crate::scan::{Cursor, MAX_DEPTH, Malformed, Value, varint_length, write_varint};

/// Tag of field 1 with a length: resource entries in a request, the resource in an entry, attributes
/// in a resource, the key in an attribute.
const FIELD_1: u8 = 0x0a;
/// Tag of field 2 with a length: the value in an attribute.
const FIELD_2: u8 = 0x12;

/// A list of attribute edits, encoded once and applied to every request.
#[derive(Clone, Debug, Default)]
pub struct Edits(Vec<Edit>);

#[derive(Clone, Debug)]
struct Edit {
    key: Vec<u8>,
    /// The attribute as a field of the resource; empty where it is deleted.
    attribute: Vec<u8>,
    action: Action,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Insert,
    Update,
    Upsert,
    Delete,
}

/// An attribute of the resource being edited: its key, and its whole field.
type Attribute<'a> = (&'a [u8], &'a [u8]);

impl Edits {
    /// Encodes edits, to be applied in this order.
    pub fn new(edits: &[AttributeEdit]) -> Self {
        Self(edits.iter().map(Edit::new).collect())
    }

    /// Whether requests pass unchanged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies the edits to every resource of a request that [`crate::scan::inspect`] has passed. An
    /// entry without a resource gets one; several resource fields of an entry, which protobuf reads as
    /// one, are written as one.
    ///
    /// # Errors
    /// Only for bytes that were not inspected.
    pub fn apply(&self, request: &[u8]) -> Result<Vec<u8>, Malformed> {
        let growth: usize = self.0.iter().map(|edit| edit.attribute.len() + 4).sum();
        let mut out = Vec::with_capacity(request.len() + growth);
        let mut cursor = Cursor::new(request);
        while let Some(field) = cursor.field(MAX_DEPTH)? {
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
        let mut cursor = Cursor::new(entry);
        while let Some(field) = cursor.field(MAX_DEPTH)? {
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
        let mut cursor = Cursor::new(entry);
        while let Some(field) = cursor.field(MAX_DEPTH)? {
            if !matches!((field.number, field.value), (1, Value::Length(_))) {
                out.extend_from_slice(field.raw);
            }
        }
        Ok(())
    }

    /// The edited content of a resource.
    fn resource(&self, resource: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut attributes: Vec<Attribute<'_>> = Vec::new();
        let mut out = Vec::with_capacity(resource.len());
        let mut cursor = Cursor::new(resource);
        while let Some(field) = cursor.field(MAX_DEPTH)? {
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

/// The key of a `KeyValue`; of several, the last, as protobuf reads them.
fn key(key_value: &[u8]) -> Result<&[u8], Malformed> {
    let mut key: &[u8] = &[];
    let mut cursor = Cursor::new(key_value);
    while let Some(field) = cursor.field(MAX_DEPTH)? {
        if let (1, Value::Length(bytes)) = (field.number, field.value) {
            key = bytes;
        }
    }
    Ok(key)
}

impl Edit {
    fn new(edit: &AttributeEdit) -> Self {
        let (action, value) = match &edit.action {
            AttributeAction::Insert(value) => (Action::Insert, Some(value)),
            AttributeAction::Update(value) => (Action::Update, Some(value)),
            AttributeAction::Upsert(value) => (Action::Upsert, Some(value)),
            AttributeAction::Delete => (Action::Delete, None),
        };
        Self {
            key: edit.key.clone().into_bytes(),
            attribute: value.map_or_else(Vec::new, |value| attribute(&edit.key, value)),
            action,
        }
    }

    fn apply<'a>(&'a self, attributes: &mut Vec<Attribute<'a>>) {
        let first = attributes.iter().position(|(key, _)| *key == self.key);
        match (self.action, first) {
            (Action::Insert | Action::Upsert, None) => {
                attributes.push((&self.key, &self.attribute));
            }
            (Action::Update | Action::Upsert, Some(at)) => {
                // Duplicate keys are no valid data; one edited attribute must come out.
                attributes.retain(|(key, _)| *key != self.key);
                attributes.insert(at, (&self.key, &self.attribute));
            }
            (Action::Delete, Some(_)) => attributes.retain(|(key, _)| *key != self.key),
            (Action::Insert, Some(_)) | (Action::Update | Action::Delete, None) => {}
        }
    }
}

/// A `KeyValue` as field 1 of a resource.
fn attribute(key: &str, value: &AttributeValue) -> Vec<u8> {
    let mut any_value = Vec::new();
    match value {
        AttributeValue::Text(text) => write_field(FIELD_1, text.as_bytes(), &mut any_value),
        AttributeValue::Bool(value) => any_value.extend([0x10, u8::from(*value)]),
        AttributeValue::Integer(value) => {
            any_value.push(0x18);
            write_varint(value.cast_unsigned(), &mut any_value);
        }
        AttributeValue::Float(value) => {
            any_value.push(0x21);
            any_value.extend(value.to_le_bytes());
        }
    }
    let mut key_value = Vec::new();
    write_field(FIELD_1, key.as_bytes(), &mut key_value);
    write_field(FIELD_2, &any_value, &mut key_value);
    let mut field = Vec::new();
    write_field(FIELD_1, &key_value, &mut field);
    field
}

/// Where a request can be cut in two, both of them requests: between two entries, as near to the
/// middle as they allow. `None` for a single entry, and for requests with fields of another kind,
/// which may belong to all entries.
pub fn middle(request: &[u8]) -> Option<usize> {
    let half = request.len() / 2;
    let mut best: Option<usize> = None;
    let mut at = 0;
    let mut cursor = Cursor::new(request);
    while let Some(field) = cursor.field(MAX_DEPTH).ok()? {
        if field.number != 1 {
            return None;
        }
        at += field.raw.len();
        if at < request.len() && best.is_none_or(|best| at.abs_diff(half) < best.abs_diff(half)) {
            best = Some(at);
        }
    }
    best
}

fn write_field(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
