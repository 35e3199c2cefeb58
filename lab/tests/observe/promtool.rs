//! Rules, queries and the scrape configuration by promtool, which comes with Prometheus.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testbed::parts::{self, Part};

use super::files::{self, Query, Scratch};

const TESTS: &str = "lab/tests/observe/rules.test.yaml";

fn promtool(words: &[&str], file: &Path) -> String {
    let program = parts::ensure(Part::Promtool).expect("promtool");
    let output = Command::new(program)
        .args(words)
        .arg(file)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {words:?}: {said}");
    said
}

#[test]
fn promtool_accepts_the_rules() {
    let said = promtool(
        &["check", "rules", "--lint-fatal"],
        &files::path(files::RULES),
    );
    let count = files::rules().len();
    assert!(
        said.contains(&format!("SUCCESS: {count} rules found")),
        "{said}"
    );
}

/// Each query is made a rule, which is how promtool reads queries.
#[test]
fn promtool_accepts_every_query_of_the_dashboard() {
    let queries = files::queries();
    let rule = |(number, query): (usize, &Query)| {
        let name = format!("dashboard:query_{number}");
        json!({"record": name, "expr": query.with("5m")})
    };
    let rules: Vec<Value> = queries.iter().enumerate().map(rule).collect();
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let file = Scratch::new("queries.yaml", &groups.to_string());
    let said = promtool(&["check", "rules"], file.path());
    let count = queries.len();
    assert!(
        said.contains(&format!("SUCCESS: {count} rules found")),
        "{said}"
    );
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    promtool(&["test", "rules"], &files::path(TESTS));
}

/// Without this, an alert could be added that no test makes fire.
#[test]
fn every_alert_fires_in_a_test_and_is_silent_before() {
    let tests: Value = serde_saphyr::from_str(&files::text(TESTS)).unwrap();
    let mut fires = BTreeSet::new();
    for test in tests["tests"].as_array().unwrap() {
        let asked = test["promql_expr_test"].as_array().unwrap();
        let labels = |samples: &Value| {
            let samples = samples["exp_samples"].as_array().unwrap().iter();
            samples
                .map(|sample| sample["labels"].as_str().unwrap().to_owned())
                .collect::<BTreeSet<String>>()
        };
        // What fires at one time and not at another one, earlier or later.
        let at: Vec<BTreeSet<String>> = asked.iter().map(labels).collect();
        let all: BTreeSet<String> = at.iter().flatten().cloned().collect();
        let ever = all.into_iter();
        fires.extend(ever.filter(|alert| at.iter().any(|firing| !firing.contains(alert))));
    }
    let rules = files::rules();
    let expected: BTreeSet<String> = rules
        .iter()
        .map(|rule| format!("{{alertname=\"{}\"}}", rule["alert"].as_str().unwrap()))
        .collect();
    assert_eq!(fires, expected);
}
