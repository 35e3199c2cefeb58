//! Reading one mapping of the document: typed fields, and a problem for each field that is missing,
//! malformed or unknown. Must not know which sections exist.

use std::cell::RefCell;
use std::time::Duration;

use super::Problem;
use super::tree::Node;
use super::units;

/// Collects problems while several sections are open, and knows which scalars refer to files.
pub(super) struct Problems {
    found: RefCell<Vec<Problem>>,
    /// Path of the scalar, and as it is written.
    with_files: Vec<(String, String)>,
}

impl Problems {
    pub(super) fn new(with_files: Vec<(String, String)>) -> Self {
        Self {
            found: RefCell::default(),
            with_files,
        }
    }

    pub(super) fn add(&self, path: &str, message: impl Into<String>) {
        self.found.borrow_mut().push(Problem::new(path, message));
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.found.into_inner()
    }
}

/// One mapping being read. Every field that is read is marked; `finish` reports the others.
pub(super) struct Section<'a> {
    pub(super) path: String,
    entries: &'a [(String, Node)],
    known: Vec<&'static str>,
    refused: Vec<&'static str>,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    /// Opens `node`; nothing at all reads as an empty mapping, as in `grpc:` alone on its line.
    pub(super) fn open(node: &'a Node, path: &str, problems: &'a Problems) -> Self {
        let entries: &[(String, Node)] = match node.meaning() {
            Node::Map(entries) => entries,
            Node::Null => &[],
            other => {
                problems.add(path, format!("expected a mapping, found {}", other.kind()));
                &[]
            }
        };
        Self {
            path: path.to_owned(),
            entries,
            known: Vec::new(),
            refused: Vec::new(),
            problems,
        }
    }

    /// The path of a field of this section.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        self.problems.add(&self.at(key), message);
    }

    pub(super) fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// All entries, for mappings whose keys are names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        self.entries.iter().map(|(key, node)| (key.as_str(), node))
    }

    /// How a field that refers to files is written in the document.
    pub(super) fn written_with_files(&self, key: &str) -> Option<&'a str> {
        let path = self.at(key);
        let files = &self.problems.with_files;
        let (_, written) = files.iter().find(|(found, _)| *found == path)?;
        Some(written)
    }

    fn mark(&mut self, key: &'static str) {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
    }

    /// The field's node, when it is there and holds something.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.mark(key);
        let (_, node) = self.entries.iter().find(|(name, _)| name == key)?;
        (*node != Node::Null).then_some(node)
    }

    /// A field the collector knows and this agent does not do.
    pub(super) fn refuse(&mut self, key: &'static str, message: &str) {
        if self.entries.iter().any(|(name, _)| name == key) {
            self.refused.push(key);
            self.problem(key, message);
        }
    }

    /// A nested mapping, also when it is present and empty.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.mark(key);
        let (_, node) = self.entries.iter().find(|(name, _)| name == key)?;
        Some(Section::open(node, &self.at(key), self.problems))
    }

    /// A string field read by `parse`; text with unresolved references is taken as it stands.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        opaque: impl Fn(&str) -> T,
    ) -> Option<T> {
        let node = self.node(key)?;
        match node {
            Node::Opaque(text) => Some(opaque(text)),
            Node::Text(text) | Node::Resolved(text, _) => match parse(text) {
                Ok(value) => Some(value),
                Err(message) => {
                    self.problem(key, message);
                    None
                }
            },
            other => {
                self.problem(key, format!("expected a string, found {}", other.kind()));
                None
            }
        }
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        // A bare `0` is how people write "off"; any other bare number has no unit.
        if let Some(Node::Integer(number)) = self.node(key).map(Node::meaning) {
            if *number == 0 {
                return Some(Duration::ZERO);
            }
            self.problem(
                key,
                format!("{number} has no unit; write for example 200ms, 10s or 5m"),
            );
            return None;
        }
        self.parsed(key, units::duration, |_| Duration::ZERO)
    }

    /// A whole number in the given range; unresolved references read as its lower end.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let node = self.node(key)?.meaning();
        let value = match node {
            Node::Opaque(_) => return Some(*range.start()),
            Node::Integer(value) => u64::try_from(*value).ok(),
            other => {
                self.problem(
                    key,
                    format!("expected a whole number, found {}", other.kind()),
                );
                return None;
            }
        };
        if let Some(value) = value.filter(|value| range.contains(value)) {
            return Some(value);
        }
        let Node::Integer(found) = node else {
            return None;
        };
        self.problem(
            key,
            format!(
                "{found} is out of range; use {} to {}",
                range.start(),
                range.end()
            ),
        );
        None
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.node(key)?.meaning() {
            Node::Bool(value) => Some(*value),
            Node::Opaque(_) => Some(false),
            other => {
                let kind = other.kind();
                self.problem(key, format!("expected true or false, found {kind}"));
                None
            }
        }
    }

    /// One of a closed set of words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let first = choices.first().map(|(_, value)| *value)?;
        self.parsed(
            key,
            |word| {
                choices
                    .iter()
                    .find(|(name, _)| *name == word)
                    .map(|(_, value)| *value)
                    .ok_or_else(|| {
                        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                        format!("`{word}` is not supported; use {}", units::or_list(&names))
                    })
            },
            |_| first,
        )
    }

    /// The items of a list field.
    pub(super) fn list(&mut self, key: &'static str) -> &'a [Node] {
        match self.node(key).map(Node::meaning) {
            None => &[],
            Some(Node::List(items)) => items,
            Some(other) => {
                self.problem(key, format!("expected a list, found {}", other.kind()));
                &[]
            }
        }
    }

    /// A list of component names, each with its path.
    pub(super) fn names(&mut self, key: &'static str) -> Vec<(String, &'a str)> {
        let path = self.at(key);
        let mut names = Vec::new();
        for (index, item) in self.list(key).iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item {
                Node::Text(name) | Node::Resolved(name, _) | Node::Opaque(name) => {
                    names.push((path, name.as_str()));
                }
                other => self.problems.add(
                    &path,
                    format!("expected the name of a component, found {}", other.kind()),
                ),
            }
        }
        names
    }

    /// Reports every field that nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.entries {
            let key = key.as_str();
            if !self.known.contains(&key) && !self.refused.contains(&key) {
                let message = if self.known.is_empty() {
                    "is not supported; this section takes no fields".to_owned()
                } else {
                    format!("is not supported here; known are {}", self.known.join(", "))
                };
                self.problem(key, message);
            }
        }
    }
}
