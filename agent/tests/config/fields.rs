//! The schema against the reader, and against the documentation printed from it.

use std::path::Path;
use std::sync::LazyLock;

use otelagent_agent::config::schema::{Row, Rule, ValueKind, reference, rows};
use otelagent_agent::config::{self, Config, Problem, Protocol};
use otlp_wire::Signal;
use serde_json::{Value, json};

const FULL: &str = include_str!("full.yaml");

fn tree() -> Value {
    static TREE: LazyLock<Value> = LazyLock::new(|| serde_saphyr::from_str(FULL).unwrap());
    TREE.clone()
}

/// Whether a name of the schema stands for the name of a component or setting.
fn covers(pattern: &str, name: &str) -> bool {
    let name = name.split('/').next().unwrap();
    match pattern.split_once('*') {
        Some((start, end)) => name.starts_with(start) && name.ends_with(end),
        None => name == pattern,
    }
}

/// The mapping a row's last name belongs into, one for each component the row is about.
fn parents<'v>(tree: &'v mut Value, path: &[&str]) -> Vec<&'v mut Value> {
    let [name, rest @ ..] = path else {
        return Vec::new();
    };
    if rest.is_empty() {
        return vec![tree];
    }
    let children: Vec<&mut Value> = match tree {
        Value::Object(entries) => entries
            .iter_mut()
            .filter(|(key, _)| covers(name.trim_end_matches("[]"), key))
            .map(|(_, value)| value)
            .collect(),
        _ => Vec::new(),
    };
    let children = children.into_iter().flat_map(|child| {
        if name.ends_with("[]") {
            child.as_array_mut().unwrap().iter_mut().collect()
        } else {
            vec![child]
        }
    });
    children.flat_map(|child| parents(child, rest)).collect()
}

/// The full document with one setting, for every component that may have it.
fn with(row: &Row, value: &Value) -> Vec<String> {
    let path: Vec<_> = row.path.split('.').collect();
    let key = *path.last().unwrap();
    let count = parents(&mut tree(), &path).len();
    assert!(count > 0, "no place for {} in full.yaml", row.path);
    (0..count)
        .map(|number| {
            let mut tree = tree();
            let parent = parents(&mut tree, &path).remove(number);
            if parent.is_null() {
                *parent = Value::Object(serde_json::Map::new());
            }
            parent[key] = value.clone();
            tree.to_string()
        })
        .collect()
}

/// Whether full.yaml sets it, for any component.
fn is_set(row: &Row) -> bool {
    let path: Vec<_> = row.path.split('.').collect();
    let key = *path.last().unwrap();
    let mut tree = tree();
    let parents = parents(&mut tree, &path);
    parents.into_iter().any(|parent| parent.get(key).is_some())
}

fn rows_where(rule: impl Fn(&Rule) -> bool) -> Vec<Row> {
    let rows = rows().into_iter();
    rows.filter(|row| rule(&row.setting.rule)).collect()
}

fn value_rows() -> Vec<(Row, ValueKind)> {
    let kind = |row: Row| match row.setting.rule {
        Rule::Value(kind) => Some((row, kind)),
        _ => None,
    };
    rows().into_iter().filter_map(kind).collect()
}

#[test]
fn file_with_every_field_is_accepted() {
    let config = config::check(FULL).unwrap();
    let receiver = &config.receiver;
    let custom = |path: &str, signal| (path.to_owned(), signal);
    assert_eq!(
        receiver.url_paths,
        [
            custom("/custom/traces", Signal::Traces),
            custom("/custom/logs", Signal::Logs)
        ]
    );
    assert_eq!(receiver.connections.idle_http2.as_secs(), 11);
    assert_eq!(receiver.connections.idle_http1.as_secs(), 90);
    assert_eq!(receiver.connections.max_age.as_secs(), 600);
    let [http, grpc, debug] = config.exporters.as_slice() else {
        panic!("{:?}", config.exporters);
    };
    assert_eq!(http.name(), "otlp_http/b.c (traces)");
    assert_eq!(
        (http.endpoint.to_string(), http.base_path.as_str()),
        ("traces:1234".to_owned(), "/in/"),
        "an endpoint of one signal is used as it stands"
    );
    assert_eq!(grpc.authority.as_deref(), Some("collector.example"));
    assert_eq!(debug.protocol, Protocol::Debug);
    assert_eq!(
        config.warnings,
        [
            "extensions.zpages: is ignored: this agent has nothing of the kind to show",
            "extensions.pprof: is ignored: this agent has nothing of the kind to show"
        ]
    );
}

