//! Rules of the CRD that came after the first; see [`super::predicate`].

use serde_json::Value;

/// What a rule demands, known by its message.
pub(super) fn holds(message: &str, value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let starts = |beginning: &str| message.starts_with(beginning);
    let is = |field: &str| value.get(field).is_some_and(|field| !field.is_null());
    if starts("must be labels such as") {
        let mut labels = value.as_object().into_iter().flatten();
        labels.all(|(key, value)| is_key(key) && value.as_str().is_none_or(is_label_value))
    } else if starts("must be an object's name") {
        is_subdomain(text)
    } else if starts("must be a key such as") {
        is_key(text)
    } else if starts("must be a value of at most 63") {
        is_label_value(text)
    } else if starts("a toleration without key") {
        is("key") || value["operator"] == "Exists"
    } else if starts("operator Exists takes no value") {
        value["operator"] != "Exists" || !is("value")
    } else if starts("tolerationSeconds needs effect") {
        !is("tolerationSeconds") || value["effect"] == "NoExecute"
    } else if starts("must be a count from 0 to 100000") {
        is_number_of_nodes(value)
    } else if starts("must be a count such as 3, or a percentage") {
        is_number_of_unready_nodes(value)
    } else if starts("exactly one of maxSurge and maxUnavailable") {
        let both = is("maxSurge") && is("maxUnavailable");
        !both || is_zero(&value["maxSurge"]) != is_zero(&value["maxUnavailable"])
    } else if starts("agent.updateStrategy.maxUnavailable must be above zero with mode HostPort") {
        value["mode"] != "HostPort" || !is_zero(&value["agent"]["updateStrategy"]["maxUnavailable"])
    } else if starts("must be annotations such as") {
        keys(value).all(is_key)
    } else if starts("annotations of otelagent.dev are the operator's own") {
        keys(value).all(|key| !key.starts_with("otelagent.dev/"))
    } else if starts("labels of otelagent.dev, app.kubernetes.io/name") {
        let own = [
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/managed-by",
            "controller-revision-hash",
            "pod-template-generation",
        ];
        keys(value).all(|key| !key.starts_with("otelagent.dev/") && !own.contains(&key))
    } else if starts("operators In and NotIn need values") {
        !matches!(value["operator"].as_str(), Some("In" | "NotIn")) || count(value) > 0
    } else if starts("operators Exists and DoesNotExist take no values") {
        !matches!(value["operator"].as_str(), Some("Exists" | "DoesNotExist")) || count(value) == 0
    } else if starts("operators Gt and Lt need one value") {
        let number = value["values"][0].as_str().unwrap_or_default();
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        !matches!(value["operator"].as_str(), Some("Gt" | "Lt")) || count(value) == 1 && is_number
    } else if starts("a key is neither") {
        text != "." && !text.starts_with("..")
    } else if starts("requests.cpu must not be above") {
        at_most(
            &value["requests"]["cpu"],
            &value["limits"]["cpu"],
            thousandths,
        )
    } else if starts("requests.memory must not be above") {
        at_most(
            &value["requests"]["memory"],
            &value["limits"]["memory"],
            super::predicate::bytes,
        )
    } else {
        panic!("a new rule of the CRD needs its meaning here: {message}");
    }
}

fn keys(map: &Value) -> impl Iterator<Item = &str> {
    let fields = map.as_object().into_iter().flatten();
    fields.map(|(key, _)| key.as_str())
}

/// The number of values of a requirement.
fn count(requirement: &Value) -> usize {
    requirement["values"].as_array().map_or(0, Vec::len)
}

fn at_most(request: &Value, limit: &Value, read: impl Fn(&str) -> Option<u128>) -> bool {
    let amount = |value: &Value| value.as_str().and_then(&read);
    amount(request)
        .zip(amount(limit))
        .is_none_or(|(request, limit)| request <= limit)
}

fn thousandths(text: &str) -> Option<u128> {
    if let Some(milli) = text.strip_suffix('m') {
        return milli.parse().ok();
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    Some(whole.parse::<u128>().ok()? * 1000 + format!("{fraction:0<3}").parse::<u128>().ok()?)
}

fn is_zero(value: &Value) -> bool {
    *value == 0 || *value == "0" || *value == "0%"
}

fn is_number_of_nodes(value: &Value) -> bool {
    let percent = |text: &str| {
        let digits = text
            .strip_suffix('%')
            .filter(|digits| *digits == "0" || !digits.starts_with('0'));
        digits
            .and_then(|digits| digits.parse::<u8>().ok())
            .is_some_and(|number| number <= 100)
    };
    match value {
        Value::String(text) => percent(text) && !text.starts_with('+'),
        number => number
            .as_i64()
            .is_some_and(|number| (0..=100_000).contains(&number)),
    }
}

/// Up to six digits or a percentage, without zeros before them; a count may be written as text.
fn is_number_of_unready_nodes(value: &Value) -> bool {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned);
    let (digits, most) = text
        .strip_suffix('%')
        .map_or((text.as_str(), 999_999), |digits| (digits, 100));
    digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && digits.parse::<u32>().is_ok_and(|number| number <= most)
}

/// Letters and digits, in between also these.
fn is_word(text: &str, between: &str, fits: impl Fn(char) -> bool) -> bool {
    !text.is_empty()
        && text.chars().all(|c| fits(c) || between.contains(c))
        && text.starts_with(&fits)
        && text.ends_with(&fits)
}

pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || text.len() <= 63 && is_word(text, "-_.", |c| c.is_ascii_alphanumeric())
}

fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| is_word(part, "-", |c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(part)
}

fn is_key(text: &str) -> bool {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}
