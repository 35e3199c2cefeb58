//! The schema of `extensions` and `service`.

use super::setting::ValueKind::{Flag, Ids, NonEmpty, Text, Whole, Word};
use super::setting::{Settings, components, ignored, list, only, refused, section, value};

const V2: &str =
    "belongs to the collector's second version of health checks; /delivery answers instead";

#[rustfmt::skip]
pub(super) const EXTENSIONS: Settings = &[
    section("health_check", &[
        value("endpoint", Text("address"), "localhost:13133", "Where health is served"),
        value("path", Text("path"), "/", "Another path that answers as `/ready` does"),
        refused("response_body", "the body reports delivery, queue and memory"),
        refused("tls", "probes are plaintext"),
        refused("check_collector_pipeline", "use /delivery, which reports more"),
        only("use_v2", "false", V2),
        refused("http|grpc|component_health", V2),
    ]),
    section("file_storage", &[
        value("directory", NonEmpty("path"), "/var/lib/otelcol/file_storage", "Directory of the queues on disk; several agents may share it"),
        value("create_directory", Flag, "false", "Create the directory if it is missing"),
        value("directory_permissions", Text("octal mode"), "0750", "Mode of created directories"),
        value("fsync", Flag, "false", "Acknowledge only what survives a power failure; otherwise, what survives the end of the process"),
        value("max_size", Whole(0, u64::MAX >> 1, "bytes"), "0", "Size the files of one signal may have; 0 means that only `queue_size` limits them"),
        ignored("timeout", "how long to wait for a lock; the agent waits for none"),
        ignored("compaction", "files are deleted whole; there is nothing to compact"),
        only("recreate", "false", "damage on disk costs only the records it has hit"),
    ]),
    ignored("zpages", "there are no such pages, use the metrics; the agent logs a warning"),
    ignored("pprof", "there is nothing to profile with Go's tools; the agent logs a warning"),
];

#[rustfmt::skip]
pub(super) const SERVICE: Settings = &[
    value("extensions", Ids("list of ids"), "[]", "The extensions in use"),
    components("pipelines", &[
        section("traces|metrics|logs|profiles", &[]),
        section("*", &[
            value("receivers", Ids("list of ids"), "", "One pipeline for each of `traces`, `metrics`, `logs` and `profiles`; all of them use the one receiver").described("(required)"),
            value("processors", Ids("list of ids"), "[]", "A `memory_limiter` applies to all pipelines, whatever its position; `resource` processors apply in this order"),
            value("exporters", Ids("list of one id"), "", "Where the signal is sent").described("(required)"),
        ]),
    ]).required("configure traces, metrics, logs or profiles"),
    section("telemetry", &[
        section("metrics", METRICS),
        section("logs", LOGS),
        ignored("resource", "no series and no line carries resource attributes; the scraper adds them"),
        refused("traces", "the agent does not trace itself"),
    ]),
];

#[rustfmt::skip]
const METRICS: Settings = &[
    value("level", Word(&["none", "basic", "normal", "detailed"]), "normal", "`none` closes the port; the others are the same"),
    list("readers", &[
        section("pull", &[section("exporter", &[section("prometheus", &[
            value("host", Text("string"), "localhost", "Where `/metrics` is served"),
            value("port", Whole(0, u16::MAX as u64, "port"), "8888", "Where `/metrics` is served"),
            value("without_type_suffix", Flag, "false", "Leave `_total` off counters").described("`false`; `true` without readers"),
            value("without_units", Flag, "false", "Leave `_bytes` and `_seconds` off").described("`false`; `true` without readers"),
            ignored("without_scope_info", "no series carries scope labels"),
            ignored("with_resource_constant_labels", "no series carries resource labels"),
        ])])]),
        refused("periodic", "metrics are pulled, not pushed"),
    ]),
    refused("address", "the collector no longer supports it either; use readers"),
    refused("views", "the metrics cannot be changed"),
];

#[rustfmt::skip]
const LOGS: Settings = &[
    value("level", Word(&["debug", "info", "warn", "error"]), "info", "Least severe level that is logged"),
    value("encoding", Word(&["json", "console"]), "console", "Format of log lines"),
    value("output_paths", Ids("`[stderr]` or `[stdout]`"), "[stderr]", "Where log lines go"),
    ignored("sampling", "repeated lines are folded into one a minute, with their number"),
    ignored("development", "there is no development mode"),
    ignored("disable_caller", "lines name no caller"),
    ignored("disable_stacktrace", "lines have no stack traces"),
    ignored("error_output_paths", "the log has no errors of its own"),
    refused("initial_fields|processors", "log lines have one fixed set of fields"),
];
