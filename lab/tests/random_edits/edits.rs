//! Edits of a spec, generated from its schema: for each field the values at and beyond every bound, and those that its
//! meaning suggests.
//!
//! An edit is data, so a test can print, repeat and shorten a sequence. Knows no cluster.

use serde_json::{Map, Value, json};

use super::schema::{Field, Path, Step, at};

/// One change of one field.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edit {
    /// The mode that is set with it, if any: every pair of mode and field is worth trying.
    pub(super) mode: Option<&'static str>,
    pub(super) path: Path,
    /// The new value; none removes the field.
    pub(super) value: Option<Value>,
}

impl std::fmt::Display for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(mode) = self.mode {
            write!(f, "mode = {mode}, ")?;
        }
        match &self.value {
            Some(value) => {
                let text = value.to_string();
                let head: String = text.chars().take(160).collect();
                let more = if head.len() < text.len() { "..." } else { "" };
                write!(f, "{} = {head}{more}", self.path)
            }
            None => write!(f, "{} removed", self.path),
        }
    }
}

/// Every mode, as users write it.
pub(super) const MODES: [&str; 4] = ["Sidecar", "HostPort", "HostNetwork", "NodeLocal"];

/// Values for a field, good and bad; `None` removes it.
pub(super) fn values(field: &Field) -> Vec<Option<Value>> {
    let schema = &field.schema;
    let mut values = vec![Value::Null];
    values.extend(schema.get("default").cloned());
    values.extend(schema["enum"].as_array().cloned().unwrap_or_default());
    match schema["type"].as_str() {
        Some("string") => values.extend(strings(field)),
        Some("integer") => values.extend(integers(schema)),
        Some("boolean") => values.extend([json!(true), json!(false), json!("true"), json!(1)]),
        Some("array") => values.extend(lists(schema)),
        Some("object") => values.extend(objects(field)),
        _ => values.extend(int_or_strings()),
    }
    let wrong_types = [
        json!(7),
        json!("text"),
        json!(true),
        json!([]),
        json!({}),
        json!(1.5),
    ];
    values.extend(wrong_types);
    let mut distinct: Vec<Option<Value>> = vec![None];
    for value in values.into_iter().map(Some) {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// A string at every bound, and what its pattern, its rule or its name says it means.
fn strings(field: &Field) -> Vec<Value> {
    let schema = &field.schema;
    let mut texts: Vec<String> = [
        "",
        " ",
        "a",
        "ä ö\u{2028}",
        "$(X)${env:Y}",
        "a/b",
        "-",
        "..",
        ".",
        "\u{1F600}",
        "a\nb",
    ]
    .map(Into::into)
    .to_vec();
    let longest = schema["maxLength"].as_u64().unwrap_or(253);
    for length in [63, 64, 253, 254, longest, longest + 1] {
        texts.push("x".repeat(usize::try_from(length).unwrap()));
    }
    let rules = schema["x-kubernetes-validations"].to_string();
    if rules.contains("duration(") {
        texts.extend(words(
            "0s 9ms 10ms 250ms 1m30s 24h 24h1ms 1h1h 99999999999999h 1.5s -1s 5 5d s 0ms",
        ));
    }
    if rules.contains("quantity(") {
        texts.extend(words(
            "0 1 64Ki 65535 65536 63Ki 16Mi 15Mi 96Mi 100M 123456k 1000000 1Gi 1024Gi 1025Gi 1Ti 1G 64MB -64Mi 1e9 00064Mi 9999999999999999",
        ));
    }
    if field.path.name() == "cpu" {
        texts.extend(words("0 1m 50m 0.5 2 1000m 1000 0.0001 1.5m 0.12345 99999999999999m 9999999999999999 .5 -1 1e3"));
    }
    if rules.contains("http") {
        texts.extend(words(
            "http://c.o.svc:4317 https://c.o.svc:4317 http://c:4318/v1 http://c ftp://c:1 http://c:0 http://c:99999 \
             http://[::1]:4317 http://u@c:1 https://ü:4317 http://c:4317/ HTTP://c:1 http://:1 http://a:b:1",
        ));
    }
    match field.path.name() {
        "mode" => texts.extend(words(
            "Sidecar HostPort HostNetwork NodeLocal NodePort nodelocal",
        )),
        "image" => texts.extend(words(
            "otel/collector:1 UPPER:1 a:b:c a@sha256:x registry:5000/x/y:1",
        )),
        "effect" => texts.extend(words("NoSchedule PreferNoSchedule NoExecute noschedule")),
        "operator" => texts.extend(words("Exists Equal In NotIn DoesNotExist Lt exists")),
        "key" => texts.extend(words(
            "app example.com/role ca.crt ..data a/b/c -a Example.com/x /x",
        )),
        "name" => texts.extend(words(
            "creds x-tenant authorization Upper a_b content-type te host",
        )),
        "values" | "value" | "matchLabels" | "nodeSelector" => {
            texts.extend(words("v -v a.b_c true"));
        }
        "priorityClassName" => texts.extend(words("system-node-critical no-such-class Bad_Name")),
        _ => {}
    }
    texts.into_iter().map(Value::String).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}

fn integers(schema: &Value) -> Vec<Value> {
    let bound = |key: &str| {
        schema[key]
            .as_f64()
            .map(|bound| json!(bound.round()).as_f64().unwrap())
    };
    #[allow(clippy::cast_possible_truncation, reason = "bounds are small")]
    let around = |bound: f64| [bound as i64 - 1, bound as i64, bound as i64 + 1];
    let bounds = [bound("minimum"), bound("maximum")];
    let mut numbers: Vec<i64> = bounds.into_iter().flatten().flat_map(around).collect();
    numbers.extend([
        -1,
        0,
        1,
        4317,
        4318,
        5317,
        8888,
        13133,
        65536,
        1 << 31,
        1 << 32,
    ]);
    let mut values: Vec<Value> = numbers.into_iter().map(Value::from).collect();
    values.push(json!(1e30));
    values
}

fn int_or_strings() -> Vec<Value> {
    let numbers = [-1_i64, 0, 1, 2, 100, 1 << 31, 1 << 40].map(Value::from);
    let texts = [
        "0", "1", "0%", "00%", "1%", "30%", "100%", "101%", "-1%", "1.5%", "%", "", "some",
    ]
    .map(Value::from);
    numbers.into_iter().chain(texts).collect()
}

/// A list that is empty, has one item twice, as many as it may, and one more.
fn lists(schema: &Value) -> Vec<Value> {
    let item = sample(&schema["items"]);
    let longest = usize::try_from(schema["maxItems"].as_u64().unwrap_or(16)).unwrap();
    let numbered = |count: usize| -> Value {
        let name = |index: usize| {
            let mut item = item.clone();
            for key in ["name", "key"] {
                if item.get(key).is_some() {
                    item[key] = json!(format!("n{index}"));
                }
            }
            if item.is_string() {
                json!(format!("n{index}"))
            } else {
                item
            }
        };
        (0..count).map(name).collect()
    };
    vec![
        json!([]),
        json!([item.clone(), item.clone()]),
        json!([item]),
        numbered(2),
        numbered(longest),
        numbered(longest + 1),
    ]
}

fn objects(field: &Field) -> Vec<Value> {
    let schema = &field.schema;
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return overlays();
    }
    if !schema["additionalProperties"].is_object() {
        return vec![json!({}), sample(schema), json!({"unknown": 1})];
    }
    let most = schema["maxProperties"].as_u64().unwrap_or(16);
    let many = |count: u64| -> Value {
        let entries = (0..count).map(|index| (format!("k{index}"), json!("v")));
        Value::Object(entries.collect())
    };
    let long = "k".repeat(257);
    vec![
        json!({}),
        json!({"a": "b"}),
        json!({"example.com/a": "b", "c": ""}),
        json!({"": "v"}),
        json!({"a b": "v"}),
        json!({"-": "v"}),
        json!({"ä": "v"}),
        json!({"a/b/c": "v"}),
        json!({long: "v"}),
        json!({"a": null}),
        json!({"a": 1}),
        json!({"kubernetes.io/metadata.name": "shop"}),
        json!({"kubernetes.io/hostname": "sim-1"}),
        many(most),
        many(most + 1),
    ]
}

/// Collector configuration that the bundled agent takes, and some that it does not.
fn overlays() -> Vec<Value> {
    vec![
        json!({}),
        json!({"service": {"telemetry": {"logs": {"level": "debug"}}}}),
        json!({"exporters": {"otlp_grpc": {"timeout": "3s"}}}),
        json!({"exporters": {"kafka": {}}}),
        json!({"service": {"pipelines": null}}),
        json!({"service": "none"}),
        json!({"receivers": null, "exporters": 5}),
        json!({"processors": {"memory_limiter": {"limit_mib": 1}}}),
        json!({"processors": {"x": "y".repeat(120_000)}}),
        json!({"service": {"telemetry": {"resource": {"padding": "y".repeat(300_000)}}}}),
        json!({"extensions": {"file_storage": {"max_size": u64::MAX}}}),
        json!({"a": {"b": [1, {"c": null}, 1e300, "\u{FEFF}"]}}),
    ]
}

/// The least that a schema takes: what it requires, no more. Rules over several fields are not heeded.
pub(super) fn sample(schema: &Value) -> Value {
    if let Some(value) = schema.get("default").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    let rules = schema["x-kubernetes-validations"].to_string();
    let pattern = schema["pattern"].as_str().unwrap_or_default();
    match schema["type"].as_str() {
        Some("string") if rules.contains("duration(") => json!("1s"),
        Some("string") if rules.contains("quantity(") => json!("64Mi"),
        Some("string") if rules.contains("http") => json!("http://c.o.svc:4317"),
        Some("string") if pattern.contains("{1,9}m") => json!("100m"),
        Some("string") => json!("sample"),
        Some("integer") => json!(schema["minimum"].as_f64().map_or(1, |least| {
            #[allow(clippy::cast_possible_truncation, reason = "bounds are small")]
            let least = least as i64;
            least
        })),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let fields = required.iter().filter_map(Value::as_str);
            Value::Object(
                fields
                    .map(|name| (name.to_owned(), sample(&schema["properties"][name])))
                    .collect(),
            )
        }
        _ => json!(1),
    }
}

