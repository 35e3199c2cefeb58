//! One mapping of the document together with its settings in the schema. `check` reports everything that the
//! schema does not allow; the getters return typed values, with the schema's defaults.

use super::problem::Findings;
use super::schema::{ROOT, Rule, Setting, ValueKind};
use super::text::Text;
use super::tree::Node;
use super::units;
use super::value::Value;

/// A mapping of the document, which may be absent: then every setting has its default.
#[derive(Clone)]
pub(super) struct Section<'a> {
    path: String,
    node: Option<&'a Node>,
    /// The allowed settings, or the types of its components.
    rows: Vec<&'static Setting>,
    /// Whether its keys are ids of components.
    has_ids: bool,
    findings: &'a Findings,
}

impl<'a> Section<'a> {
    /// The whole document, or an empty one.
    pub(super) fn root(node: Option<&'a Node>, findings: &'a Findings) -> Self {
        Self {
            path: String::new(),
            node,
            rows: ROOT.iter().collect(),
            has_ids: false,
            findings,
        }
    }

    /// The section `name`.
    pub(super) fn section(&self, name: &str) -> Self {
        self.child(name, name, self.find(name))
    }

    /// The section of an absent component of this type, as if it were empty.
    pub(super) fn absent(&self, kind: &str) -> Self {
        self.child(kind, kind, None)
    }

    fn child(&self, name: &str, covered: &str, node: Option<&'a Node>) -> Self {
        let rows = self.rows.iter().filter(|row| row.covers(covered));
        Self {
            path: self.at(name),
            node,
            has_ids: (rows.clone()).any(|row| matches!(row.rule, Rule::Components(_))),
            rows: rows.filter_map(|row| row.below()).flatten().collect(),
            findings: self.findings,
        }
    }

    /// The items of a list of sections.
    pub(super) fn items(&self) -> Vec<Self> {
        let items = self.node.map_or(&[][..], Node::items).iter().enumerate();
        items
            .map(|(index, node)| Self {
                path: format!("{}[{index}]", self.path),
                node: Some(node),
                ..self.clone()
            })
            .collect()
    }

    /// The ids in a list, each with its path.
    pub(super) fn ids(&self, name: &str) -> Vec<(Self, &'a str)> {
        let items = self.section(name).items().into_iter();
        let ids = items.filter_map(|item| item.node?.text().map(|id| (item, id)));
        ids.collect()
    }

    /// The strings of a list that may refer to files, each with its path.
    pub(super) fn texts(&self, name: &str) -> Vec<(Self, Text)> {
        let items = self.section(name).items().into_iter();
        let texts = items.filter_map(|item| {
            let node = item.node?;
            let text = Text::new(node.text()?.to_owned(), node);
            Some((item, text))
        });
        texts.collect()
    }

    /// A string that may refer to files, if it is not empty.
    pub(super) fn text(&self, name: &str) -> Option<Text> {
        let text = self.given(name).filter(|text: &String| !text.is_empty())?;
        Some(Text::new(text, self.node(name)?))
    }

    /// The components of a section whose keys are ids, without those `check` reports; `read` takes the id, the type
    /// and the section of one.
    pub(super) fn components<T>(
        &self,
        mut read: impl FnMut(&'a str, &'a str, Self) -> T,
    ) -> Vec<(String, T)> {
        let components = self.entries().iter().filter_map(|(id, node)| {
            let (kind, row) = self.lookup(id).ok()?;
            let section = self.child(id, kind, Some(node));
            let is_refused = matches!(row.rule, Rule::Refused);
            (!is_refused).then(|| (id.clone(), read(id, kind, section)))
        });
        components.collect()
    }

