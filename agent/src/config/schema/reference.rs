//! The schema as a flat list, and as Markdown for `docs/agent.md`.

use std::fmt::Write as _;

use super::setting::{Rule, Setting, Settings, ValueKind};
use super::tables::ROOT;

/// A row with its whole path.
#[derive(Clone, Debug)]
pub struct Row {
    /// Component ids are cut down to their types; `[]` stands for any index of a list.
    pub path: String,
    /// The row.
    pub setting: &'static Setting,
}

/// Every row except sections, in the order of a configuration file.
pub fn rows() -> Vec<Row> {
    let mut found = Vec::new();
    collect("", ROOT, &mut found);
    found
}

fn collect(path: &str, settings: Settings, found: &mut Vec<Row>) {
    for setting in settings {
        for name in setting.names() {
            let index = match setting.rule {
                Rule::List(_) => "[]",
                _ => "",
            };
            let path = format!("{path}{name}{index}");
            match (setting.below(), setting.rule) {
                (Some(below), _) => collect(&format!("{path}."), below, found),
                (None, Rule::Alias(_)) => {}
                (None, _) => found.push(Row { path, setting }),
            }
        }
    }
}

/// The settings the agent accepts, by section; then the others, with the reason.
pub fn reference() -> String {
    let mut text = String::new();
    let mut section = "";
    let rows = rows();
    for row in &rows {
        let Rule::Value(kind) = row.setting.rule else {
            continue;
        };
        let (first, rest) = row.path.split_once('.').unwrap_or((&row.path, ""));
        if first != section {
            section = first;
            let _ = write!(
                text,
                "\n### `{section}`\n\n| setting | value | default | meaning |\n|---|---|---|---|\n"
            );
        }
        let (default, meaning) = (default(row.setting), meaning(row.setting));
        let _ = writeln!(
            text,
            "| `{rest}` | {} | {default} | {meaning} |",
            describe(kind)
        );
    }
    for (title, of) in [
        ("Accepted and ignored", Rule::Ignored),
        ("Accepted with one value only", Rule::Only("")),
        ("Refused", Rule::Refused),
    ] {
        let _ = write!(text, "\n### {title}\n\n| setting | reason |\n|---|---|\n");
        for row in &rows {
            let value = match (row.setting.rule, of) {
                (Rule::Only(value), Rule::Only(_)) => format!(": `{value}`"),
                (Rule::Ignored, Rule::Ignored) | (Rule::Refused, Rule::Refused) => String::new(),
                _ => continue,
            };
            let _ = writeln!(text, "| `{}`{value} | {} |", row.path, row.setting.meaning);
        }
    }
    text
}

fn describe(kind: ValueKind) -> String {
    match kind {
        ValueKind::Flag => "`true` or `false`".to_owned(),
        ValueKind::Duration => "duration".to_owned(),
        // Omits a bound that no document can reach.
        ValueKind::Whole(_, high, unit) if high >= 1 << 60 => unit.to_owned(),
        ValueKind::Whole(low, high, unit) => format!("{unit}, {low} to {high}"),
        ValueKind::Number(low, high) => format!("{low} to {high}"),
        ValueKind::Word([first @ .., last]) if !first.is_empty() => {
            format!("`{}` or `{last}`", first.join("`, `"))
        }
        ValueKind::Word(words) => format!("`{}`", words.concat()),
        ValueKind::Text(text)
        | ValueKind::NonEmpty(text)
        | ValueKind::Ids(text)
        | ValueKind::Texts(text) => text.to_owned(),
        ValueKind::Scalar => "string, number or boolean".to_owned(),
        ValueKind::Strings => "mapping of strings".to_owned(),
    }
}

fn default(setting: &Setting) -> String {
    match (setting.default_in_words, setting.default) {
        ("", "") if setting.required.is_empty() => String::new(),
        ("", "") => "(required)".to_owned(),
        ("", value) => format!("`{value}`"),
        (words, _) => words.to_owned(),
    }
}

fn meaning(setting: &Setting) -> String {
    let zero = if setting.zero_is_default {
        "; 0 means the default"
    } else {
        ""
    };
    format!("{}{zero}", setting.meaning)
}
