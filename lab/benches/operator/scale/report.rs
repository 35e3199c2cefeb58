//! The table, and its place in the document.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::Outcome;

const BEGIN: &str = "<!-- scale: written by `make bench-scale`, from here -->";
const END: &str = "<!-- scale: to here -->";

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

/// Replaces what is between the markers.
pub(crate) fn write(document: &Path, section: &str) -> Outcome<()> {
    let text = std::fs::read_to_string(document)?;
    let missing = || format!("{} has no lines `{BEGIN}` and `{END}`", document.display());
    let (head, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, tail) = rest.split_once(END).ok_or_else(missing)?;
    std::fs::write(document, format!("{head}{BEGIN}\n\n{section}\n{END}{tail}"))?;
    Ok(())
}
