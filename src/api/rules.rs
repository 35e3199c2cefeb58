//! Schemas that more than one field shares: durations, sizes, references.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A Go duration from 10 milliseconds to 24 hours.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "pattern": "^([0-9]+(ms|s|m|h))+$",
        "x-kubernetes-validations": [{
            "rule": "duration(self) >= duration('10ms') && duration(self) <= duration('24h')",
            "message": "must be a duration between 10ms and 24h, written like 200ms, 5s or 1m30s",
        }],
    })
}

/// A duration that may be zero, up to 24 hours.
pub(super) fn duration_or_zero(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "pattern": "^([0-9]+(ms|s|m|h))+$",
        "x-kubernetes-validations": [{
            "rule": "duration(self) <= duration('24h')",
            "message": "must be a duration of at most 24h, written like 0s, 1m or 1h30m",
        }],
    })
}

/// A number of bytes as Kubernetes writes it, at least 64 KiB and at most 1 TiB.
pub(super) fn size(_: &mut SchemaGenerator) -> Schema {
    size_from("64Ki")
}

/// The same, at least 16 MiB: the files of three signals need room to breathe.
pub(super) fn disk_size(_: &mut SchemaGenerator) -> Schema {
    size_from("16Mi")
}

/// A count, or a percentage such as 5%, as Kubernetes writes it.
pub(super) fn count_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": [{
            "rule": "string(self).matches('^(0|[1-9][0-9]{0,5}|(0|[1-9][0-9]?|100)%)$')",
            "message": "must be a count such as 3, or a percentage such as 5%",
        }],
    })
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
