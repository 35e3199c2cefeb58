//! Removes from an object what a supporter must not see: data of Secrets, values of headers, tokens, and what
//! applications are started with.
//!
//! Texts are removed by where they stand, never by what they look like. What may hold anything, as annotations of others
//! and variables of applications, is removed unless it is known to hold no secret.

use serde_json::{Map, Value};

use crate::inject::kinds::{POLICY, WARNING};
use crate::names;

/// What stands in place of a text that was removed.
pub const REMOVED: &str = "<removed>";

/// Containers that the operator adds to pods, or makes.
const OWN_CONTAINERS: [&str; 2] = [names::CONTAINER, names::START_GATE];
/// The container of the installation's Deployments, and the label by which these are known.
const INSTALLATION: (&str, &str, &str) = ("operator", "app.kubernetes.io/name", "otelagent");
/// Variables whose values say what injection did.
const SHOWN_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// The same, by the beginning of their names.
const OWN_VARIABLES: &str = "OTELAGENT_";
/// Annotations whose values are shown.
const SHOWN_ANNOTATIONS: [&str; 13] = [
    names::ANNOTATION_CONTAINERS,
    names::ANNOTATION_LOCAL_VOLUMES,
    names::ANNOTATION_UNUSED_SINCE,
    names::ANNOTATION_NODE_PORTS,
    names::ANNOTATION_RESTARTED_FOR,
    names::ANNOTATION_SELECTION,
    names::ANNOTATION_SERVING,
    names::ANNOTATION_RECIPE,
    names::ANNOTATION_BOUND_AT,
    names::ANNOTATION_REASON,
    names::ANNOTATION_WEBHOOK_HASH,
    names::ANNOTATION_OPERATOR,
    "deployment.kubernetes.io/revision",
];
/// Parts of keys whose texts and numbers are secrets.
const SECRET_KEYS: [&str; 14] = [
    "access_key",
    "api_key",
    "apikey",
    "auth_header",
    "authorization",
    "cookie",
    "credential",
    "passphrase",
    "passwd",
    "password",
    "_pem",
    "private",
    "secret",
    "token",
];
/// Maps whose values may be anything.
const OPAQUE: [&str; 3] = ["podAnnotations", "volumeAttributes", "flexVolume"];

/// An object as it may be given away. It keeps its form: a removed text is [`REMOVED`].
pub fn without_secrets(object: &Value) -> Value {
    let mut object = object.clone();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    match kind.as_str() {
        "Secret" => {
            for values in ["/data", "/stringData"] {
                if let Some(values) = object.pointer_mut(values) {
                    remove_all(values);
                }
            }
        }
        "ConfigMap" => clear_config_map(&mut object),
        // The program of a policy contains the recipe, and that the agent's configuration.
        POLICY | WARNING => remove_expressions(&mut object),
        _ => {}
    }
    let (container, label, value) = INSTALLATION;
    let is_installation = object["metadata"]["labels"][label] == value;
    let own = OWN_CONTAINERS.iter().copied();
    let own = own.chain(is_installation.then_some(container));
    Redaction { own: own.collect() }.clear(&mut object);
    object
}

/// The operator's own hold configurations of agents, in the form of their annotations. Of others nothing is known.
fn clear_config_map(object: &mut Value) {
    let managed_by = &object["metadata"]["labels"][names::LABEL_MANAGED_BY];
    let is_ours = managed_by == names::MANAGED_BY;
    let data = object.get_mut("data").and_then(Value::as_object_mut);
    for (_, text) in data.into_iter().flatten() {
        if is_ours {
            clear_configuration(text);
        } else {
            remove_all(text);
        }
    }
    if let Some(values) = object.get_mut("binaryData") {
        remove_all(values);
    }
}

/// Removes every text and number below a value. Flags are no secrets.
fn remove_all(value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Object(map) => map.values_mut().for_each(remove_all),
        Value::Array(items) => items.iter_mut().for_each(remove_all),
        Value::Number(_) | Value::String(_) => *value = REMOVED.into(),
    }
}

fn remove_expressions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if matches!(key.as_str(), "expression" | "messageExpression") {
                    remove_all(value);
                } else {
                    remove_expressions(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(remove_expressions),
        _ => {}
    }
}

