//! The table of fields: `processors`, `extensions` and `service`. Must not know how a field is read.

use super::{Field, ignored, only, refused, taken};

const COUNTED: &str =
    "memory is counted byte by byte as it is taken, and there is no garbage collector";

const NO_PERCENT: &str = "percentages are not supported; use limit_mib";

const LITERAL: &str = "is not supported; give a literal value";

const V2: &str = "belongs to the collector's second version; what it would tell is under /delivery";

const OWN_LOG: &str = "lines have one fixed set of fields";

#[rustfmt::skip]
pub(super) const PROCESSORS: &[Field] = &[
    taken("processors.memory_limiter.limit_mib", "MiB", "64 without the processor", "Bytes of telemetry the agent may hold, compressed batches included"),
    taken("processors.memory_limiter.spike_limit_mib", "MiB", "a fifth of the limit", "Kept for exports: new requests are refused above limit - spike; 0 means the default"),
    ignored("processors.memory_limiter.check_interval", COUNTED),
    ignored("processors.memory_limiter.min_gc_interval_when_soft_limited", COUNTED),
    ignored("processors.memory_limiter.max_gc_interval_when_soft_limited", COUNTED),
    ignored("processors.memory_limiter.max_gc_interval_when_hard_limited", COUNTED),
    refused("processors.memory_limiter.limit_percentage", NO_PERCENT),
    refused("processors.memory_limiter.spike_limit_percentage", NO_PERCENT),
    taken("processors.resource.attributes[].key", "string", "", "The resource attribute"),
    taken("processors.resource.attributes[].action", "`insert`, `update`, `upsert` or `delete`", "", "`insert` sets it where it is absent, `update` where it is present, `upsert` in any case"),
    taken("processors.resource.attributes[].value", "string, number or boolean", "", "Its value"),
    refused("processors.resource.attributes[].from_attribute", LITERAL),
    refused("processors.resource.attributes[].from_context", LITERAL),
    refused("processors.resource.attributes[].default_value", LITERAL),
    refused("processors.resource.attributes[].pattern", LITERAL),
    refused("processors.resource.attributes[].converted_type", LITERAL),
];

#[rustfmt::skip]
pub(super) const EXTENSIONS: &[Field] = &[
    taken("extensions.health_check.endpoint", "address", "localhost:13133", "Where health is served"),
    taken("extensions.health_check.path", "path", "/", "A further path that answers as `/ready` does"),
    refused("extensions.health_check.response_body", "the body tells delivery, queue and memory"),
    refused("extensions.health_check.tls", "probes are plaintext"),
    refused("extensions.health_check.check_collector_pipeline", "see /delivery, which tells more"),
    only("extensions.health_check.use_v2", "false", V2),
    refused("extensions.health_check.http", V2),
    refused("extensions.health_check.grpc", V2),
    refused("extensions.health_check.component_health", V2),
    taken("extensions.file_storage.directory", "path", "/var/lib/otelcol/file_storage", "Where queues on disk are; several agents may share it"),
    taken("extensions.file_storage.create_directory", "`true` or `false`", "false", "Make the directory where it is missing"),
    taken("extensions.file_storage.directory_permissions", "octal mode", "0750", "Mode of directories that are made"),
    taken("extensions.file_storage.fsync", "`true` or `false`", "false", "Acknowledge only what survives a loss of power; without it, what survives the end of the process"),
    taken("extensions.file_storage.max_size", "bytes", "0", "What the files of one signal may take; 0 means that only `queue_size` bounds them"),
    ignored("extensions.file_storage.timeout", "how long a lock is waited for; here nothing is waited for"),
    ignored("extensions.file_storage.compaction", "files are deleted whole; there is nothing to compact"),
    only("extensions.file_storage.recreate", "false", "damage on disk costs only the records it has hit"),
    ignored("extensions.zpages", "there are no pages; the metrics tell what they would, and a warning is logged"),
    ignored("extensions.pprof", "there is nothing to profile with Go's tools; a warning is logged"),
];

#[rustfmt::skip]
pub(super) const SERVICE: &[Field] = &[
    taken("service.extensions", "list of ids", "[]", "The extensions in use"),
    taken("service.pipelines.*.receivers", "list of ids", "", "One pipeline for each of `traces`, `metrics`, `logs` and `profiles`; all take what the one receiver takes"),
    taken("service.pipelines.*.processors", "list of ids", "[]", "`memory_limiter` counts for all pipelines wherever it stands; `resource` processors apply in this order"),
    taken("service.pipelines.*.exporters", "list of one id", "", "Where the signal goes"),
    taken("service.telemetry.metrics.level", "`none`, `basic`, `normal` or `detailed`", "normal", "`none` closes the port; the others are the same"),
    taken("service.telemetry.metrics.readers[].pull.exporter.prometheus.host", "string", "localhost", "Where `/metrics` is served"),
    taken("service.telemetry.metrics.readers[].pull.exporter.prometheus.port", "port", "8888", "Where `/metrics` is served"),
    taken("service.telemetry.metrics.readers[].pull.exporter.prometheus.without_type_suffix", "`true` or `false`", "false; true without readers", "Leave `_total` off counters"),
    taken("service.telemetry.metrics.readers[].pull.exporter.prometheus.without_units", "`true` or `false`", "false; true without readers", "Leave `_bytes` and `_seconds` off"),
    ignored("service.telemetry.metrics.readers[].pull.exporter.prometheus.without_scope_info", "no series carries scope labels"),
    ignored("service.telemetry.metrics.readers[].pull.exporter.prometheus.with_resource_constant_labels", "no series carries resource labels"),
    refused("service.telemetry.metrics.readers[].periodic", "metrics are pulled, not pushed"),
    refused("service.telemetry.metrics.address", "is gone from the collector, too; use readers"),
    refused("service.telemetry.metrics.views", "metrics are what they are"),
    taken("service.telemetry.logs.level", "`debug`, `info`, `warn` or `error`", "info", "Least severe level that is logged"),
    taken("service.telemetry.logs.encoding", "`console` or `json`", "console", "Shape of a line"),
    taken("service.telemetry.logs.output_paths", "`[stderr]` or `[stdout]`", "[stderr]", "Where lines go"),
    ignored("service.telemetry.logs.sampling", "lines that repeat are folded into one a minute with their number"),
    ignored("service.telemetry.logs.development", "there is no development mode"),
    ignored("service.telemetry.logs.disable_caller", "lines name no caller"),
    ignored("service.telemetry.logs.disable_stacktrace", "lines have no stack traces"),
    ignored("service.telemetry.logs.error_output_paths", "the log has no errors of its own"),
    refused("service.telemetry.logs.initial_fields", OWN_LOG),
    refused("service.telemetry.logs.processors", OWN_LOG),
    ignored("service.telemetry.resource", "no series and no line carries resource attributes; the scraper adds them"),
    refused("service.telemetry.traces", "the agent does not trace itself"),
    refused("connectors", "connectors are not supported by this agent"),
];
