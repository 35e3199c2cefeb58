//! Edits resource attributes in the bytes of a request. Only the headers of each entry and of its resource
//! are rewritten; everything else is copied.

use std::fmt;

use crate::malformed::Malformed;
use crate::wire::{Value, field, fields, varint_length, write_varint};

/// The tag of field 1 with a length: an entry of a request, the resource of an entry, an attribute of a
/// resource, the key of an attribute.
const FIELD_1: u8 = 0x0a;
/// The tag of field 2 with a length: the value of an attribute.
const FIELD_2: u8 = 0x12;
/// The field of an entry that says nothing by itself.
const SCHEMA_URL: u32 = 3;

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
    /// Sets the value of the attribute of this other key, if that is present and the edited one is absent.
    InsertFrom(String),
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
    /// The attribute as a field of the resource; only its key as a field of that, if the value is another one's; empty
    /// for a deletion.
    attribute: Vec<u8>,
}

/// Why edits were not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The request was not inspected.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The edited request exceeds the limit.
    #[error("the request is larger than {0} bytes with the attributes that are added to it")]
    TooLarge(usize),
    /// The caller granted no memory for the edited request.
    #[error("no memory left for the request")]
    Exhausted,
}

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
    /// protobuf reads them. Entries that carry nothing are left out, since attributes would multiply
    /// their size.
    ///
    /// The result is measured before it is allocated: it has at most `limit` bytes, and `grant` has agreed
    /// to that many.
    ///
    /// # Errors
    /// If the result exceeds `limit` or what `grant` allows, and for bytes that were not inspected.
    pub fn apply(
        &self,
        request: &[u8],
        limit: usize,
        grant: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Vec<u8>, EditError> {
        let mut plan = Plan::new(&self.0);
        let mut size = 0;
        for field in fields(request) {
            let field = field?;
            size += match (field.number, field.value) {
                (1, Value::Length(entry)) => plan.size(entry)?,
                _ => field.raw.len(),
            };
            if size > limit {
                return Err(EditError::TooLarge(limit));
            }
        }
        if !grant(size) {
            return Err(EditError::Exhausted);
        }
        let mut out = Vec::with_capacity(size);
        for field in fields(request) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Length(entry)) => plan.write(entry, &mut out)?,
                _ => out.extend_from_slice(field.raw),
            }
        }
        Ok(out)
    }
}

/// What becomes of one entry; used for each in turn.
struct Plan<'e, 'r> {
    edits: &'e [Edit],
    keys: Vec<EditedKey<'e, 'r>>,
    /// What follows the attributes that were there.
    added: Vec<Added<'e, 'r>>,
    /// The size of the edited resource.
    resource: usize,
    /// The size of all other fields of the entry.
    others: usize,
}

/// A key that is edited, or whose value another one gets.
struct EditedKey<'e, 'r> {
    key: &'e [u8],
    fate: Fate<'e>,
    /// The bytes of its attributes before the edits.
    bytes: usize,
    /// The first of these attributes: a `KeyValue`.
    first: &'r [u8],
}

/// An attribute that an edit adds.
#[derive(Clone, Copy)]
struct Added<'e, 'r> {
    edit: &'e Edit,
    /// The attribute whose value it has, if not its own.
    source: Option<&'r [u8]>,
}

