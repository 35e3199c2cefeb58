//! The pages as a book: what it holds, that every symptom has an entry, and the reference made from the CRD.

mod commands;
mod contents;
mod measured;
mod modes;
mod reference;
mod sizing;
mod troubleshooting;

use std::path::Path;

use otelagent_test_support::manifests::text;

/// The cells of every row of a page's tables, without heads and the lines below them.
fn rows(page: &str) -> Vec<Vec<String>> {
    let text = text(page);
    let lines: Vec<&str> = text.lines().collect();
    let mut rows = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let is_rule = |line: &str| line.starts_with("|---");
        let next = lines.get(number + 1).copied().unwrap_or_default();
        if !line.starts_with('|') || is_rule(line) || is_rule(next) {
            continue;
        }
        let cells = line.trim_matches('|').split('|');
        rows.push(cells.map(|cell| cell.trim().to_owned()).collect());
    }
    assert!(!rows.is_empty(), "{page} has no table");
    rows
}

/// The words of a text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A path as the repository's pages write it.
fn shown(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}
