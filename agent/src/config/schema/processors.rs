//! The schema of `processors`.

use super::setting::ValueKind::{self, NonEmpty, Scalar, Whole, Word};
use super::setting::{Settings, ignored, list, refused, section, value};

const MIB: ValueKind = Whole(1, 1 << 20, "MiB");

#[rustfmt::skip]
pub(super) const TYPES: Settings = &[
    section("memory_limiter", &[
        value("limit_mib", MIB, "64", "Telemetry the agent may hold, compressed batches included").described("(required); 64 without the processor").required("give the limit in MiB"),
        value("spike_limit_mib", Whole(0, 1 << 20, "MiB"), "", "Reserve for exports: new requests are refused above limit - spike; 0 means the default").described("a fifth of the limit"),
        ignored(
            "check_interval|min_gc_interval_when_soft_limited|max_gc_interval_when_soft_limited|max_gc_interval_when_hard_limited",
            "memory is counted byte by byte before it is used, and there is no garbage collector",
        ),
        refused("limit_percentage|spike_limit_percentage", "percentages are not supported; use limit_mib"),
    ]),
    section("resource", &[list("attributes", &[
        value("key", NonEmpty("string"), "", "The resource attribute").required("name the attribute"),
        value("action", Word(&["insert", "update", "upsert", "delete"]), "", "`insert` sets it where it is absent, `update` where it is present, `upsert` in any case; `delete` removes it").required("use insert, update, upsert or delete"),
        value("value", Scalar, "", "Its value, which every action but `delete` needs"),
        refused("from_attribute|from_context|default_value|pattern|converted_type", "is not supported; give a literal value"),
    ])]),
    refused("batch", "`batch` is not supported; set sending_queue.batch of the exporter instead"),
];
