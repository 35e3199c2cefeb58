//! The table of fields: what the agent takes, what it takes and ignores, and what it refuses, each
//! with the reason. The reference in `docs/agent.md` is made of it, and fields that no reader asks
//! for are treated by it. Must not know how a field is read.

mod exporters;
mod others;
mod receivers;

use std::fmt::Write as _;

/// What the agent does with a field of the collector's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It means what it means in the collector.
    Taken,
    /// It is taken, and nothing depends on it.
    Ignored,
    /// Only this value is taken, which is what the agent does anyway.
    Only(&'static str),
    /// It is an error.
    Refused,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Path with component ids cut down to their types; `*` stands for any rest of a name, `[]` for
    /// any index of a list.
    pub path: &'static str,
    /// What its value is.
    pub kind: &'static str,
    /// The value where it is left out.
    pub default: &'static str,
    /// What it does; for a field that is ignored or refused, why.
    pub meaning: &'static str,
    /// What becomes of it.
    pub treatment: Treatment,
}

const fn taken(
    path: &'static str,
    kind: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Field {
    Field {
        path,
        kind,
        default,
        meaning,
        treatment: Treatment::Taken,
    }
}

const fn other(path: &'static str, meaning: &'static str, treatment: Treatment) -> Field {
    Field {
        path,
        kind: "",
        default: "",
        meaning,
        treatment,
    }
}

const fn ignored(path: &'static str, reason: &'static str) -> Field {
    other(path, reason, Treatment::Ignored)
}

const fn refused(path: &'static str, reason: &'static str) -> Field {
    other(path, reason, Treatment::Refused)
}

const fn only(path: &'static str, value: &'static str, reason: &'static str) -> Field {
    other(path, reason, Treatment::Only(value))
}

const SUITES: &str =
    "is not supported; only suites without known weakness are spoken, set min_version instead";

const CURVES: &str = "is not supported; X25519, P-256 and P-384 are spoken, in this order";

const KEYS: &str = "is not supported; keys are read from key_file or key_pem";

/// Every row, in the order of a configuration file.
pub fn fields() -> impl Iterator<Item = &'static Field> {
    [
        receivers::FIELDS,
        others::PROCESSORS,
        exporters::FIELDS,
        others::EXTENSIONS,
        others::SERVICE,
    ]
    .into_iter()
    .flatten()
}

/// The row of a field.
pub(super) fn find(shape: &str) -> Option<&'static Field> {
    fields().find(|field| matches(field.path, shape))
}

/// Whether a row's path is that of a field.
pub fn matches(path: &str, shape: &str) -> bool {
    let mut names = shape.split('.');
    let all = path.split('.').all(|pattern| {
        names
            .next()
            .is_some_and(|name| match pattern.split_once('*') {
                Some((beginning, end)) => name
                    .strip_prefix(beginning)
                    .is_some_and(|rest| rest.ends_with(end)),
                None => name == pattern,
            })
    });
    all && names.next().is_none()
}

/// A path without names of components and without indices.
pub(super) fn shape(path: &str) -> String {
    let mut shape = String::with_capacity(path.len());
    for name in path.split('.') {
        if !shape.is_empty() {
            shape.push('.');
        }
        let name = name.split('/').next().unwrap_or_default();
        match name.split_once('[') {
            Some((list, _)) => {
                shape.push_str(list);
                shape.push_str("[]");
            }
            None => shape.push_str(name),
        }
    }
    shape
}

/// The reference as Markdown: the fields that are taken by section, then the others with the reason.
pub fn reference() -> String {
    let mut text = String::new();
    let mut section = "";
    for field in fields().filter(|field| field.treatment == Treatment::Taken) {
        let (first, rest) = field.path.split_once('.').unwrap_or((field.path, ""));
        if first != section {
            section = first;
            let _ = write!(
                text,
                "\n### `{section}`\n\n| field | value | default | meaning |\n|---|---|---|---|\n"
            );
        }
        let default = match field.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let _ = writeln!(
            text,
            "| `{rest}` | {} | {default} | {} |",
            cell(field.kind),
            cell(field.meaning)
        );
    }
    for (title, treatment) in [
        ("Taken and ignored", Treatment::Ignored),
        ("Taken with one value", Treatment::Only("")),
        ("Refused by name", Treatment::Refused),
    ] {
        let _ = write!(text, "\n### {title}\n\n| field | reason |\n|---|---|\n");
        for field in fields() {
            let value = match field.treatment {
                Treatment::Only(value) if treatment == Treatment::Only("") => {
                    format!(": `{value}`")
                }
                other if other == treatment => String::new(),
                _ => continue,
            };
            let _ = writeln!(
                text,
                "| `{}`{value} | {} |",
                field.path,
                cell(field.meaning)
            );
        }
    }
    text
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