#[test]
fn path_that_belongs_to_no_signal_can_be_given_to_one() {
    let yaml = FULL.replace("/custom/traces", "/v1/profiles");
    let paths = config::check(&yaml).unwrap().receiver.url_paths;
    assert_eq!(paths[0], ("/v1/profiles".to_owned(), Signal::Traces));
}

/// A document with one exporter.
fn exporting(exporter: &str, signal: &str) -> String {
    format!(
        "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\n\
         exporters: {{{exporter}}}\n\
         service: {{pipelines: {{{signal}: {{receivers: [otlp], exporters: [{}]}}}}}}",
        exporter.split(':').next().unwrap()
    )
}

#[test]
fn likely_mistakes_of_an_endpoint_are_warned_of() {
    for (exporter, expected) in [
        (
            "otlp_grpc: {endpoint: 'http://c:4318'}",
            Some("port 4318 is most often that of OTLP/HTTP"),
        ),
        ("otlp_grpc: {endpoint: 'http://c:4317'}", None),
        (
            "otlp_http: {endpoint: 'http://c:4317'}",
            Some("port 4317 is most often that of OTLP/gRPC"),
        ),
        ("otlp_http: {endpoint: 'http://c:4318'}", None),
        (
            "otlp_http: {endpoint: 'http://c:4318', failover: {endpoints: ['http://d:4317']}}",
            Some("failover.endpoints[0]: port 4317"),
        ),
        (
            "otlp_http: {traces_endpoint: 'http://c:4318'}",
            Some("used as it is, without `/v1/traces`"),
        ),
        (
            "otlp_http: {traces_endpoint: 'http://c:4318/v1/traces'}",
            None,
        ),
        ("otlp_http: {endpoint: '${env:URL}'}", None),
    ] {
        let warnings = config::check(&exporting(exporter, "traces"))
            .unwrap()
            .warnings;
        match expected {
            Some(words) => assert!(
                warnings.len() == 1 && warnings[0].contains(words),
                "{warnings:?}"
            ),
            None => assert!(warnings.is_empty(), "{warnings:?}"),
        }
    }
}

#[test]
fn path_of_a_signal_does_not_belong_into_the_endpoint() {
    for (endpoint, words) in [
        (
            "http://c:4318/v1/traces",
            "`/v1/traces` is appended to it; write http://c:4318, or traces_endpoint: http://c:4318/v1/traces",
        ),
        (
            "https://c/otlp/v1/metrics/",
            "write https://c/otlp, or metrics_endpoint: https://c/otlp/v1/metrics",
        ),
        (
            "http://c/v1development/profiles",
            "write http://c, or profiles_endpoint:",
        ),
    ] {
        let exporter = format!("otlp_http: {{endpoint: '{endpoint}'}}");
        let problems = config::check(&exporting(&exporter, "traces")).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].message.contains(words), "{}", problems[0]);
    }
}

