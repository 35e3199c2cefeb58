//! The dashboard: that Grafana can read it, and that it asks for what is there.

use std::collections::BTreeSet;

use otelagent_test_support::manifests::text;
use serde_json::Value;

use super::promql;
use super::reference::Reference;

/// The width of a dashboard.
const COLUMNS: u64 = 24;

fn dashboard() -> Value {
    serde_json::from_str(&text("charts/otelagent/files/dashboard.json")).unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Panels that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = array(&dashboard["panels"]).iter();
    let panels: Vec<_> = panels.filter(|panel| panel["type"] != "row").collect();
    assert!(panels.len() > 30, "{} panels", panels.len());
    panels
}

fn word<'v>(value: &'v Value, of: &Value) -> &'v str {
    let word = value.as_str().unwrap_or_default();
    assert!(!word.is_empty(), "something is missing: {of}");
    word
}

/// What panels, variables and annotations ask for.
fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = panels(dashboard).into_iter();
    let targets = panels.flat_map(|panel| array(&panel["targets"]));
    let annotations = array(&dashboard["annotations"]["list"]).iter();
    let asked = targets.chain(annotations);
    asked.map(|of| word(&of["expr"], of)).collect()
}

#[test]
fn panels_are_complete_and_have_ids_and_titles_of_their_own() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39));
    word(&dashboard["uid"], &dashboard["uid"]);
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for panel in array(&dashboard["panels"]) {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        let title = word(&panel["title"], panel);
        let kind = word(&panel["type"], panel);
        assert!(titles.insert((kind == "row", title)), "{title} twice");
    }
    for panel in panels(&dashboard) {
        word(&panel["description"], panel);
        word(&panel["fieldConfig"]["defaults"]["unit"], panel);
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        let mut references = BTreeSet::new();
        for target in array(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel}");
            assert!(references.insert(word(&target["refId"], panel)), "{panel}");
        }
        assert!(!references.is_empty(), "{panel}");
    }
}

#[test]
fn panels_do_not_overlap_and_leave_no_hole() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    for panel in array(&dashboard["panels"]) {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a position");
        let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
        assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{}", panel["gridPos"]);
        for cell in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (y, x))) {
            assert!(taken.insert(cell), "{} overlaps", panel["title"]);
        }
    }
    let rows = taken.last().expect("a panel").0 + 1;
    assert_eq!(taken.len() as u64, rows * COLUMNS);
}

#[test]
fn queries_name_metrics_labels_and_values_that_there_are() {
    let (dashboard, reference) = (dashboard(), Reference::read());
    let mut wrong = Vec::new();
    let queries = queries(&dashboard);
    for query in &queries {
        let found = reference.wrong(&promql::names(query));
        wrong.extend(found.into_iter().map(|what| format!("{what}: {query}")));
    }
    assert!(queries.len() > 50, "{} queries", queries.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn variables_are_used_and_defined() {
    let dashboard = dashboard();
    let variables = array(&dashboard["templating"]["list"]);
    let defined: BTreeSet<&str> = variables
        .iter()
        .map(|variable| word(&variable["name"], variable))
        .collect();
    let all = dashboard.to_string();
    let after = all.split('$').skip(1);
    let used: BTreeSet<String> = after
        .map(|rest| {
            let name = rest.trim_start_matches('{').chars();
            name.take_while(|next| next.is_ascii_alphanumeric() || *next == '_')
                .collect()
        })
        .collect();
    let own = ["__rate_interval", "__range", "__all"];
    let expected: BTreeSet<String> = defined
        .iter()
        .chain(&own)
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(used, expected);
}

#[test]
fn variables_ask_for_metrics_and_labels_that_there_are() {
    let (dashboard, reference) = (dashboard(), Reference::read());
    let mut asked = 0;
    for variable in array(&dashboard["templating"]["list"]) {
        let Some(query) = variable["query"]["query"].as_str() else {
            continue;
        };
        let inside = query.strip_prefix("label_values(").expect(query);
        let (selector, label) = inside.trim_end_matches(')').rsplit_once(", ").expect(query);
        // A name in a matcher stands for each of these metrics.
        let named = selector.strip_prefix("{__name__=~\"");
        let selectors: Vec<String> = match named.and_then(|rest| rest.split_once("\", ")) {
            Some((metrics, rest)) => {
                let metrics = metrics.split('|');
                metrics.map(|metric| format!("{metric}{{{rest}")).collect()
            }
            None => vec![selector.to_owned()],
        };
        for selector in selectors {
            let query = format!("count by ({label}) ({selector})");
            assert_eq!(
                reference.wrong(&promql::names(&query)),
                Vec::<String>::new()
            );
            asked += 1;
        }
    }
    assert!(asked > 3, "{asked}");
}
