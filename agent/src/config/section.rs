//! One mapping of the document beside the settings the schema has for it. `check` reports everything that the schema
//! does not allow; the getters return typed values, with the schema's defaults. Must not know which sections exist.

use super::problem::Findings;
use super::schema::{ROOT, Rule, Setting, Settings, ValueKind};
use super::tree::Node;
use super::units;
use super::value::Value;

/// A mapping of the document, which may be absent: then every setting has its default.
pub(super) struct Section<'a> {
    path: String,
    node: Option<&'a Node>,
    /// More than one where rows with a wildcard cover the section, too.
    settings: Vec<Settings>,
    findings: &'a Findings,
}

/// A component of the document: id, type and section.
pub(super) type Component<'a> = (&'a str, &'static str, Section<'a>);

impl<'a> Section<'a> {
    /// The whole document, or one in which nothing is set.
    pub(super) fn root(node: Option<&'a Node>, findings: &'a Findings) -> Self {
        Self {
            path: String::new(),
            node,
            settings: vec![ROOT],
            findings,
        }
    }

    /// The section `name`.
    pub(super) fn section(&self, name: &str) -> Self {
        self.child(name, name, self.find(name))
    }

    /// The section a component of this type would have if it were there and empty.
    pub(super) fn absent(&self, kind: &str) -> Self {
        self.child(kind, kind, None)
    }

    fn child(&self, name: &str, covered: &str, node: Option<&'a Node>) -> Self {
        let rows = self.rows().filter(|row| row.covers(covered));
        Self {
            path: self.at(name),
            node,
            settings: rows.filter_map(Setting::below).collect(),
            findings: self.findings,
        }
    }

    /// The mappings of a list.
    pub(super) fn items(&self, name: &str) -> Vec<Self> {
        let items = self.find(name).map_or(&[][..], Node::items);
        let items = items.iter().enumerate();
        items
            .map(|(index, node)| self.child(&format!("{name}[{index}]"), name, Some(node)))
            .collect()
    }

    /// The components of a section whose keys are ids, without those `check` reports.
    pub(super) fn components(&self) -> Vec<Component<'a>> {
        let components = self.entries().iter().filter_map(|(id, node)| {
            let kind = self.component_type(id).ok()?;
            Some((id.as_str(), kind, self.child(id, kind, Some(node))))
        });
        components.collect()
    }

    /// The type of a component, by the name the schema has for it.
    fn component_type(&self, id: &str) -> Result<&'static str, String> {
        let (written, name) = id.split_once('/').unwrap_or((id, " "));
        if name.is_empty() {
            return Err("has an empty name after the slash".to_owned());
        }
        let Some(row) = self.row(written) else {
            let types = self.known(|rule| !matches!(rule, Rule::Refused));
            let types = units::or_list(&types);
            return Err(format!("`{written}` is not supported; use {types}"));
        };
        match row.rule {
            Rule::Refused => Err(row.meaning.to_owned()),
            Rule::Alias(kind) => Ok(kind),
            _ => Ok(row
                .names()
                .find(|name| *name == written)
                .unwrap_or_default()),
        }
    }

    fn rows(&self) -> impl Iterator<Item = &'static Setting> + use<'_, 'a> {
        self.settings.iter().copied().flatten()
    }

    fn row(&self, name: &str) -> Option<&'static Setting> {
        let mut rows = self.rows().filter(|_| !name.contains('*'));
        rows.find(|row| row.is(name))
    }

    /// The names of all rows whose rule counts.
    fn known(&self, counts: impl Fn(&Rule) -> bool) -> Vec<&'static str> {
        let rows = self.rows().filter(|row| counts(&row.rule));
        let names = rows.flat_map(Setting::names);
        names.filter(|name| !name.contains('*')).collect()
    }

    /// Whether it is there, even if it is empty, as in `grpc:` alone on its line.
    pub(super) fn is_present(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn entries(&self) -> &'a [(String, Node)] {
        self.node.map_or(&[], Node::entries)
    }

    /// The path of a setting of this section.
    pub(super) fn at(&self, name: &str) -> String {
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

    pub(super) fn findings(&self) -> &'a Findings {
        self.findings
    }

    fn find(&self, name: &str) -> Option<&'a Node> {
        let mut entries = self.entries().iter();
        entries.find_map(|(key, node)| (key == name).then_some(node))
    }

    /// The node of a value, if it is there and holds something.
    pub(super) fn node(&self, name: &str) -> Option<&'a Node> {
        self.find(name).filter(|node| **node != Node::Null)
    }

    /// What the schema says about a value. A getter that asks for a setting the schema lacks makes every document
    /// invalid, so that no test can miss it.
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

    /// The ids in a list, each with its path.
    pub(super) fn ids(&self, name: &str) -> Vec<(String, &'a str)> {
        let items = self.find(name).map_or(&[][..], Node::items);
        let items = items.iter().enumerate();
        items
            .filter_map(|(index, item)| Some((self.at(&format!("{name}[{index}]")), item.text()?)))
            .collect()
    }
}

