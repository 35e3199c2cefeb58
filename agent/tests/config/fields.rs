//! The table of fields against the reader, and against the documentation made of it.

use std::path::Path;

use otelagent_agent::config::fields::{Field, Treatment, fields, matches, reference};
use otelagent_agent::config::{self, Protocol};
use otlp_wire::Signal;
use serde_json::Value;

const FULL: &str = include_str!("full.yaml");

fn tree() -> Value {
    serde_saphyr::from_str(FULL).unwrap()
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
            .filter(|(key, _)| matches(name.trim_end_matches("[]"), key.split('/').next().unwrap()))
            .map(|(_, value)| value)
            .collect(),
        _ => Vec::new(),
    };
    let children = children.into_iter().map(|child| {
        if name.ends_with("[]") {
            &mut child[0]
        } else {
            child
        }
    });
    children.flat_map(|child| parents(child, rest)).collect()
}

/// The full document with one field set, for every component that may have it.
fn with(field: &Field, value: &Value) -> Vec<String> {
    let path: Vec<_> = field.path.split('.').collect();
    let key = *path.last().unwrap();
    let count = parents(&mut tree(), &path).len();
    assert!(count > 0, "no place for {} in full.yaml", field.path);
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

fn of(treatment: &str) -> Vec<&'static Field> {
    let name = |field: &Field| match field.treatment {
        Treatment::Taken => "taken",
        Treatment::Ignored => "ignored",
        Treatment::Only(_) => "only",
        Treatment::Refused => "refused",
    };
    fields().filter(|field| name(field) == treatment).collect()
}

#[test]
fn a_file_with_every_field_is_taken() {
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
fn every_field_the_reader_asks_for_is_in_the_table() {
    for (shape, _) in config::asked(FULL) {
        let depth = shape.split('.').count();
        let known = fields().any(|field| {
            let names: Vec<_> = field.path.split('.').collect();
            match names.get(..depth) {
                Some(beginning) if names.len() > depth => {
                    matches(&beginning.join(".").replace("[]", ""), &shape)
                        || matches(&beginning.join("."), &shape)
                }
                _ => field.treatment == Treatment::Taken && matches(field.path, &shape),
            }
        });
        assert!(known, "no row says that `{shape}` is taken: config/fields");
    }
}

#[test]
fn every_field_the_table_says_is_taken_is_read() {
    let asked = config::asked(FULL);
    for field in of("taken") {
        let read = asked
            .iter()
            .any(|(shape, there)| *there && matches(field.path, shape));
        assert!(
            read,
            "{} is not read, or not in tests/config/full.yaml",
            field.path
        );
    }
}

#[test]
fn every_field_the_table_says_is_ignored_is_in_the_full_file() {
    for field in of("ignored").into_iter().chain(of("only")) {
        let path: Vec<_> = field.path.split('.').collect();
        let key = *path.last().unwrap();
        let mut tree = tree();
        let there = parents(&mut tree, &path)
            .into_iter()
            .any(|parent| parent.get(key).is_some());
        assert!(there, "{} is not in tests/config/full.yaml", field.path);
    }
}

#[test]
fn what_the_table_refuses_is_refused_with_its_reason() {
    for field in of("refused") {
        for yaml in with(field, &Value::Bool(true)) {
            let problems = config::check(&yaml).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].message, field.meaning);
        }
    }
    for field in of("only") {
        for yaml in with(field, &Value::String("something else".into())) {
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
fn the_documentation_holds_the_reference_as_the_code_has_it() {
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