impl<'r> Added<'_, 'r> {
    /// What it has of the other attribute: all but its key.
    fn copied(&self) -> impl Iterator<Item = &'r [u8]> + use<'r> {
        let all = fields(self.source.unwrap_or_default()).map_while(Result::ok);
        all.filter(|field| !matches!((field.number, field.value), (1, Value::Length(_))))
            .map(|field| field.raw)
    }

    fn key_value(&self) -> usize {
        let copied = self.copied().map(<[u8]>::len);
        self.edit.attribute.len() + copied.sum::<usize>()
    }

    fn size(&self) -> usize {
        match self.source {
            None => self.edit.attribute.len(),
            Some(_) => 1 + varint_length(self.key_value()) + self.key_value(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.source.is_some() {
            out.push(FIELD_1);
            write_varint(self.key_value() as u64, out);
        }
        out.extend_from_slice(&self.edit.attribute);
        for field in self.copied() {
            out.extend_from_slice(field);
        }
    }
}

/// What becomes of the attributes of one key.
#[derive(Clone, Copy)]
enum Fate<'e> {
    /// There are none, or they are removed.
    Absent,
    Kept,
    /// This one takes the place of the first.
    Replaced(&'e [u8]),
    Added,
}

impl<'e: 'r, 'r> Plan<'e, 'r> {
    fn new(edits: &'e [Edit]) -> Self {
        let mut keys: Vec<EditedKey<'e, 'r>> = Vec::new();
        for key in edits.iter().flat_map(Edit::keys) {
            if !keys.iter().any(|edited| edited.key == key) {
                keys.push(EditedKey {
                    key,
                    fate: Fate::Absent,
                    bytes: 0,
                    first: &[],
                });
            }
        }
        Self {
            edits,
            keys,
            added: Vec::new(),
            resource: 0,
            others: 0,
        }
    }

    /// Plans for this entry.
    fn read(&mut self, entry: &'r [u8]) -> Result<(), Malformed> {
        for edited in &mut self.keys {
            (edited.fate, edited.bytes) = (Fate::Absent, 0);
        }
        self.added.clear();
        (self.resource, self.others) = (0, 0);
        for field in fields(entry) {
            let field = field?;
            if let (1, Value::Length(resource)) = (field.number, field.value) {
                self.read_resource(resource)?;
            } else {
                self.others += field.raw.len();
            }
        }
        for edit in self.edits {
            self.edit(edit)?;
        }
        for edited in &self.keys {
            self.resource -= match edited.fate {
                Fate::Kept => 0,
                Fate::Absent | Fate::Replaced(_) | Fate::Added => edited.bytes,
            };
            if let Fate::Replaced(attribute) = edited.fate {
                self.resource += attribute.len();
            }
        }
        let added = self.added.iter().map(Added::size);
        self.resource += added.sum::<usize>();
        Ok(())
    }

    fn read_resource(&mut self, resource: &'r [u8]) -> Result<(), Malformed> {
        self.resource += resource.len();
        for field in fields(resource) {
            let field = field?;
            if let (1, Value::Length(attribute)) = (field.number, field.value) {
                let key = key(attribute)?;
                if let Some(edited) = self.keys.iter_mut().find(|edited| edited.key == key) {
                    if edited.bytes == 0 {
                        edited.first = attribute;
                    }
                    edited.fate = Fate::Kept;
                    edited.bytes += field.raw.len();
                }
            }
        }
        Ok(())
    }

    fn edit(&mut self, edit: &'e Edit) -> Result<(), Malformed> {
        use AttributeAction::{Delete, Insert, InsertFrom, Update, Upsert};
        let key = edit.key();
        let source = match &edit.edit.action {
            InsertFrom(other) => self.source(other.as_bytes())?,
            _ => None,
        };
        let Some(edited) = self.keys.iter_mut().find(|edited| edited.key == key) else {
            return Ok(());
        };
        match (&edit.edit.action, edited.fate) {
            (Insert(_) | Upsert(_), Fate::Absent) => {
                edited.fate = Fate::Added;
                self.added.push(Added { edit, source: None });
            }
            (InsertFrom(_), Fate::Absent) if source.is_some() => {
                edited.fate = Fate::Added;
                self.added.push(Added { edit, source });
            }
            (Update(_) | Upsert(_), Fate::Added) => {
                let mut added = self.added.iter_mut();
                if let Some(added) = added.find(|added| added.edit.key() == key) {
                    *added = Added { edit, source: None };
                }
            }
            // Duplicate keys are invalid; exactly one edited attribute must remain.
            (Update(_) | Upsert(_), Fate::Kept | Fate::Replaced(_)) => {
                edited.fate = Fate::Replaced(&edit.attribute);
            }
            (Delete, _) => {
                edited.fate = Fate::Absent;
                self.added.retain(|added| added.edit.key() != key);
            }
            (Insert(_) | InsertFrom(_), _) | (Update(_), Fate::Absent) => {}
        }
        Ok(())
    }

    /// The attribute of a key after the edits so far, of which the value counts.
    fn source(&self, key: &[u8]) -> Result<Option<&'r [u8]>, Malformed> {
        let edited = self.keys.iter().find(|edited| edited.key == key);
        match edited.map(|edited| (edited.fate, edited.first)) {
            None | Some((Fate::Absent, _)) => Ok(None),
            Some((Fate::Kept, first)) => Ok(Some(first)),
            Some((Fate::Replaced(attribute), _)) => key_value(attribute).map(Some),
            Some((Fate::Added, _)) => {
                let mut added = self.added.iter();
                match added.find(|added| added.edit.key() == key) {
                    None => Ok(None),
                    Some(added) if added.source.is_some() => Ok(added.source),
                    Some(added) => key_value(&added.edit.attribute).map(Some),
                }
            }
        }
    }

    /// The size of the entry's content after the edits.
    fn content(&self) -> usize {
        1 + varint_length(self.resource) + self.resource + self.others
    }

    /// The size of the whole entry after the edits.
    fn size(&mut self, entry: &'r [u8]) -> Result<usize, Malformed> {
        if !has_data(entry) {
            return Ok(0);
        }
        self.read(entry)?;
        let content = self.content();
        Ok(1 + varint_length(content) + content)
    }

    fn write(&mut self, entry: &'r [u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        if !has_data(entry) {
            return Ok(());
        }
        self.read(entry)?;
        out.push(FIELD_1);
        write_varint(self.content() as u64, out);
        out.push(FIELD_1);
        write_varint(self.resource as u64, out);
        for field in fields(entry) {
            let field = field?;
            if let (1, Value::Length(resource)) = (field.number, field.value) {
                self.write_resource(resource, out)?;
            }
        }
        for added in &self.added {
            added.write(out);
        }
        for field in fields(entry) {
            let field = field?;
            if !matches!((field.number, field.value), (1, Value::Length(_))) {
                out.extend_from_slice(field.raw);
            }
        }
        Ok(())
    }

    fn write_resource(&mut self, resource: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        for field in fields(resource) {
            let field = field?;
            let mut edited = None;
            if let (1, Value::Length(attribute)) = (field.number, field.value) {
                let key = key(attribute)?;
                edited = self.keys.iter_mut().find(|edited| edited.key == key);
            }
            match edited {
                None => out.extend_from_slice(field.raw),
                Some(edited) => match edited.fate {
                    Fate::Kept => out.extend_from_slice(field.raw),
                    Fate::Replaced(attribute) => {
                        out.extend_from_slice(attribute);
                        edited.fate = Fate::Absent;
                    }
                    Fate::Absent | Fate::Added => {}
                },
            }
        }
        Ok(())
    }
}