    /// The name of a key in the schema, which for a component is its type, and the row.
    fn lookup<'n>(&self, entry: &'n str) -> Result<(&'n str, &'static Setting), String> {
        let (kind, name) = match entry.split_once('/') {
            Some(parts) if self.has_ids => parts,
            _ => (entry, " "),
        };
        if name.is_empty() {
            return Err("has an empty name after the slash".to_owned());
        }
        match self.row(kind) {
            Some(row) if let Rule::Alias(kind) = row.rule => self.lookup(kind),
            Some(row) => Ok((kind, row)),
            None if self.has_ids => {
                let types = self.names(|rule| !matches!(rule, Rule::Refused));
                let types = units::or_list(&types);
                Err(format!("`{kind}` is not supported; use {types}"))
            }
            None => {
                let unread = |rule| matches!(rule, Rule::Ignored | Rule::Only(_) | Rule::Refused);
                let known = self.names(|rule| !unread(rule));
                if known.is_empty() {
                    return Err("is not supported; this section has no settings".to_owned());
                }
                let known = known.join(", ");
                Err(format!("is not supported here; known are {known}"))
            }
        }
    }

    fn row(&self, name: &str) -> Option<&'static Setting> {
        let mut rows = self.rows.iter().filter(|_| !name.contains('*'));
        rows.find(|row| row.is(name)).copied()
    }

    /// The names of all rows that the agent uses.
    fn names(&self, counts: impl Fn(Rule) -> bool) -> Vec<&'static str> {
        let rows = self.rows.iter().filter(|row| counts(row.rule));
        let names = rows.flat_map(|row| row.names());
        names.filter(|name| !name.contains('*')).collect()
    }

    /// Whether it is present, even if empty, as in `grpc:` alone on its line.
    pub(super) fn is_present(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn entries(&self) -> &'a [(String, Node)] {
        self.node.map_or(&[], Node::entries)
    }

    /// The path of a setting of this section.
    fn at(&self, name: &str) -> String {
        let dot = if self.path.is_empty() || name.is_empty() {
            ""
        } else {
            "."
        };
        format!("{}{dot}{name}", self.path)
    }

    pub(super) fn problem(&self, name: &str, message: impl Into<String>) {
        self.findings.problem(&self.at(name), message);
    }

    pub(super) fn warn(&self, name: &str, message: &str) {
        self.findings.warn(&self.at(name), message);
    }

    fn find(&self, name: &str) -> Option<&'a Node> {
        let mut entries = self.entries().iter();
        entries.find_map(|(key, node)| (key == name).then_some(node))
    }

    /// The node of a value, if it is present and not empty.
    pub(super) fn node(&self, name: &str) -> Option<&'a Node> {
        self.find(name).filter(|node| **node != Node::Null)
    }

    /// The schema's row for a value. A getter for a setting that the schema lacks makes every document invalid,
    /// so that no test can miss it.
    fn value_row(&self, name: &str) -> Option<(&'static Setting, ValueKind)> {
        match self.row(name) {
            Some(row) if let Rule::Value(kind) = row.rule => Some((row, kind)),
            _ => {
                self.problem(name, "is not in the schema");
                None
            }
        }
    }

    /// The value in the document, unless it is absent, invalid or a zero that means the default.
    pub(super) fn given<T: TryFrom<Value<'a>>>(&self, name: &str) -> Option<T> {
        let (row, kind) = self.value_row(name)?;
        let value = kind.read(self.node(name)?).ok()?;
        let means_default = row.zero_is_default && value.is_zero();
        T::try_from(value).ok().filter(|_| !means_default)
    }

    /// The value in the document, or the default.
    pub(super) fn get<T: TryFrom<Value<'a>> + Default>(&self, name: &str) -> T {
        let default = || {
            let (row, kind) = self.value_row(name)?;
            T::try_from(kind.default(row.default)?).ok()
        };
        self.given(name).or_else(default).unwrap_or_default()
    }

    /// A text read by `parse`, or the default; one with unresolved references is read by `opaque`.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        opaque: impl Fn(&str) -> T,
    ) -> Option<T> {
        let (row, kind) = self.value_row(name)?;
        let text = match self.node(name) {
            Some(Node::Opaque(text)) => return Some(opaque(text)),
            Some(node) if kind.read(node).is_err() => return None,
            Some(node) => node.text()?,
            None if row.default.is_empty() => return None,
            None => row.default,
        };
        let parsed = parse(text);
        parsed.map_err(|message| self.problem(name, message)).ok()
    }
}

