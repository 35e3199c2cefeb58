//! Whether an API server must accept a spec, stated a second time and by hand, so that a wrong rule in the CRD shows
//! as a difference.
//!
//! Shapes and bounds come from the schema. What a pattern or a rule means is written here, without CEL or regular
//! expressions. A rule without its line here fails the tests.

use std::collections::BTreeSet;

use serde_json::Value;

/// Why a spec is refused, one line each; none where it must be taken. `old` is the present spec.
pub(super) fn refusals(schema: &Value, old: Option<&Value>, spec: &Value) -> Vec<String> {
    let (mut spec, mut old) = (spec.clone(), old.cloned());
    fill(schema, &mut spec);
    if let Some(old) = &mut old {
        fill(schema, old);
    }
    let mut found = Vec::new();
    check(schema, old.as_ref(), &spec, "spec", &mut found);
    found
}

/// Nulls that may not be null are dropped, then defaults are filled in (kubernetes.io, "Defaulting and
/// Nullable").
fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let properties = schema["properties"].as_object();
            for (name, inner) in properties.into_iter().flatten() {
                if fields.get(name) == Some(&Value::Null) && inner["nullable"] != true {
                    fields.remove(name);
                }
                if let (None, Some(default)) = (fields.get(name), inner.get("default")) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            // What the schema does not know is dropped, too.
            if let Some(known) = properties {
                fields.retain(|name, _| known.contains_key(name));
            }
            // Without a value an entry of a map is none.
            fields
                .retain(|name, field| !field.is_null() || schema["properties"].get(name).is_some());
            for (name, field) in fields {
                let inner = schema["properties"]
                    .get(name)
                    .unwrap_or(&schema["additionalProperties"]);
                fill(inner, field);
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| fill(&schema["items"], item)),
        _ => {}
    }
}

fn check(schema: &Value, old: Option<&Value>, value: &Value, path: &str, found: &mut Vec<String>) {
    if value.is_null() && schema["nullable"] == true {
        // OpenAPI 3.0.3: null must then be among the values of an enum, and the generator leaves it out.
        if schema["enum"].is_array() {
            found.push(format!("{path}: null is not one of its values"));
        }
        return;
    }
    let mut refuse = |why: &str| found.push(format!("{path}: {why}"));
    if !is_typed(schema, value) {
        refuse("wrong type");
        return;
    }
    if schema["enum"]
        .as_array()
        .is_some_and(|values| !values.contains(value))
    {
        refuse("not one of its values");
    }
    if !is_within_bounds(schema, value) {
        refuse("beyond its bounds");
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !fits(pattern, text)
    {
        refuse("does not fit its pattern");
    }
    for name in items(&schema["required"]).filter_map(Value::as_str) {
        if value.get(name).is_none() {
            refuse(&format!("{name} is missing"));
        }
    }
    if schema["x-kubernetes-list-type"] == "map" {
        let names: Vec<String> = items(value).map(|item| item["name"].to_string()).collect();
        if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
            refuse("one name twice");
        }
    }
    for rule in items(&schema["x-kubernetes-validations"]) {
        let message = rule["message"].as_str().unwrap_or_default();
        if !holds(message, old, value) {
            refuse(message);
        }
    }
    check_within(schema, old, value, path, found);
}

/// The fields of an object, the entries of a map, the items of a list.
fn check_within(
    schema: &Value,
    old: Option<&Value>,
    value: &Value,
    path: &str,
    found: &mut Vec<String>,
) {
    for (name, field) in value.as_object().into_iter().flatten() {
        let inner = schema["properties"]
            .get(name)
            .or_else(|| schema.get("additionalProperties"));
        if let Some(inner) = inner {
            let old = old.and_then(|old| old.get(name));
            check(inner, old, field, &format!("{path}.{name}"), found);
        }
    }
    for (index, item) in items(value).enumerate() {
        let path = format!("{path}[{index}]");
        check(&schema["items"], None, item, &path, found);
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn is_typed(schema: &Value, value: &Value) -> bool {
    let is_whole = |number: f64| number.fract() == 0.0 && number.abs() < 9e18;
    match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.as_f64().is_some_and(is_whole),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => {
            schema["x-kubernetes-int-or-string"] != true
                || value.is_string()
                || value.is_i64()
                || value.is_u64()
        }
    }
}

/// A number itself, and the size of anything that has one.
fn is_within_bounds(schema: &Value, value: &Value) -> bool {
    let size = match value {
        Value::String(text) => Some(("minLength", "maxLength", text.chars().count())),
        Value::Array(items) => Some(("minItems", "maxItems", items.len())),
        Value::Object(fields) => Some(("minProperties", "maxProperties", fields.len())),
        _ => None,
    };
    #[allow(clippy::cast_precision_loss, reason = "sizes are small")]
    let measured = match (size, value.as_f64()) {
        (Some((least, most, size)), _) => Some((least, most, size as f64)),
        (None, Some(number)) => Some(("minimum", "maximum", number)),
        (None, None) => None,
    };
    let limit = |key: &str| schema[key].as_f64();
    measured.is_none_or(|(least, most, size)| {
        limit(least).is_none_or(|least| size >= least)
            && limit(most).is_none_or(|most| size <= most)
    })
}

/// What each pattern of the CRD means.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern {
        "^([0-9]+(ms|s|m|h))+$" => nanoseconds(text).is_some(),
        "^[0-9]+(Ki|Mi|Gi|k|M|G)?$" => bytes(text).is_some(),
        r"^[0-9]+(\.[0-9]+)?m?$" | r"^([0-9]{1,9}m|[0-9]{1,6}(\.[0-9]{1,3})?)$" => {
            cpu(pattern, text)
        }
        "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$" => {
            let is_end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
            is_end(text.chars().next())
                && is_end(text.chars().last())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        }
        "^[-._a-zA-Z0-9]+$" => {
            !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        }
        r"^[^\x{0000}-\x{001f}\x{007f}-\x{009f}\x{2028}\x{2029}\x{feff}]*$" => !text
            .chars()
            .any(|c| c.is_control() || "\u{2028}\u{2029}\u{FEFF}".contains(c)),
        "^[a-z0-9!#$%&'*+.^_|~-]+$" => {
            let is_fine = |c: char| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || "!#$%&'*+.^_|~-".contains(c)
            };
            !text.is_empty() && text.chars().all(is_fine)
        }
        r"^\S+$" => !text.is_empty() && !text.chars().any(|c| "\t\n\u{b}\u{c}\r ".contains(c)),
        other => panic!("a new pattern needs its meaning here: {other}"),
    }
}

