//! The files of the chart, and what they ask Prometheus for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::promql;

pub(crate) const RULES: &str = "charts/otelagent/files/rules.yaml";
pub(super) const DASHBOARD: &str = "charts/otelagent/files/dashboard.json";

pub(super) fn path(file: &str) -> PathBuf {
    demo::repository().join(file)
}

pub(crate) fn text(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap()
}

/// A query of the dashboard.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// The title of its panel.
    pub(crate) panel: String,
    /// With variables.
    pub(crate) expr: String,
}

impl Query {
    /// As Grafana sends it with everything selected, and with this range.
    pub(crate) fn with(&self, range: &str) -> String {
        let expr = self.expr.replace("$__rate_interval", range);
        let expr = expr.replace("$__range", range);
        // What selects all OtelAgents selects nothing without the label.
        let expr = expr.replace("$otelagent", ".+").replace("$node", ".*");
        assert!(!expr.contains('$'), "{expr}");
        expr
    }
}

/// All queries of panels.
pub(crate) fn queries() -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(Query {
                panel: panel["title"].as_str().unwrap().to_owned(),
                expr: target["expr"].as_str().unwrap().to_owned(),
            });
        }
    }
    assert!(queries.len() > 50, "{} queries", queries.len());
    queries
}

/// The rules.
pub(crate) fn rules() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&text(RULES)).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

/// Every metric that dashboard and alerts name, each with the labels that are compared.
pub(crate) fn selectors() -> Vec<(String, BTreeSet<String>)> {
    let rules = rules();
    let of_rules = rules.iter().map(|rule| rule["expr"].as_str().unwrap());
    let queries = queries();
    let all = queries.iter().map(|query| query.expr.as_str());
    let selectors = all
        .chain(of_rules)
        .flat_map(|query| promql::names(query).selectors);
    selectors
        .map(|selector| {
            let labels = selector.matchers.into_iter();
            (selector.metric, labels.map(|(label, _)| label).collect())
        })
        .collect()
}

/// The documented scrape configuration.
pub(crate) fn scrape_configuration() -> String {
    let page = text("docs/metrics.md");
    let blocks = page.split("\n```");
    let mut found = blocks.filter_map(|block| block.strip_prefix("yaml\n"));
    let found = found.find(|block| block.starts_with("scrape_configs:"));
    found
        .expect("docs/metrics.md has a scrape configuration")
        .to_owned()
}

/// A file of a test, removed with it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("observe-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
