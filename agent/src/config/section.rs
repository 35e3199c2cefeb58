//! Reading one mapping of the document: typed fields, and a problem for each field that is missing,
//! malformed or unknown. Must not know which sections exist.

use std::cell::RefCell;
use std::time::Duration;

use super::Problem;
use super::fields::{self, Treatment};
use super::tree::Node;
use super::units;

/// Collects problems and warnings while several sections are open, and knows which scalars refer to
/// files.
pub(super) struct Problems {
    found: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
    asked: RefCell<Vec<(String, bool)>>,
    /// Path of the scalar, and as it is written.
    with_files: Vec<(String, String)>,
}

impl Problems {
    pub(super) fn new(with_files: Vec<(String, String)>) -> Self {
        Self {
            found: RefCell::default(),
            warnings: RefCell::default(),
            asked: RefCell::default(),
            with_files,
        }
    }

    pub(super) fn add(&self, path: &str, message: impl Into<String>) {
        self.found.borrow_mut().push(Problem::new(path, message));
    }

    /// What is taken and deserves a log line all the same.
    pub(super) fn warn(&self, path: &str, message: &str) {
        self.warnings
            .borrow_mut()
            .push(format!("{path}: {message}"));
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// The shape of every field that was read, and whether it was there.
    pub(super) fn asked(&self) -> Vec<(String, bool)> {
        self.asked.take()
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.found.into_inner()
    }
}

/// One mapping being read. Every field that is read is marked; `finish` treats the others as the
/// table of fields says and reports those that are not in it.
pub(super) struct Section<'a> {
    pub(super) path: String,
    /// The path with component ids cut down to their types, as the table of fields has it.
    shape: String,
    entries: &'a [(String, Node)],
    known: Vec<&'static str>,
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
            shape: fields::shape(path),
            entries,
            known: Vec::new(),
            problems,
        }
    }

    /// Opens the definition of the component `id`, of a type that goes by `kind` in the table of
    /// fields.
    pub(super) fn component(parent: &Section<'a>, id: &str, kind: &str, node: &'a Node) -> Self {
        let mut section = Self::open(node, &parent.at(id), parent.problems);
        section.shape = format!("{}.{kind}", parent.shape);
        section
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
            let there = self.entries.iter().any(|(name, _)| name == key);
            let shape = self.shape_of(key);
            self.problems.asked.borrow_mut().push((shape, there));
        }
    }

    fn shape_of(&self, key: &str) -> String {
        if self.shape.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.shape)
        }
    }

    /// The field's node, when it is there and holds something.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.mark(key);
        let (_, node) = self.entries.iter().find(|(name, _)| name == key)?;
        (*node != Node::Null).then_some(node)
    }

    /// A nested mapping, also when it is present and empty.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.mark(key);
        let (_, node) = self.entries.iter().find(|(name, _)| name == key)?;
        let mut section = Section::open(node, &self.at(key), self.problems);
        section.shape = self.shape_of(key);
        Some(section)
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

    /// The mappings of a list field.
    pub(super) fn items(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let nodes = self.list(key).iter().enumerate();
        nodes
            .map(|(index, node)| {
                let path = format!("{}[{index}]", self.at(key));
                let mut section = Section::open(node, &path, self.problems);
                section.shape = format!("{}[]", self.shape_of(key));
                section
            })
            .collect()
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

    /// Treats every field that nobody asked for.
    pub(super) fn finish(self) {
        for (key, node) in self.entries {
            let key = key.as_str();
            if self.known.contains(&key) {
                continue;
            }
            match fields::find(&self.shape_of(key)).map(|field| (field.treatment, field.meaning)) {
                Some((Treatment::Ignored, _)) => {}
                Some((Treatment::Refused, reason)) => self.problem(key, reason),
                Some((Treatment::Only(value), reason)) => {
                    if !says(node.meaning(), value) {
                        self.problem(key, format!("only `{value}` is supported: {reason}"));
                    }
                }
                Some((Treatment::Taken, _)) | None => self.unknown(key),
            }
        }
    }

    fn unknown(&self, key: &str) {
        let message = if self.known.is_empty() {
            "is not supported; this section takes no fields".to_owned()
        } else {
            format!("is not supported here; known are {}", self.known.join(", "))
        };
        self.problem(key, message);
    }
}

/// Whether a node holds the one value that is taken, or nothing that contradicts it.
fn says(node: &Node, value: &str) -> bool {
    match node {
        Node::Null | Node::Opaque(_) => true,
        Node::Bool(found) => found.to_string() == value,
        Node::Integer(found) => found.to_string() == value,
        Node::Text(found) | Node::Resolved(found, _) => found == value,
        Node::List(items) => items.iter().all(|item| says(item.meaning(), value)),
        Node::Float(_) | Node::Map(_) => false,
    }
}
