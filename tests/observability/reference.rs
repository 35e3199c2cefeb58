//! The metrics and labels of `docs/metrics.md`, which tests compare with the code and with running processes.

use std::collections::{BTreeMap, BTreeSet};

use otelagent_test_support::manifests::text;

use super::promql::{Names, Selector};
use super::{PAGE, part};

/// Labels that the documented scrape configuration adds to every series of an agent.
const OF_AGENTS: [&str; 4] = ["otelagent", "namespace", "pod", "node"];
/// The same of the operator and the webhook.
const OF_OPERATORS: [&str; 3] = ["otelagent", "namespace", "pod"];

/// Metrics that other programs have, with their labels.
const OF_OTHERS: [(&str, &[&str]); 2] = [
    (
        "kube_pod_container_status_restarts_total",
        &["namespace", "pod", "container", "uid"],
    ),
    ("ALERTS", &["alertname", "alertstate"]),
];

/// A label and its values; none if any text is one.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// What may be asked for.
pub(super) struct Reference(BTreeMap<String, Labels>);

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The rows of tables, each with its cells.
fn rows(part: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = part.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.trim_end_matches(" |").split(" | ").collect())
}

impl Reference {
    pub(super) fn read() -> Self {
        let page = text(PAGE);
        let mut all = agents(part(&page, "agent").1);
        for (name, labels) in operators(part(&page, "operator").1) {
            // One name of both: operator and agents say their version.
            let known: &mut Labels = all.entry(name).or_default();
            known.extend(labels);
        }
        for (name, labels) in OF_OTHERS {
            let labels = labels
                .iter()
                .map(|label| ((*label).to_owned(), BTreeSet::new()));
            all.insert(name.to_owned(), labels.collect());
        }
        assert!(all.len() > 90, "{} metrics", all.len());
        Self(all)
    }

    /// What is wrong with the names in a query.
    pub(super) fn wrong(&self, names: &Names) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut grouping = names.made.clone();
        for Selector { metric, matchers } in &names.selectors {
            let Some(labels) = self.0.get(metric) else {
                wrong.push(format!("there is no metric {metric}"));
                continue;
            };
            grouping.extend(labels.keys().cloned());
            for (label, values) in matchers {
                let Some(known) = labels.get(label) else {
                    wrong.push(format!("{metric} has no label {label}"));
                    continue;
                };
                let is_unknown = |value: &&String| {
                    !known.is_empty() && !value.is_empty() && !known.contains(*value)
                };
                let unknown = values.iter().filter(|value| !value.starts_with('$'));
                wrong.extend(
                    unknown
                        .filter(is_unknown)
                        .map(|value| format!("{label} of {metric} is never {value}")),
                );
            }
        }
        let unknown = names.grouping.difference(&grouping);
        wrong.extend(unknown.map(|label| format!("no metric of the query has the label {label}")));
        wrong
    }
}

fn with(labels: &[&str]) -> Labels {
    let labels = labels
        .iter()
        .map(|label| ((*label).to_owned(), BTreeSet::new()));
    labels.collect()
}

/// The metrics of agents as those of an `OtelAgent` write them.
fn agents(part: &str) -> BTreeMap<String, Labels> {
    let (metrics, labels) = part.split_once("\n\n").expect("two tables");
    // By metric and label; a label of many metrics has no list of values that is checked.
    let mut values: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for row in rows(labels) {
        let [label, of, listed] = row.as_slice() else {
            panic!("{row:?}");
        };
        let label = label.trim_end_matches('`');
        let listed = listed.split("<br>").filter(|value| value.contains("`: "));
        let listed: BTreeSet<String> = listed.filter_map(|value| quoted(value).next()).collect();
        for metric in quoted(of) {
            values.insert((metric, label.to_owned()), listed.clone());
        }
    }
    let mut all = BTreeMap::new();
    for row in rows(metrics) {
        let [name, _, kind, labels, _] = row.as_slice() else {
            panic!("{row:?}");
        };
        let name = name.trim_end_matches('`');
        let mut known = with(&OF_AGENTS);
        for label in quoted(labels) {
            let values = values.get(&(name.to_owned(), label.clone()));
            known.insert(label, values.cloned().unwrap_or_default());
        }
        let items = ["spans", "metric_points", "log_records", "profile_samples"];
        let items = if name.contains("<items>") {
            &items[..]
        } else {
            &items[..1]
        };
        for items in items {
            insert(&mut all, &name.replace("<items>", items), kind, &known);
        }
    }
    all
}

fn operators(part: &str) -> BTreeMap<String, Labels> {
    let mut all = BTreeMap::new();
    for row in rows(part) {
        let [name, kind, labels, _] = row.as_slice() else {
            panic!("{row:?}");
        };
        let mut known = with(&OF_OPERATORS);
        for label in labels.split("<br>").filter(|label| !label.is_empty()) {
            let mut words = quoted(label);
            let name = words.next().expect("a label has a name");
            // What has reasons of its own elsewhere, or a pattern, may have any value.
            let is_listed = label.contains(": `");
            let values = if is_listed {
                words.collect()
            } else {
                BTreeSet::new()
            };
            known.insert(name, values);
        }
        insert(&mut all, name.trim_end_matches('`'), kind, &known);
    }
    all
}

/// A metric with its series; a histogram has three.
fn insert(all: &mut BTreeMap<String, Labels>, name: &str, kind: &str, labels: &Labels) {
    if kind != "histogram" {
        all.insert(name.to_owned(), labels.clone());
        return;
    }
    for part in ["_sum", "_count", "_bucket"] {
        let mut labels = labels.clone();
        if part == "_bucket" {
            labels.insert("le".to_owned(), BTreeSet::new());
        }
        all.insert(format!("{name}{part}"), labels);
    }
}
