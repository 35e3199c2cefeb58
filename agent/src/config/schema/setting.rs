//! The form of one row of the schema.

/// The settings of one section.
pub type Settings = &'static [Setting];

/// One row of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name below its section. `a|b` names two settings, `*` stands for any part of a name.
    pub name: &'static str,
    /// What the agent does with it.
    pub rule: Rule,
    /// What it means; for a setting that is ignored or refused, the reason; for a list of mappings, what it should be.
    pub meaning: &'static str,
    /// The value that applies if a document omits the setting; empty if there is none.
    pub default: &'static str,
    /// The default in words, if the value alone does not say it.
    pub default_in_words: &'static str,
    /// Zero means the default.
    pub zero_is_default: bool,
    /// What to write, if a document must not omit the setting; otherwise empty.
    pub required: &'static str,
}

/// What the agent does with a setting.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// A mapping.
    Section(Settings),
    /// A list of mappings.
    List(Settings),
    /// A mapping from component ids (`type` or `type/name`) to the sections of their types.
    Components(Settings),
    /// An older name of a component type.
    Alias(&'static str),
    /// A value with the same meaning as in the collector.
    Value(ValueKind),
    /// Only this value is accepted; it describes what the agent does.
    Only(&'static str),
    /// Any value is accepted and ignored.
    Ignored,
    /// An error.
    Refused,
}

/// The type and the bounds of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueKind {
    /// `true` or `false`.
    Flag,
    /// A duration as Go writes it, such as `200ms`.
    Duration,
    /// A whole number: lowest, highest, unit.
    Whole(u64, u64, &'static str),
    /// A number: lowest, highest.
    Number(f64, f64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A string, with a description.
    Text(&'static str),
    /// A string that is not empty, with a description.
    NonEmpty(&'static str),
    /// A string, number or boolean.
    Scalar,
    /// A list of component ids, with a description.
    Ids(&'static str),
    /// A mapping from names to strings.
    Strings,
    /// A list of strings, with a description.
    Texts(&'static str),
}

pub(super) const fn row(name: &'static str, rule: Rule, meaning: &'static str) -> Setting {
    Setting {
        name,
        rule,
        meaning,
        default: "",
        default_in_words: "",
        zero_is_default: false,
        required: "",
    }
}

pub(super) const fn value(
    name: &'static str,
    kind: ValueKind,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting {
        default,
        ..row(name, Rule::Value(kind), meaning)
    }
}

pub(super) const fn section(name: &'static str, settings: Settings) -> Setting {
    row(name, Rule::Section(settings), "")
}

impl Setting {
    pub(super) const fn described(mut self, default: &'static str) -> Self {
        self.default_in_words = default;
        self
    }

    pub(super) const fn zero_is_default(mut self) -> Self {
        self.zero_is_default = true;
        self
    }

    pub(super) const fn required(mut self, what_to_write: &'static str) -> Self {
        self.required = what_to_write;
        self
    }

    /// Its names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.name.split('|')
    }

    /// Whether this row is about `name`.
    pub fn is(&self, name: &str) -> bool {
        self.names().any(|own| own == name)
    }

    /// Whether this row is about `name`, or about every name of its form.
    pub fn covers(&self, name: &str) -> bool {
        let wildcard = self.name.split_once('*');
        self.is(name)
            || wildcard.is_some_and(|(start, end)| {
                name.strip_prefix(start)
                    .is_some_and(|rest| rest.ends_with(end))
            })
    }

    /// The rows of a section, of a list's items or of component types.
    pub fn below(&self) -> Option<Settings> {
        match self.rule {
            Rule::Section(below) | Rule::List(below) | Rule::Components(below) => Some(below),
            _ => None,
        }
    }
}