fn cpu(pattern: &str, text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (number, milli) = text
        .strip_suffix('m')
        .map_or((text, false), |number| (number, true));
    let (whole, fraction) = number
        .split_once('.')
        .map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let shaped = digits(whole) && fraction.is_none_or(digits);
    if !pattern.contains('{') {
        return shaped;
    }
    let longest = if milli { 9 } else { 6 };
    shaped
        && whole.len() <= longest
        && !(milli && fraction.is_some())
        && fraction.is_none_or(|f| f.len() <= 3)
}

/// Of a duration with units `ms`, `s`, `m` and `h`.
fn nanoseconds(text: &str) -> Option<u128> {
    let mut rest = text;
    let mut sum: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u128 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [
            ("ms", 1_000_000),
            ("s", 1_000_000_000),
            ("m", 60_000_000_000),
            ("h", 3_600_000_000_000),
        ];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        sum += number * factor;
    }
    (!text.is_empty()).then_some(sum)
}

/// Of a size as Kubernetes writes it, without `T` and more.
pub(super) fn bytes(text: &str) -> Option<u128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let factor = match &text[end..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    Some(text[..end].parse::<u128>().ok()? * factor)
}

/// What each rule of the CRD demands, known by its message.
fn holds(message: &str, old: Option<&Value>, value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let is = |field: &str| value.get(field).is_some_and(|field| !field.is_null());
    let between = |least: u128, most: u128, value: Option<u128>| {
        value.is_some_and(|v| (least..=most).contains(&v))
    };
    let (ms, day, tib) = (1_000_000, 86_400_000_000_000, 1 << 40);
    let starts = |beginning: &str| message.starts_with(beginning);
    if starts("must be a duration between 10ms and 24h") {
        between(10 * ms, day, nanoseconds(text))
    } else if starts("must be a duration between 1s and 10m") {
        between(1000 * ms, 600_000 * ms, nanoseconds(text))
    } else if starts("must be a duration of at most 24h") {
        between(0, day, nanoseconds(text))
    } else if starts("must be a size between 64Ki and 1Ti") {
        between(64 << 10, tib, bytes(text))
    } else if starts("must be a size between 16Mi and 1Ti") {
        between(16 << 20, tib, bytes(text))
    } else if starts("must be a URL with scheme http or https") {
        is_endpoint(text)
    } else if starts("NodePort is not offered") {
        text != "NodePort"
    } else if starts("mode must be Sidecar, HostPort") {
        [
            "Sidecar",
            "HostPort",
            "HostNetwork",
            "NodeLocal",
            "NodePort",
        ]
        .contains(&text)
    } else if starts("a header needs exactly one of") {
        is("value") != is("secretKeyRef")
    } else if starts("tls is set but the endpoint") {
        !is("tls")
            || value["endpoint"]
                .as_str()
                .is_some_and(|url| url.starts_with("https://"))
    } else if starts("ports.grpc and ports.http must differ") {
        value["grpc"] != value["http"]
    } else if starts("ports.metrics and ports.health must differ") {
        let [grpc, http, metrics, health] =
            ["grpc", "http", "metrics", "health"].map(|port| &value[port]);
        metrics != health
            && ![grpc, http]
                .iter()
                .any(|port| [metrics, health].contains(port))
    } else if starts("ports.grpc and ports.http cannot change") {
        let fixed = |spec: &Value| ["grpc", "http"].map(|port| spec["ports"][port].clone());
        old.is_none_or(|old| fixed(old) == fixed(value))
    } else if starts("the name of a resource attribute") {
        value.as_object().is_none_or(|map| {
            map.keys()
                .all(|key| (1..=256).contains(&key.chars().count()))
        })
    } else if starts("In and NotIn need values") {
        let lists = ["In", "NotIn"]
            .iter()
            .any(|operator| value["operator"] == *operator);
        lists
            == value["values"]
                .as_array()
                .is_some_and(|values| !values.is_empty())
    } else if starts("hostMetadata with nodeLocal.routing Prefer") {
        value["hostMetadata"] != true || value["nodeLocal"]["routing"] != "Prefer"
    } else if starts("agent.updateStrategy.maxSurge cannot be used with mode HostPort") {
        let surge = &value["agent"]["updateStrategy"]["maxSurge"];
        value["mode"] != "HostPort"
            || surge.is_null()
            || *surge == 0
            || *surge == "0"
            || *surge == "0%"
    } else {
        super::newer_rules::holds(message, value)
    }
}

/// `http[s]://host:port[/...]` without user and white space.
fn is_endpoint(text: &str) -> bool {
    let space = |c: char| "\t\n\u{c}\r ".contains(c);
    let Some(rest) = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
    else {
        return false;
    };
    let (authority, tail) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let Some((host, port)) = authority.rsplit_once(':') else {
        return false;
    };
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    is_port
        && !host.is_empty()
        && !host.contains('@')
        && !host.contains(space)
        && !tail.contains(space)
}