impl Section<'_> {
    /// The texts in a list read by `parse`, each with its place; those with unresolved references are read by
    /// `opaque`.
    pub(super) fn parsed_items<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        opaque: impl Fn(&str) -> T,
    ) -> Vec<(Self, T)> {
        self.value_row(name);
        let items = self.section(name).items().into_iter();
        let read = items.filter_map(|item| {
            let read = match item.node? {
                Node::Opaque(text) => Ok(opaque(text)),
                node => parse(node.text()?),
            };
            let read = read.map_err(|message| item.problem("", message)).ok()?;
            Some((item, read))
        });
        read.collect()
    }

    /// Reports everything in and below this section that the schema does not allow.
    pub(super) fn check(&self) {
        for row in self.rows.iter().filter(|row| !row.required.is_empty()) {
            // A section may be empty, a value may not.
            let found = match row.below() {
                Some(_) => self.find(row.name),
                None => self.node(row.name),
            };
            if found.is_none() {
                self.problem(row.name, format!("is missing; {}", row.required));
            }
        }
        for (name, node) in self.entries() {
            match self.lookup(name) {
                Ok((_, row)) if self.has_ids && matches!(row.rule, Rule::Ignored) => {
                    let message = "is ignored: this agent has nothing of the kind to show";
                    self.warn(name, message);
                }
                Ok((kind, row)) => self.child(name, kind, Some(node)).check_as(row, node),
                Err(message) => self.problem(name, message),
            }
        }
    }

    /// The same for one key, by its row of the schema.
    fn check_as(&self, row: &Setting, node: &Node) {
        match row.rule {
            Rule::Section(_) | Rule::Components(_) if self.is_mapping() => self.check(),
            Rule::List(_) if self.is_list(row.meaning) => {
                let items = self.items();
                for item in &items {
                    item.is_mapping();
                }
                items.iter().for_each(Section::check);
            }
            Rule::Value(ValueKind::Strings) => _ = self.is_mapping(),
            Rule::Value(ValueKind::Ids(_)) => self.is_list_of("the name of a component"),
            Rule::Value(ValueKind::Texts(_)) => self.is_list_of("a string"),
            Rule::Value(kind) if *node != Node::Null => {
                if let Err(message) = kind.read(node) {
                    self.problem("", message);
                }
            }
            Rule::Only(value) if !says(node.meaning(), value) => {
                let reason = row.meaning;
                self.problem("", format!("only `{value}` is supported: {reason}"));
            }
            Rule::Refused => self.problem("", row.meaning),
            _ => {}
        }
    }

    fn is_mapping(&self) -> bool {
        self.expect("a mapping", |node| {
            matches!(node.meaning(), Node::Map(_) | Node::Null)
        })
    }

    /// `what` says more than that it should be a list, if it is not empty.
    fn is_list(&self, what: &str) -> bool {
        let what = if what.is_empty() { "a list" } else { what };
        self.expect(what, |node| {
            *node == Node::Null || matches!(node.meaning(), Node::List(_))
        })
    }

    /// Reports items of a list that are no strings.
    fn is_list_of(&self, what: &str) {
        if self.is_list("") {
            for item in self.items() {
                item.expect(what, |node| node.text().is_some());
            }
        }
    }

    /// Whether the value matches the schema; reports it otherwise.
    fn expect(&self, what: &str, fits: impl Fn(&Node) -> bool) -> bool {
        let wrong = self.node.filter(|node| !fits(node));
        if let Some(node) = wrong {
            self.problem("", format!("expected {what}, found {}", node.kind()));
        }
        wrong.is_none()
    }
}

/// Whether a node has the one accepted value, or nothing that contradicts it.
fn says(node: &Node, value: &str) -> bool {
    match node {
        Node::Null | Node::Opaque(_) => true,
        Node::Bool(found) => found.to_string() == value,
        Node::Integer(found) => found.to_string() == value,
        Node::List(items) => items.iter().all(|item| says(item.meaning(), value)),
        other => other.text() == Some(value),
    }
}