impl Section<'_> {
    /// Reports everything in and below this section that the schema does not allow.
    pub(super) fn check(&self) {
        for row in self.rows().filter(|row| !row.required.is_empty()) {
            if self.is_present() && self.missing(row) {
                self.problem(row.name, format!("is missing; {}", row.required));
            }
        }
        for (name, node) in self.entries() {
            match self.row(name) {
                None => self.problem(name, self.unknown()),
                Some(row) => self.check_setting(name, node, row),
            }
        }
    }

    /// A section may be empty, a value may not.
    fn missing(&self, row: &Setting) -> bool {
        match row.below() {
            Some(_) => self.find(row.name).is_none(),
            None => self.node(row.name).is_none(),
        }
    }

    fn check_setting(&self, name: &str, node: &Node, row: &Setting) {
        let is_set = *node != Node::Null;
        match row.rule {
            Rule::Section(_) if self.is_mapping(name, node) => self.section(name).check(),
            Rule::Components(_) if self.is_mapping(name, node) => {
                self.section(name).check_components();
            }
            Rule::List(_) if self.is_list(name, node) => self.check_items(name, node),
            Rule::Value(ValueKind::Ids(_)) if self.is_list(name, node) => {
                self.check_ids(name, node);
            }
            Rule::Value(ValueKind::Strings) => _ = self.is_mapping(name, node),
            Rule::Value(ValueKind::Ids(_)) => {}
            Rule::Value(kind) if is_set => {
                if let Err(message) = kind.read(node) {
                    self.problem(name, message);
                }
            }
            Rule::Only(value) if !says(node.meaning(), value) => {
                let reason = row.meaning;
                self.problem(name, format!("only `{value}` is supported: {reason}"));
            }
            Rule::Refused => self.problem(name, row.meaning),
            _ => {}
        }
    }

    fn check_components(&self) {
        for (id, node) in self.entries() {
            match self.component_type(id) {
                Err(message) => self.problem(id, message),
                Ok(kind) if self.row(kind).is_some_and(|row| row.below().is_some()) => {
                    if self.is_mapping(id, node) {
                        self.child(id, kind, Some(node)).check();
                    }
                }
                Ok(_) => {
                    let message = "is ignored: this agent has nothing of the kind to show";
                    self.findings.warn(&self.at(id), message);
                }
            }
        }
    }

    fn check_items(&self, name: &str, list: &Node) {
        for (index, item) in list.items().iter().enumerate() {
            self.is_mapping(&format!("{name}[{index}]"), item);
        }
        self.items(name).iter().for_each(Section::check);
    }

    fn check_ids(&self, name: &str, list: &Node) {
        for (index, item) in list.items().iter().enumerate() {
            if item.text().is_none() {
                let message = format!("expected the name of a component, found {}", item.kind());
                self.problem(&format!("{name}[{index}]"), message);
            }
        }
    }

    fn is_mapping(&self, name: &str, node: &Node) -> bool {
        let fits = matches!(node.meaning(), Node::Map(_) | Node::Null);
        self.expect(fits, name, "a mapping", node)
    }

    fn is_list(&self, name: &str, node: &Node) -> bool {
        let fits = matches!(node, Node::Null) || matches!(node.meaning(), Node::List(_));
        self.expect(fits, name, "a list", node)
    }

    fn expect(&self, fits: bool, name: &str, what: &str, node: &Node) -> bool {
        if !fits {
            self.problem(name, format!("expected {what}, found {}", node.kind()));
        }
        fits
    }

    fn unknown(&self) -> String {
        let known =
            self.known(|rule| !matches!(rule, Rule::Ignored | Rule::Only(_) | Rule::Refused));
        if known.is_empty() {
            "is not supported; this section has no settings".to_owned()
        } else {
            format!("is not supported here; known are {}", known.join(", "))
        }
    }
}

/// Whether a node holds the one value that is accepted, or nothing that contradicts it.
fn says(node: &Node, value: &str) -> bool {
    match node {
        Node::Null | Node::Opaque(_) => true,
        Node::Bool(found) => found.to_string() == value,
        Node::Integer(found) => found.to_string() == value,
        Node::List(items) => items.iter().all(|item| says(item.meaning(), value)),
        other => other.text() == Some(value),
    }
}
