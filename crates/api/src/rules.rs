//! Schemas that several fields share: durations, sizes, references.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// A Go duration from 10 milliseconds to 24 hours.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    duration_that(
        "duration(self) >= duration('10ms') && duration(self) <= duration('24h')",
        "must be a duration between 10ms and 24h, written like 200ms, 5s or 1m30s",
    )
}

/// A duration for which pods may wait: from a second to 10 minutes.
pub(super) fn start_timeout(_: &mut SchemaGenerator) -> Schema {
    duration_that(
        "duration(self) >= duration('1s') && duration(self) <= duration('10m')",
        "must be a duration between 1s and 10m, written like 30s, 1m or 1m30s",
    )
}

/// A duration that may be zero, up to 24 hours.
pub(super) fn duration_or_zero(_: &mut SchemaGenerator) -> Schema {
    duration_that(
        "duration(self) <= duration('24h')",
        "must be a duration of at most 24h, written like 0s, 1m or 1h30m",
    )
}

fn duration_that(rule: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "pattern": "^([0-9]+(ms|s|m|h))+$",
        "x-kubernetes-validations": [{"rule": rule, "message": message}],
    })
}

/// A quantity of bytes from 64 KiB to 1 TiB.
pub(super) fn size(_: &mut SchemaGenerator) -> Schema {
    size_from("64Ki")
}

/// A quantity of bytes from 16 MiB to 1 TiB: the files of three signals need that much.
pub(super) fn disk_size(_: &mut SchemaGenerator) -> Schema {
    size_from("16Mi")
}

fn size_from(least: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "pattern": "^[0-9]+(Ki|Mi|Gi|k|M|G)?$",
        "x-kubernetes-validations": [{
            "rule": format!(
                "isQuantity(self) && quantity(self).compareTo(quantity('{least}')) >= 0 && quantity(self).compareTo(quantity('1Ti')) <= 0"
            ),
            "message": format!("must be a size between {least} and 1Ti, written like 64Mi or 1Gi"),
        }],
    })
}

/// A number of nodes: a count or a percentage, as rollouts take it.
pub(super) fn nodes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int ? self >= 0 && self <= 100000 : self.matches('^([0-9]|[1-9][0-9]|100)%$')",
            "message": "must be a count from 0 to 100000, or a percentage from 0% to 100%",
        }],
    })
}

/// Name of a Secret, a `ConfigMap` or a class: a DNS subdomain (RFC 1123).
pub(super) fn object_name(_: &mut SchemaGenerator) -> Schema {
    let message = "must be an object's name: lower-case letters, digits, '-' and '.'";
    named_format("dns1123Subdomain", 253, message)
}

/// A label's or taint's key: a name of at most 63 characters, with an optional DNS subdomain before it.
pub(super) fn label_key(_: &mut SchemaGenerator) -> Schema {
    let message = "must be a key such as app or example.com/role";
    named_format("qualifiedName", 317, message)
}

/// What a label's or taint's value must be.
const LABEL_VALUE: &str = "must be a value of at most 63 letters, digits, '-', '_' and '.'";

/// A label's or taint's value.
pub(super) fn label_value(_: &mut SchemaGenerator) -> Schema {
    named_format("labelValue", 63, LABEL_VALUE)
}

/// Values that a selector compares a label with; an empty one is a value, too.
pub(super) fn label_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": [is_in_format("labelValue", LABEL_VALUE)],
        },
    })
}

/// A text in a format that the API server's CEL library names.
fn named_format(format: &str, max_length: u32, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": max_length,
        "x-kubernetes-validations": [is_in_format(format, message)],
    })
}

/// The rule that a text is in such a format.
fn is_in_format(format: &str, message: &str) -> Value {
    json!({"rule": format!("!format.{format}().validate(self).hasValue()"), "message": message})
}

/// Labels, all of which must be present.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
        "x-kubernetes-validations": [{
            "rule": "self.all(key, !format.qualifiedName().validate(key).hasValue() && !format.labelValue().validate(self[key]).hasValue())",
            "message": "must be labels such as example.com/role: agents",
        }],
    })
}

/// Labels that a user adds to pods of the operator.
pub(super) fn pod_labels(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = labels(generator);
    let own = json!({
        "rule": "self.all(key, !key.startsWith('otelagent.dev/') && !(key in ['app.kubernetes.io/name', \
                 'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by', 'controller-revision-hash', \
                 'pod-template-generation']))",
        "message": "labels of otelagent.dev, app.kubernetes.io/name, instance and managed-by, and those of DaemonSets are not \
                    yours to set; remove them",
    });
    let rules = schema.get_mut("x-kubernetes-validations");
    if let Some(rules) = rules.and_then(|rules| rules.as_array_mut()) {
        rules.push(own);
    }
    schema
}

/// The rule that a request is not above its limit, if both are set.
pub(super) fn within_limit(amount: &str) -> String {
    let has = |side: &str| format!("has(self.{side}) && has(self.{side}.{amount})");
    format!(
        "!({} && {}) || quantity(self.requests.{amount}).compareTo(quantity(self.limits.{amount})) <= 0",
        has("requests"),
        has("limits"),
    )
}
