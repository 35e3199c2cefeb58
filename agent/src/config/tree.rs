//! A YAML document as a plain tree. Must not know what any key means.

use std::{fmt, iter};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// One node of the document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// A scalar that held `${…}` references.
    Resolved {
        /// For strings.
        text: String,
        /// For all others: what the text means in YAML, where the whole scalar was one reference.
        meaning: Box<Node>,
        /// As it stands in the document, where it refers to files, whose content may change.
        with_files: Option<String>,
    },
    /// A scalar with references that are not resolved, because the configuration is only checked.
    Opaque(String),
}

impl Node {
    /// Parses one document.
    pub(super) fn parse(yaml: &str) -> Result<Self, String> {
        serde_saphyr::from_str(yaml).map_err(|error| error.without_snippet().to_string())
    }

    /// What error messages call this node.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) | Self::Opaque(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Resolved { meaning, .. } => meaning.kind(),
        }
    }

    /// The node that everything but a string is read from.
    pub(super) fn meaning(&self) -> &Self {
        match self {
            Self::Resolved { meaning, .. } => meaning,
            other => other,
        }
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Opaque(text) | Self::Resolved { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping, none for anything else.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        match self.meaning() {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list, none for anything else.
    pub(super) fn items(&self) -> &[Self] {
        match self.meaning() {
            Self::List(items) => items,
            _ => &[],
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or_else(|_| Node::Text(value.to_string()), Node::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let items = iter::from_fn(|| sequence.next_element().transpose());
        items.collect::<Result<_, _>>().map(Node::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let entries = iter::from_fn(|| entries.next_entry().transpose());
        entries.collect::<Result<_, _>>().map(Node::Map)
    }
}