/// Whether an entry has fields beside its resource and the URL of its schema.
fn has_data(entry: &[u8]) -> bool {
    fields(entry)
        .map_while(Result::ok)
        .any(|field| !matches!(field.number, 1 | SCHEMA_URL))
}

/// The `KeyValue` in field 1 of a resource.
fn key_value(attribute: &[u8]) -> Result<&[u8], Malformed> {
    let first = fields(attribute).next().transpose()?;
    match first.map(|field| field.value) {
        Some(Value::Length(key_value)) => Ok(key_value),
        _ => Ok(&[]),
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
        use AttributeAction::{Delete, Insert, InsertFrom, Update, Upsert};
        let attribute = match &edit.action {
            Insert(value) | Update(value) | Upsert(value) => attribute(&edit.key, value),
            InsertFrom(_) => field(FIELD_1, edit.key.as_bytes()),
            Delete => Vec::new(),
        };
        let edit = edit.clone();
        Self { edit, attribute }
    }

    fn key(&self) -> &[u8] {
        self.edit.key.as_bytes()
    }

    /// Its key, and the one whose value it takes.
    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let source = match &self.edit.action {
            AttributeAction::InsertFrom(source) => Some(source.as_bytes()),
            _ => None,
        };
        [self.key()].into_iter().chain(source)
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
