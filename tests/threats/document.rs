//! `docs/security-evidence.md` has a row for each threat and each check, and every test it names exists.

use std::collections::BTreeSet;

use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;

const EVIDENCE: &str = "docs/security-evidence.md";
const THREATS: u8 = 34;
const CHECKS: u8 = 64;

/// The cells of each row that begins with the number of a threat or a check.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let rows = rows.map(|row| {
        row.trim_end_matches('|')
            .split('|')
            .map(str::trim)
            .collect()
    });
    rows.filter(|row: &Vec<&str>| {
        let number = row[0].strip_prefix('T').unwrap_or(row[0]);
        number.parse::<u8>().is_ok()
    })
    .collect()
}

/// The text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests that a row names, in its last cell.
fn tests<'a>(row: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let last = row.last().copied().unwrap_or_default();
    let named = quoted(last).map(|test| test.split_once("::"));
    named
        .map(|test| test.expect("a test is `file::name`"))
        .collect()
}

/// Whether a file has a test function of this name.
fn is_test(source: &str, name: &str) -> bool {
    let Some((before, _)) = source.split_once(&format!("fn {name}(")) else {
        return false;
    };
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    attributes.contains("#[test]") || attributes.contains("#[tokio::test")
}

#[test]
fn every_threat_and_every_check_has_one_row() {
    let page = text(EVIDENCE);
    let mut found: Vec<&str> = rows(&page).iter().map(|row| row[0]).collect();
    found.sort_unstable();
    let threats = (1..=THREATS).map(|number| format!("T{number}"));
    let mut expected: Vec<String> = threats.chain((1..=CHECKS).map(|n| n.to_string())).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn every_named_test_exists() {
    let page = text(EVIDENCE);
    let rows = rows(&page);
    let named: BTreeSet<_> = rows.iter().flat_map(|row| tests(row)).collect();
    assert!(named.len() > 70, "{} tests are named", named.len());
    let missing: Vec<String> = named
        .iter()
        .filter(|(file, name)| {
            let source = std::fs::read_to_string(repository().join(file)).unwrap_or_default();
            !is_test(&source, name)
        })
        .map(|(file, name)| format!("{file}::{name}"))
        .collect();
    assert!(
        missing.is_empty(),
        "{EVIDENCE} names tests that do not exist:\n{}",
        missing.join("\n")
    );
}

#[test]
fn row_without_a_test_says_why() {
    let page = text(EVIDENCE);
    let words = [
        "Not defended",
        "Does not apply",
        "Out of reach",
        "By setting",
    ];
    let mut without = Vec::new();
    for row in rows(&page) {
        let says = words.iter().any(|word| row[row.len() - 2].contains(word));
        if tests(&row).is_empty() && !says {
            without.push(row.join(" | "));
        }
    }
    assert!(without.is_empty(), "{without:#?}");
}

/// The readable page sends readers to the evidence of every threat, and to none that does not exist.
#[test]
fn security_page_refers_to_every_threat() {
    let page = text("docs/security.md");
    let words = page.split(|c: char| !c.is_alphanumeric());
    let numbers = words.filter_map(|word| word.strip_prefix('T')?.parse::<u8>().ok());
    let found: BTreeSet<u8> = numbers.collect();
    assert_eq!(found, (1..=THREATS).collect());
}