/// The spec with an edit made. The parents of the field are added with what they require.
pub(super) fn apply(schema: &Value, spec: &Value, edit: &Edit) -> Value {
    let mut edited = spec.clone();
    if let Some(mode) = edit.mode {
        edited["mode"] = json!(mode);
    }
    set(schema, &mut edited, &edit.path.0, &[], edit.value.as_ref());
    edited
}

fn set(root: &Value, here: &mut Value, rest: &[Step], visited: &[Step], value: Option<&Value>) {
    let Some((step, rest)) = rest.split_first() else {
        return;
    };
    let visited: Vec<Step> = visited.iter().cloned().chain([step.clone()]).collect();
    let fresh = || sample(at(root, &visited));
    let is_last = rest.is_empty();
    match step {
        Step::Item => {
            if !here.is_array() {
                *here = json!([]);
            }
            let Some(items) = here.as_array_mut() else {
                return;
            };
            if is_last {
                match (value, items.is_empty()) {
                    (Some(value), true) => items.push(value.clone()),
                    (Some(value), false) => items[0] = value.clone(),
                    (None, false) => drop(items.remove(0)),
                    (None, true) => {}
                }
                return;
            }
            if items.is_empty() {
                items.push(fresh());
            }
            set(root, &mut items[0], rest, &visited, value);
        }
        Step::Key(_) | Step::Entry => {
            if !here.is_object() {
                *here = Value::Object(Map::new());
            }
            let Some(fields) = here.as_object_mut() else {
                return;
            };
            let key = match step {
                Step::Key(key) => key.clone(),
                _ => fields
                    .keys()
                    .next()
                    .cloned()
                    .unwrap_or_else(|| "entry".into()),
            };
            match (is_last, value) {
                (true, Some(value)) => drop(fields.insert(key, value.clone())),
                (true, None) => drop(fields.remove(&key)),
                (false, _) => set(
                    root,
                    fields.entry(key).or_insert_with(fresh),
                    rest,
                    &visited,
                    value,
                ),
            }
        }
    }
}