/// Whether texts under a key are secrets. Names of Secrets are none.
fn is_secret_key(key: &str) -> bool {
    let key = key.to_lowercase();
    let names_a_secret = key == "secretname" || key == "imagepullsecrets";
    !names_a_secret && SECRET_KEYS.iter().any(|part| key.contains(part))
}

/// A configuration of an agent, as YAML.
fn clear_configuration(text: &mut Value) {
    let parsed = text
        .as_str()
        .and_then(|text| serde_saphyr::from_str::<Value>(text).ok());
    let cleared = parsed.and_then(|mut parsed| {
        Redaction::default().clear(&mut parsed);
        serde_saphyr::to_string(&parsed).ok()
    });
    *text = cleared.map_or_else(|| REMOVED.into(), Value::String);
}

/// Headers keep their names, in a map or in a list of names with values.
fn clear_headers(headers: &mut Value) {
    match headers {
        Value::Array(items) => {
            let values = items
                .iter_mut()
                .filter_map(|header| header.get_mut("value"));
            values.for_each(remove_all);
        }
        other => remove_all(other),
    }
}

/// Removes user and password of a URL, and its query. The word may end in white space.
fn clear_url(word: &str) -> String {
    let url = word.trim_end();
    let Some((scheme, rest)) = url.split_once("://") else {
        return word.to_owned();
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("<removed>@", rest),
        None => ("", rest),
    };
    let (rest, query) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], "?<removed>"),
        None => (rest, ""),
    };
    let space = &word[url.len()..];
    format!("{scheme}://{user}{rest}{query}{space}")
}

/// Removes what stands anywhere in an object.
#[derive(Default)]
struct Redaction {
    /// Containers that are not the applications'.
    own: Vec<&'static str>,
}

impl Redaction {
    fn clear(&self, value: &mut Value) {
        match value {
            Value::Object(map) => self.clear_map(map),
            Value::Array(items) => items.iter_mut().for_each(|item| self.clear(item)),
            Value::String(text) if text.contains("://") => {
                let words = text.split_inclusive(char::is_whitespace);
                *text = words.map(clear_url).collect();
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn clear_map(&self, map: &mut Map<String, Value>) {
        let name = map.get("name").and_then(Value::as_str);
        let is_own = map.contains_key("image") && name.is_some_and(|name| self.own.contains(&name));
        for (key, value) in map.iter_mut() {
            match key.as_str() {
                "annotations" => self.clear_annotations(value),
                "env" => self.clear_variables(value),
                "headers" | "response_headers" | "httpHeaders" => clear_headers(value),
                "command" | "args" if !is_own => remove_all(value),
                "state" | "lastState" if !is_own => self.clear_last_words(value),
                key if OPAQUE.contains(&key) => remove_all(value),
                key if is_secret_key(key) && is_plain(value) => remove_all(value),
                _ => self.clear(value),
            }
        }
    }

    fn clear_annotations(&self, annotations: &mut Value) {
        for (key, value) in annotations.as_object_mut().into_iter().flatten() {
            match key.as_str() {
                names::ANNOTATION_CONFIG => clear_configuration(value),
                key if SHOWN_ANNOTATIONS.contains(&key) => self.clear(value),
                _ => remove_all(value),
            }
        }
    }

    /// Variables keep their names, and what they refer to.
    fn clear_variables(&self, env: &mut Value) {
        for variable in env.as_array_mut().into_iter().flatten() {
            let name = variable["name"].as_str().unwrap_or_default();
            let is_shown = SHOWN_VARIABLES.contains(&name) || name.starts_with(OWN_VARIABLES);
            match variable.get_mut("value") {
                Some(value) if is_shown => self.clear(value),
                Some(value) => remove_all(value),
                None => {}
            }
        }
    }

    /// What an application wrote before it ended.
    fn clear_last_words(&self, state: &mut Value) {
        if let Some(words) = state.pointer_mut("/terminated/message") {
            remove_all(words);
        }
        self.clear(state);
    }
}

/// Whether a value is a text, a number, or a list of them.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => items.iter().all(is_plain),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}
