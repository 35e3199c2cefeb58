//! The alerts: that each names what is there, and has a runbook.

use std::collections::BTreeSet;
use std::fs;

use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;
use serde_json::Value;

use super::reference::Reference;
use super::{PAGE, promql};

const RUNBOOKS: &str = "docs/runbooks";

fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&text("charts/otelagent/files/rules.yaml")).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    let rules: Vec<Value> = groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect();
    assert!(rules.len() > 20, "{} rules", rules.len());
    rules
}

fn word<'v>(rule: &'v Value, path: &[&str]) -> &'v str {
    let value = path.iter().fold(rule, |value, key| &value[*key]);
    let word = value.as_str().unwrap_or_default();
    assert!(!word.is_empty(), "{path:?} is missing: {rule}");
    word
}

#[test]
fn alerts_name_metrics_labels_and_values_that_there_are() {
    let reference = Reference::read();
    let mut wrong = Vec::new();
    for rule in rules() {
        let query = word(&rule, &["expr"]);
        let found = reference.wrong(&promql::names(query));
        wrong.extend(found.into_iter().map(|what| format!("{what}: {query}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Labels that templates name.
fn named_labels(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("$labels.").skip(1);
    after.filter_map(|rest| {
        rest.split(|next: char| !next.is_ascii_alphanumeric() && next != '_')
            .next()
    })
}

#[test]
fn alerts_say_how_bad_it_is_what_it_is_and_what_to_do() {
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = word(&rule, &["alert"]).to_owned();
        assert!(names.insert(name.clone()), "{name} twice");
        assert!(name.starts_with("OtelAgent"), "{name}");
        let severity = word(&rule, &["labels", "severity"]);
        assert!(["critical", "warning"].contains(&severity), "{name}");
        let summary = word(&rule, &["annotations", "summary"]);
        let description = word(&rule, &["annotations", "description"]);
        assert!(summary.len() < 120 && summary.ends_with('.'), "{name}");
        assert!(
            description.len() < 450 && description.ends_with('.'),
            "{name}"
        );
        // Other labels than those that the query groups by are not there.
        let grouping = promql::names(word(&rule, &["expr"])).grouping;
        for label in named_labels(summary).chain(named_labels(description)) {
            assert!(grouping.contains(label), "{name}: {label}");
        }
        let url = word(&rule, &["annotations", "runbook_url"]);
        let expected = format!(
            "{}/blob/main/{RUNBOOKS}/{name}.md",
            env!("CARGO_PKG_REPOSITORY")
        );
        assert_eq!(url, expected);
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let entries = fs::read_dir(repository().join(RUNBOOKS)).unwrap();
    let files = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.collect();
    let rules = rules();
    let names: BTreeSet<String> = rules
        .iter()
        .map(|rule| format!("{}.md", word(rule, &["alert"])))
        .collect();
    assert_eq!(files, names);
    let overview = text(PAGE);
    for rule in &rules {
        let (name, severity) = (word(rule, &["alert"]), word(rule, &["labels", "severity"]));
        let row = format!("| [{name}](runbooks/{name}.md) | {severity} | ");
        assert!(overview.contains(&row), "{PAGE} has no row {row}");
        let page = text(&format!("{RUNBOOKS}/{name}.md"));
        let parts: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        let title = format!("# {name}");
        let expected = [
            title.as_str(),
            "## What it means",
            "## Who is affected",
            "## How to look",
            "## What to do",
        ];
        assert_eq!(parts, expected);
        assert!(page.contains(&format!("Severity: {severity},")), "{name}");
    }
}
