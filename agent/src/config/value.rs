//! Nodes of the document as values of the types the schema names. Must not know which settings hold them.

use std::time::Duration;

use super::model::AttributeValue;
use super::schema::ValueKind;
use super::tree::Node;
use super::units;

/// A value of one of the schema's types.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Flag(bool),
    Whole(u64),
    Number(f64),
    Duration(Duration),
    Text(&'a str),
    Scalar(AttributeValue),
}

impl ValueKind {
    /// The value of a node. References that are not resolved count as a valid value.
    pub(super) fn read<'n>(&self, node: &'n Node) -> Result<Value<'n>, String> {
        let expected = |what: &str| Err(format!("expected {what}, found {}", node.kind()));
        let is_open = matches!(node, Node::Opaque(_));
        match (self, node.meaning(), node.text()) {
            (Self::Flag, Node::Bool(value), _) => Ok(Value::Flag(*value)),
            (Self::Flag, _, _) if is_open => Ok(Value::Flag(false)),
            (Self::Flag, ..) => expected("true or false"),
            (Self::Whole(low, ..), _, _) if is_open => Ok(Value::Whole(*low)),
            (Self::Whole(low, high, _), Node::Integer(value), _) => {
                within(*value, low, high, u64::try_from(*value).ok()).map(Value::Whole)
            }
            (Self::Whole(..), ..) => expected("a whole number"),
            (Self::Number(low, _), _, _) if is_open => Ok(Value::Number(*low)),
            (Self::Number(low, high), Node::Float(value), _) => {
                within(*value, low, high, Some(*value)).map(Value::Number)
            }
            (Self::Number(low, high), Node::Integer(value), _) => {
                let number = i32::try_from(*value).ok().map(f64::from);
                within(*value, low, high, number).map(Value::Number)
            }
            (Self::Number(..), ..) => expected("a number"),
            (Self::Scalar, meaning, _) => scalar(meaning)
                .map(Value::Scalar)
                .map_or_else(|| expected("a string, number or boolean"), Ok),
            // A bare `0` is how people write "off"; any other number needs its unit.
            (Self::Duration, Node::Integer(0), _) => Ok(Value::Duration(Duration::ZERO)),
            (Self::Duration, Node::Integer(number), _) => Err(format!(
                "{number} has no unit; write for example 200ms, 10s or 5m"
            )),
            (_, _, None) => expected("a string"),
            (Self::Duration, ..) if is_open => Ok(Value::Duration(Duration::ZERO)),
            (Self::Duration, _, Some(text)) => units::duration(text).map(Value::Duration),
            (Self::Word(words), ..) if is_open => {
                Ok(Value::Text(words.first().copied().unwrap_or_default()))
            }
            (Self::Word(words), _, Some(word)) if !words.contains(&word) => Err(format!(
                "`{word}` is not supported; use {}",
                units::or_list(words)
            )),
            (Self::NonEmpty(_), _, Some("")) => Err("must not be empty".to_owned()),
            (_, _, Some(text)) => Ok(Value::Text(text)),
        }
    }

    /// The value of a default.
    pub(super) fn default(&self, text: &'static str) -> Option<Value<'static>> {
        match self {
            _ if text.is_empty() => None,
            Self::Flag => text.parse().ok().map(Value::Flag),
            Self::Whole(..) => text.parse().ok().map(Value::Whole),
            Self::Number(..) => text.parse().ok().map(Value::Number),
            Self::Duration => units::duration(text).ok().map(Value::Duration),
            _ => Some(Value::Text(text)),
        }
    }
}

fn within<W: std::fmt::Display, B: std::fmt::Display + PartialOrd>(
    written: W,
    low: &B,
    high: &B,
    value: Option<B>,
) -> Result<B, String> {
    let message = format!("{written} is out of range; use {low} to {high}");
    let inside = value.filter(|value| (low..=high).contains(&value));
    inside.ok_or(message)
}

fn scalar(node: &Node) -> Option<AttributeValue> {
    match node {
        Node::Text(text) | Node::Opaque(text) => Some(AttributeValue::Text(text.clone())),
        Node::Bool(value) => Some(AttributeValue::Bool(*value)),
        Node::Integer(value) => Some(AttributeValue::Integer(*value)),
        Node::Float(value) => Some(AttributeValue::Float(*value)),
        // A variable that is not set is the empty string, not an absent value.
        Node::Null => Some(AttributeValue::Text(String::new())),
        Node::List(_) | Node::Map(_) | Node::Resolved { .. } => None,
    }
}

impl Value<'_> {
    pub(super) fn is_zero(&self) -> bool {
        matches!(self, Self::Whole(0) | Self::Duration(Duration::ZERO))
    }
}

/// From a value to the type that a configuration holds.
macro_rules! from_value {
    ($($variant:ident($value:ident) => $type:ty: $result:expr;)*) => {$(
        impl TryFrom<Value<'_>> for $type {
            type Error = ();

            fn try_from(value: Value<'_>) -> Result<Self, ()> {
                match value {
                    Value::$variant($value) => $result.map_err(|_| ()),
                    _ => Err(()),
                }
            }
        }
    )*};
}

from_value! {
    Flag(value) => bool: Ok::<_, ()>(value);
    Whole(value) => u16: Self::try_from(value);
    Whole(value) => u32: Self::try_from(value);
    Whole(value) => u64: Ok::<_, ()>(value);
    Whole(value) => usize: Self::try_from(value);
    Number(value) => f64: Ok::<_, ()>(value);
    Duration(value) => Duration: Ok::<_, ()>(value);
    Text(value) => String: Ok::<_, ()>(value.to_owned());
    Scalar(value) => AttributeValue: Ok::<_, ()>(value);
}