/// What a value can be changed to; none for a word without an alternative.
fn alternatives(kind: ValueKind) -> Vec<Value> {
    match kind {
        ValueKind::Flag => vec![true.into(), false.into()],
        ValueKind::Duration => vec!["7s".into()],
        ValueKind::Whole(low, ..) => vec![(low + 7).into()],
        ValueKind::Number(low, _) => vec![(low + 0.25).into()],
        ValueKind::Word(&[_]) => Vec::new(),
        ValueKind::Word(words) => words.iter().map(|word| (*word).into()).collect(),
        ValueKind::Text(_) | ValueKind::NonEmpty(_) => {
            vec![
                "/other".into(),
                "0700".into(),
                "https://other:1".into(),
                "other:1".into(),
            ]
        }
        ValueKind::Scalar => vec!["other".into()],
        ValueKind::Ids(_) | ValueKind::Texts(_) => vec![json!([]), json!(["stdout"])],
        ValueKind::Strings => vec![json!({"x-other": "b"})],
    }
}

#[test]
fn every_accepted_setting_changes_the_configuration() {
    let full: Result<Config, Vec<Problem>> = config::check(FULL);
    for (row, kind) in value_rows() {
        assert!(is_set(&row), "{} is not in full.yaml", row.path);
        let alternatives = alternatives(kind);
        let mut documents = alternatives.iter().flat_map(|value| with(&row, value));
        let matters = documents.any(|yaml| config::check(&yaml) != full);
        assert!(
            matters || alternatives.is_empty(),
            "{} is not read",
            row.path
        );
    }
}

#[test]
fn every_default_is_valid_and_equals_leaving_it_out() {
    for (row, kind) in value_rows() {
        let default = row.setting.default;
        if default.is_empty() || !row.setting.default_in_words.is_empty() {
            continue;
        }
        let value = match kind {
            ValueKind::Duration
            | ValueKind::Word(_)
            | ValueKind::Text(_)
            | ValueKind::NonEmpty(_) => default.into(),
            _ => serde_json::from_str(&default.replace("[stderr]", "[\"stderr\"]")).unwrap(),
        };
        let absent = with(&row, &Value::Null);
        let mut documents = with(&row, &value).into_iter().zip(absent);
        let same =
            documents.any(|(written, absent)| config::check(&written) == config::check(&absent));
        assert!(same, "{}", row.path);
    }
}

#[test]
fn every_value_of_another_type_is_refused_where_it_stands() {
    for (row, kind) in value_rows() {
        for yaml in with(&row, &json!({"a": [1]})) {
            let problems = config::check(&yaml).unwrap_err();
            let name = row.path.rsplit('.').next().unwrap();
            let at_fault = |problem: &Problem| problem.path.contains(name);
            assert!(
                problems.iter().any(at_fault),
                "{} {kind:?}: {problems:?}",
                row.path
            );
        }
    }
}

#[test]
fn every_ignored_setting_is_in_the_full_file() {
    for row in rows_where(|rule| matches!(rule, Rule::Ignored | Rule::Only(_))) {
        assert!(is_set(&row), "{} is not in full.yaml", row.path);
    }
}

#[test]
fn refusals_of_the_table_give_their_reason() {
    for row in rows_where(|rule| matches!(rule, Rule::Refused)) {
        for yaml in with(&row, &Value::Bool(true)) {
            let problems = config::check(&yaml).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].message, row.setting.meaning);
        }
    }
    for row in rows_where(|rule| matches!(rule, Rule::Only(_))) {
        for yaml in with(&row, &Value::String("something else".into())) {
            let problems = config::check(&yaml).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(
                problems[0].message.starts_with("only `"),
                "{}",
                problems[0].message
            );
        }
    }
}

#[test]
fn documentation_holds_the_reference_as_the_code_has_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (begin, end) = ("<!-- reference: begin -->\n", "\n<!-- reference: end -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (written, after) = rest.split_once(end).unwrap();
    let reference = reference();
    if std::env::var_os("OTELAGENT_WRITE_REFERENCE").is_some() {
        let text = format!("{before}{begin}{reference}{end}{after}");
        std::fs::write(&file, text).unwrap();
        return;
    }
    assert!(
        written == reference,
        "docs/agent.md is not up to date: run `make reference`"
    );
}
