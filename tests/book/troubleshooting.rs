//! `docs/troubleshooting.md` has an entry for everything that status, events and metrics give as a reason.

use std::collections::BTreeSet;

use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;

use super::{quoted, rows};
use crate::documentation::{after, assert_none, documented_reasons, is_reason, source, sources};

const PAGE: &str = "docs/troubleshooting.md";

/// What the code of the status says beside reasons: values of a status, and kinds.
const NO_REASONS: [&str; 4] = ["True", "False", "Unknown", "Deployment"];

/// The reasons in the first cells of the page's tables.
fn entries() -> BTreeSet<String> {
    let rows = rows(PAGE);
    let first = rows.iter().filter_map(|row| row.first());
    first
        .flat_map(|cell| quoted(cell))
        .map(str::to_owned)
        .collect()
}

/// The words in quotes of the files of a folder, without their tests.
fn words(folder: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for path in sources(&repository().join(folder)) {
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        let quoted = product.split('"').skip(1).step_by(2);
        words.extend(quoted.map(str::to_owned));
    }
    words
}

/// The values of a label of the agent's metrics.
fn label(name: &str) -> BTreeSet<String> {
    let source = text("agent/src/metrics/counters.rs");
    let (_, rest) = source.split_once(&format!("    {name} {{\n")).unwrap();
    let (body, _) = rest.split_once("    }\n").unwrap();
    let lines = body.lines().map(str::trim);
    let values = lines.filter(|line| !line.starts_with("//"));
    let values: BTreeSet<String> = values
        .filter_map(|line| line.split('"').nth(1))
        .map(str::to_owned)
        .collect();
    assert!(values.len() > 2, "{name}: {values:?}");
    values
}

fn missing(reasons: &BTreeSet<String>) -> Vec<String> {
    reasons.difference(&entries()).cloned().collect()
}

#[test]
fn every_condition_and_event_reason_has_an_entry() {
    let renamed: BTreeSet<String> = old_names();
    let mut reasons: BTreeSet<String> = words("crates/core/src/status")
        .into_iter()
        .filter(|word| is_reason(word) && !NO_REASONS.contains(&word.as_str()))
        .filter(|word| !renamed.contains(word))
        .collect();
    assert!(reasons.len() > 30, "{reasons:?}");
    reasons.extend(documented_reasons());
    assert_none(&missing(&reasons), "reasons without an entry");
}

/// Reasons that an older operator wrote; docs/upgrading.md has them.
fn old_names() -> BTreeSet<String> {
    let source = text("crates/core/src/status/renamed.rs");
    let rows = source.lines().map(str::trim);
    let rows = rows.filter(|line| line.starts_with('(') && line.ends_with("),"));
    let names: BTreeSet<String> = rows
        .filter_map(|row| row.split('"').nth(1))
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 5, "{names:?}");
    names
}

#[test]
fn every_reason_of_the_agents_metrics_has_an_entry() {
    let mut reasons = BTreeSet::new();
    for name in ["Refused", "Lost", "FailedAttempt"] {
        reasons.extend(label(name));
    }
    let storage = source(&repository().join("crates/segment-log/src/error.rs"));
    let given = storage.split("=>\"").skip(1);
    let storage: BTreeSet<String> = given
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect();
    assert!(storage.contains("read_only"), "{storage:?}");
    reasons.extend(storage);
    assert_none(&missing(&reasons), "reasons of metrics without an entry");
}

#[test]
fn every_outcome_of_the_webhook_that_is_no_success_has_an_entry() {
    let after = |path: &str, piece: &str| -> BTreeSet<String> {
        let source = source(&repository().join(path));
        after(&source, piece)
            .into_iter()
            .map(str::to_owned)
            .collect()
    };
    let mut outcomes = after("crates/core/src/inject/reason.rs", "=>\"");
    // Its sentences begin with a small letter.
    outcomes.retain(|word| word.starts_with(char::is_uppercase));
    assert!(outcomes.len() > 10, "{outcomes:?}");
    outcomes.extend(after("crates/webhook/src/review.rs", "=>\""));
    // What a caller gets that sends no review it can answer.
    for status in [
        "SERVICE_UNAVAILABLE",
        "INTERNAL_SERVER_ERROR",
        "NOT_FOUND",
        "METHOD_NOT_ALLOWED",
        "PAYLOAD_TOO_LARGE",
        "BAD_REQUEST",
    ] {
        let piece = format!("StatusCode::{status},\"");
        outcomes.extend(after("crates/webhook/src/answer.rs", &piece));
    }
    outcomes.insert("BadReview".into());
    outcomes.retain(|word| !["Injected", "Unchanged"].contains(&word.as_str()));
    assert!(outcomes.len() > 20, "{outcomes:?}");
    assert_none(&missing(&outcomes), "outcomes without an entry");
}

/// What the page names must exist, so that a renamed reason does not stay.
#[test]
fn every_entry_is_a_reason_that_the_code_has() {
    let folders = ["src", "crates", "agent/src"].map(|folder| source(&repository().join(folder)));
    let code = folders.concat();
    let columns = ["STALE", "MISSED", "UNCOVERED"];
    let unknown = entries().into_iter().filter(|entry| {
        let is_word = entry.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
        is_word && !columns.contains(&entry.as_str()) && !code.contains(&format!("\"{entry}\""))
    });
    assert_none(
        &unknown.collect::<Vec<_>>(),
        "entries that the code does not have",
    );
}
