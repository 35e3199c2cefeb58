//! The table, and its place in the document.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::Outcome;

/// A table in Markdown.
pub(crate) struct Table(pub(crate) String);

impl Table {
    pub(crate) fn new() -> Self {
        Self("| measure | bar | figure | |\n|---|---|---|---|\n".into())
    }

    pub(crate) fn row(&mut self, measure: &str, bar: &str, figure: &str, met: Option<bool>) {
        let verdict = match met {
            None => "",
            Some(true) => "met",
            Some(false) => "**not met**",
        };
        eprintln!("scale:         {measure}: {figure} {verdict}");
        let _ = writeln!(self.0, "| {measure} | {bar} | {figure} | {verdict} |");
    }
}

pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Replaces what is between the markers of a section.
pub(crate) fn write(document: &Path, section: &str, table: &str) -> Outcome<()> {
    let begin = format!("<!-- {section}: written by `make bench-scale`, from here -->");
    let end = format!("<!-- {section}: to here -->");
    let text = std::fs::read_to_string(document)?;
    let missing = || format!("{} has no lines `{begin}` and `{end}`", document.display());
    let (head, rest) = text.split_once(&begin).ok_or_else(missing)?;
    let (_, tail) = rest.split_once(&end).ok_or_else(missing)?;
    std::fs::write(document, format!("{head}{begin}\n\n{table}\n{end}{tail}"))?;
    Ok(())
}
