//! Every setting of a document, one row per line.

use super::setting::Rule::{Alias, Components, Ignored, List, Only, Refused};
use super::setting::ValueKind::{
    self, Duration, Flag, Ids, NonEmpty, Number, Scalar, Strings, Text, Texts, Whole, Word,
};
use super::setting::{Setting, Settings, row, section, value};

const NEEDED: &str = "an agent needs receivers, exporters and service";

/// The document itself.
#[rustfmt::skip]
pub const ROOT: Settings = &[
    row("receivers", Components(RECEIVERS), "").required(NEEDED),
    row("processors", Components(PROCESSORS), ""),
    row("exporters", Components(EXPORTERS), "").required(NEEDED),
    row("extensions", Components(EXTENSIONS), ""),
    section("service", SERVICE).required(NEEDED),
    row("connectors", Refused, "connectors are not supported by this agent"),
];

const ENDPOINT: &str = "Host and port to listen on; an empty host means every address. Every port accepts both gRPC and HTTP";
const NO_EXTENSIONS: &str = "there are no extensions that could be called";
const FEW_BYTES: &str = "answers are a few bytes";
const NO_COPY: &str = "batches are sent from where they are in memory";
const ONE_LOG: &str = "the agent has only one log";

#[rustfmt::skip]
const NO_METADATA: Setting = row("include_metadata", Only("false"), "the headers of clients are not kept with their telemetry");

#[rustfmt::skip]
const RECEIVERS: Settings = &[section("otlp", &[section("protocols", &[
    section("grpc", GRPC),
    section("http", HTTP),
    section("*", GRPC_OR_HTTP),
])])];

#[rustfmt::skip]
const GRPC: Settings = &[
    value("endpoint", Text("address"), "localhost:4317", ENDPOINT),
    value("max_recv_msg_size_mib", Whole(0, 1024, "MiB"), "4", "Largest gRPC message, also after decompression").zero_is_default(),
    value("max_concurrent_streams", Whole(0, u32::MAX as u64, "calls"), "256", "Calls one HTTP/2 connection may have open").zero_is_default(),
    section("keepalive", &[
        section("server_parameters", &[
            value("max_connection_idle", Duration, "5m", "An HTTP/2 connection without a call is closed after this; 0 means never"),
            value("max_connection_age", Duration, "0s", "Every connection is closed after this time, give or take a tenth, once its open requests are answered, so that clients spread over replicas; 0 means never"),
            value("max_connection_age_grace", Duration, "0s", "Requests on a connection that has reached its age are cut off after this; 0 means never"),
            value("time", Duration, "1m", "A silent HTTP/2 connection is pinged after this").zero_is_default(),
            value("timeout", Duration, "20s", "A connection that leaves a ping unanswered for this long is closed").zero_is_default(),
        ]),
        row("enforcement_policy", Ignored, "clients may ping as often as they like; the HTTP/2 library limits floods"),
    ]),
    row("read_buffer_size", Ignored, "bodies are read into buffers of their own size"),
    row("write_buffer_size", Ignored, FEW_BYTES),
    NO_METADATA,
    row("middlewares", Refused, NO_EXTENSIONS),
];

#[rustfmt::skip]
const HTTP: Settings = &[
    value("endpoint", Text("address"), "localhost:4318", ENDPOINT),
    value("traces_url_path", Text("path"), "/v1/traces", "Another path that accepts traces"),
    value("metrics_url_path", Text("path"), "/v1/metrics", "Another path that accepts metrics"),
    value("logs_url_path", Text("path"), "/v1/logs", "Another path that accepts logs"),
    value("max_request_body_size", Whole(0, 1 << 30, "bytes"), "20971520", "Largest HTTP body, also after decompression").zero_is_default(),
    value("idle_timeout", Duration, "5m", "An HTTP/1.1 connection without a request is closed after this").zero_is_default(),
    row("keep_alives_enabled", Only("true"), "clients that want one connection per request close it themselves"),
    NO_METADATA,
    row("compression_algorithms", Refused, "gzip, zstd, deflate and uncompressed bodies are always accepted, and nothing else"),
    section("cors", &[
        value("allowed_origins", Texts("list of origins"), "[]", "Browsers may send from pages of these origins, such as `https://shop.example.com`; a `*` in one stands for any characters. Without any, browsers refuse to send"),
        value("allowed_headers", Texts("list of headers"), "[]", "Headers that pages may send beside `accept`, `content-type` and `x-requested-with`; `*` means any. A token needs `authorization`"),
        value("max_age", Whole(0, 86400, "seconds"), "0", "How long browsers remember the answer; 0 leaves that to them"),
        row("exposed_headers", Refused, "answers have no headers of use to a page"),
    ]),
    row("response_headers", Refused, "answers carry what the protocol requires"),
    row("read_timeout|read_header_timeout|write_timeout", Refused, "the timeouts are fixed: 10 s for the headers of a request, 30 s for its body"),
    row("middlewares", Refused, NO_EXTENSIONS),
];

#[rustfmt::skip]
const GRPC_OR_HTTP: Settings = &[
    value("transport", Word(&["tcp", "unix"]), "tcp", "Kind of socket; with `unix`, `endpoint` is the path of the socket"),
    section("tls", &[
        CERT_FILE, CERT_PEM, KEY_FILE, KEY_PEM,
        value("client_ca_file", Text("path"), "", "CA certificates, PEM: every client must present a certificate signed by one of them. Without it, clients are not asked for one"),
        MIN_VERSION, MAX_VERSION,
        value("reload_interval", Duration, "", "How often the agent looks for changed files while clients connect").described("`1s`"),
        row("client_ca_file_reload", Ignored, "every file is read again when it has changed"),
        row("ca_file|ca_pem", Refused, "means nothing to a server; clients are verified by client_ca_file"),
        CIPHER_SUITES, CURVES, TPM,
    ]),
    section("auth", &[
        value("authenticator", NonEmpty("id of an extension"), "", "A `bearertokenauth` that names the tokens of which clients must send one; every port accepts both protocols, so both sections need the same").required("name a bearertokenauth under extensions"),
        row("request_params", Refused, "parameters of the URL are not looked at"),
    ]),
];

#[rustfmt::skip]
const CERT_FILE: Setting = value("cert_file", Text("path"), "", "The agent's certificate chain, PEM; like every file here, read again when it has changed");
const CERT_PEM: Setting = inline("cert_pem");
#[rustfmt::skip]
const KEY_FILE: Setting = value("key_file", Text("path"), "", "The private key of the certificate, PEM (PKCS#8, PKCS#1 or SEC 1)");
const KEY_PEM: Setting = inline("key_pem");
const TLS_VERSION: ValueKind = Word(&["1.2", "1.3"]);
#[rustfmt::skip]
const MIN_VERSION: Setting = value("min_version", TLS_VERSION, "1.2", "Lowest TLS version");
#[rustfmt::skip]
const MAX_VERSION: Setting = value("max_version", TLS_VERSION, "1.3", "Highest TLS version");
#[rustfmt::skip]
const CIPHER_SUITES: Setting = row("cipher_suites", Refused, "is not supported; the agent uses only suites without known weaknesses, set min_version instead");
#[rustfmt::skip]
const CURVES: Setting = row("curve_preferences", Refused, "is not supported; the agent offers X25519, P-256 and P-384, in this order");
#[rustfmt::skip]
const TPM: Setting = row("tpm", Refused, "is not supported; the agent reads keys from key_file or key_pem");

#[rustfmt::skip]
const fn inline(name: &'static str) -> Setting {
    value(name, Text("PEM"), "", "The same, written in the configuration")
}

#[rustfmt::skip]
const PROCESSORS: Settings = &[
    section("memory_limiter", &[
        value("limit_mib", Whole(1, 1 << 20, "MiB"), "64", "Memory for telemetry, 192 bytes more for each request, compressed batches, and connections").described("(required); 64 without the processor").required("give the limit in MiB"),
        value("spike_limit_mib", Whole(0, 1 << 20, "MiB"), "", "Reserve for exports: new requests are refused above limit - spike; 0 means the default").described("a fifth of the limit"),
        row("check_interval|min_gc_interval_when_soft_limited|max_gc_interval_when_soft_limited|max_gc_interval_when_hard_limited", Ignored, "memory is counted byte by byte before it is used, and there is no garbage collector"),
        row("limit_percentage|spike_limit_percentage", Refused, "percentages are not supported; use limit_mib"),
    ]),
    section("resource", &[row("attributes", List(&[
        value("key", NonEmpty("string"), "", "The resource attribute").required("name the attribute"),
        value("action", Word(&["insert", "update", "upsert", "delete"]), "", "`insert` sets it where it is absent, `update` where it is present, `upsert` in any case; `delete` removes it").required("use insert, update, upsert or delete"),
        value("value", Scalar, "", "Its value, which every action but `delete` needs. A reference to nothing, as `${env:NAME:-}`, is not inserted"),
        value("from_attribute", NonEmpty("string"), "", "Instead of a value, with action `insert`: the attribute whose value it gets, if there is that attribute"),
        row("from_context|default_value|pattern|converted_type", Refused, "is not supported; give a literal value"),
    ]), "")]),
    row("batch", Refused, "`batch` is not supported; set sending_queue.batch of the exporter instead"),
];

const SIZE: ValueKind = Whole(1, 64 << 30, "bytes");

#[rustfmt::skip]
const EXPORTERS: Settings = &[
    section("otlp_grpc", OTLP_GRPC),
    section("otlp_http", OTLP_HTTP),
    row("otlp", Alias("otlp_grpc"), ""),
    row("otlphttp", Alias("otlp_http"), ""),
    section("otlp_*", OTLP),
    section("debug", &[
        value("verbosity", Word(&["basic"]), "basic", "At most one log line a second per signal, with the number of requests, items and bytes"),
        row("sampling_initial|sampling_thereafter", Ignored, "the exporter writes at most one line a second"),
        row("use_internal_logger", Ignored, ONE_LOG),
        row("output_paths", Refused, ONE_LOG),
    ]),
    section("nop", &[]),
];

#[rustfmt::skip]
const OTLP_GRPC: Settings = &[
    value("endpoint", Text("address or URL"), "", "Host and port of the upstream; a leading `http://` means plaintext. The port defaults to 4317").described("(required)"),
    value("timeout", Duration, "5s", "Limit of one attempt, connecting included").zero_is_default(),
    value("user_agent", Text("string"), "", "`user-agent` of every request").described("`otelagent-agent/<version>`"),
    value("authority", Text("string"), "", "`:authority` of every request").described("the endpoint"),
    row("balancer_name", Only("round_robin"), "every new connection goes to a random address of the name"),
    row("wait_for_ready", Ignored, "a batch waits for the upstream in any case"),
    row("keepalive", Ignored, "calls share one HTTP/2 connection, which is renewed from time to time"),
    row("read_buffer_size", Ignored, FEW_BYTES),
    row("write_buffer_size", Ignored, NO_COPY),
];

#[rustfmt::skip]
const OTLP_HTTP: Settings = &[
    value("endpoint", Text("URL"), "", "URL of the upstream, to which `/v1/<signal>` is appended. Required unless every signal in use has an endpoint of its own"),
    value("traces_endpoint", Text("URL"), "", "Full URL for traces, used as it is instead of `endpoint`"),
    value("metrics_endpoint", Text("URL"), "", "The same for metrics"),
    value("logs_endpoint", Text("URL"), "", "The same for logs"),
    value("profiles_endpoint", Text("URL"), "", "The same for profiles"),
    value("timeout", Duration, "30s", "Limit of one attempt, connecting included").zero_is_default(),
    value("encoding", Word(&["proto"]), "proto", "Encoding of request bodies"),
    section("compression_params", &[
        row("level", Only("1"), "higher levels cost several times the CPU for a few percent of size"),
    ]),
    row("read_buffer_size", Ignored, FEW_BYTES),
    row("write_buffer_size", Ignored, NO_COPY),
    row("max_idle_conns|max_idle_conns_per_host|max_conns_per_host", Ignored, "there are as many connections as requests in flight, see sending_queue.num_consumers"),
    row("idle_conn_timeout", Ignored, "connections are renewed from time to time"),
    row("force_attempt_http2|http2_read_idle_timeout|http2_ping_timeout", Ignored, "the agent uses HTTP/1.1, which costs the upstream less"),
    value("proxy_url", Text("URL"), "", "The HTTP proxy on the way to the upstream, as `http://user:password@host:port`").described("by the environment, see [proxies](#proxies-and-failover)"),
    row("cookies", Refused, "cookies are not kept"),
];

#[rustfmt::skip]
const OTLP: Settings = &[
    section("tls", CLIENT_TLS),
    value("compression", Word(&["none", "gzip", "zstd"]), "gzip", "Compression of requests, always at level 1"),
    value("headers", Strings, "", "Sent with every request; the values are never printed"),
    section("sending_queue", QUEUE),
    section("retry_on_failure", &[
        value("enabled", Flag, "true", "`false`: one attempt, then the batch is counted as lost"),
        value("initial_interval", Duration, "5s", "First wait"),
        value("max_interval", Duration, "30s", "Longest wait, unless the upstream asks for more"),
        value("multiplier", Number(1.0, 100.0), "1.5", "Growth from one wait to the next"),
        value("randomization_factor", Number(0.0, 1.0), "0.5", "Each wait varies by this share in both directions"),
        value("max_elapsed_time", Duration, "0s", "A batch is given up after this; 0 means never. The collector's default is 5m"),
        value("max_wait", Duration, "5m", "Longest wait that an upstream can ask for; the collector has no such limit"),
        value("hold", Flag, "true", "While the upstream refuses the agent (401, 403, 404, 405, 501, a redirect; gRPC 7, 12, 16) or says without a delay that it cannot take more, by a status that is final in OTLP (gRPC 8; HTTP 408, 507, 520 and others), telemetry waits, and one probe every `max_interval` finds the end of it. `false`: it is counted as lost at once, as in the collector"),
    ]),
    section("failover", &[
        value("endpoints", Ids("list of URLs"), "[]", "Endpoints to use, in this order, while `endpoint` and those before them fail; the collector does not have this setting"),
        value("retry_interval", Duration, "1m", "How often the endpoints before the one in use are tried again").zero_is_default(),
    ]),
    row("auth", Refused, "there are no authenticators; give credentials as headers, with ${file:PATH}"),
    row("middlewares", Refused, NO_EXTENSIONS),
];

#[rustfmt::skip]
const CLIENT_TLS: Settings = &[
    value("insecure", Flag, "false", "Plaintext, if the endpoint has no scheme"),
    value("insecure_skip_verify", Flag, "false", "Any certificate is accepted: the connection is encrypted, but the upstream is not verified"),
    value("server_name_override", Text("string"), "", "The name the upstream's certificate must be for").described("the endpoint's host"),
    value("ca_file", Text("path"), "", "CA certificates that may sign the upstream's certificate, or that certificate itself, PEM; like every file here, read again when it has changed").described("the system's CA certificates"),
    inline("ca_pem"),
    value("include_system_ca_certs_pool", Flag, "false", "The system's CA certificates are trusted, too"),
    CERT_FILE, CERT_PEM, KEY_FILE, KEY_PEM, MIN_VERSION, MAX_VERSION,
    value("reload_interval", Duration, "", "How often the agent looks for changed files while there is something to send").described("`1s`"),
    CIPHER_SUITES, CURVES, TPM,
];

#[rustfmt::skip]
const QUEUE: Settings = &[
    row("enabled", Only("true"), "the queue cannot be switched off"),
    row("block_on_overflow", Only("false"), "a full queue answers at once that the client may retry"),
    row("wait_for_result", Only("false"), "clients are answered as soon as their telemetry is held"),
    sizer("Required with `queue_size`: the agent counts bytes"),
    value("queue_size", SIZE, "67108864", "Uncompressed bytes of one signal that may wait or be in flight, in memory and on disk, where compressed files count as they are; without a storage each request counts for 192 bytes more"),
    value("num_consumers", Whole(1, 1000, "requests"), "10", "Requests in flight per signal"),
    value("storage", Text("id of an extension"), "", "A `file_storage` that keeps the queue on disk, too"),
    section("batch", &[
        value("flush_timeout", Duration, "200ms", "The oldest request waits this long for others to join it"),
        sizer("Required with `min_size` or `max_size`"),
        value("min_size", SIZE, "3145728", "A batch this large is sent at once").described("`3145728`, at most `max_size`"),
        value("max_size", SIZE, "3145728", "Requests are never merged beyond this, nor beyond 8192 requests or what can be compressed in the reserve for exports").described("`3145728`, at least `min_size`"),
        row("partition", Refused, "the headers of clients are not kept, so there is nothing to partition by"),
    ]),
];

const fn sizer(meaning: &'static str) -> Setting {
    value("sizer", Word(&["bytes"]), "", meaning)
}

const V2: &str =
    "belongs to the collector's second version of health checks; /delivery answers instead";

#[rustfmt::skip]
const EXTENSIONS: Settings = &[
    section("health_check", &[
        value("endpoint", Text("address"), "localhost:13133", "Where health is served"),
        value("path", Text("path"), "/", "Another path that answers as `/ready` does"),
        row("response_body", Refused, "the body reports delivery, queue and memory"),
        row("tls", Refused, "probes are plaintext"),
        row("check_collector_pipeline", Refused, "use /delivery, which reports more"),
        row("use_v2", Only("false"), V2),
        row("http|grpc|component_health", Refused, V2),
    ]),
    section("file_storage", &[
        value("directory", NonEmpty("path"), "/var/lib/otelcol/file_storage", "Directory of the queues on disk; several agents may share it"),
        value("create_directory", Flag, "false", "Create the directory if it is missing"),
        value("directory_permissions", Text("octal mode"), "0750", "Mode of created directories"),
        value("fsync", Flag, "false", "Acknowledge only what survives a power failure; otherwise, what survives the end of the process"),
        value("max_size", Whole(0, u64::MAX >> 1, "bytes"), "0", "Size the files of one signal may have; 0 means that only `queue_size` limits them"),
        row("timeout", Ignored, "how long to wait for a lock; the agent waits for none"),
        row("compaction", Ignored, "files are deleted whole; there is nothing to compact"),
        row("recreate", Only("false"), "damage on disk costs only the records it has hit"),
    ]),
    section("bearertokenauth", &[
        value("token", Text("string"), "", "The token that clients must send. Never printed"),
        value("tokens", Texts("list of strings"), "[]", "Several tokens, of which clients must send one"),
        value("filename", Text("path"), "", "A file of tokens, one a line, read again when it has changed; `token` and `tokens` are ignored then"),
        value("scheme", Text("string"), "Bearer", "What stands before the token in the header; empty for nothing"),
        value("header", NonEmpty("name"), "Authorization", "The header"),
    ]),
    row("zpages", Ignored, "there are no such pages, use the metrics; the agent logs a warning"),
    row("pprof", Ignored, "there is nothing to profile with Go's tools; the agent logs a warning"),
];

#[rustfmt::skip]
const SERVICE: Settings = &[
    value("extensions", Ids("list of ids"), "[]", "The extensions in use"),
    row("pipelines", Components(&[
        section("traces|metrics|logs|profiles", &[]),
        section("*", &[
            value("receivers", Ids("list of ids"), "", "One pipeline for each of `traces`, `metrics`, `logs` and `profiles`; all of them use one receiver; several may differ in their endpoints, and all pipelines then have the ports of all").described("(required)"),
            value("processors", Ids("list of ids"), "[]", "A `memory_limiter` applies to all pipelines, whatever its position; `resource` processors apply in this order"),
            value("exporters", Ids("list of one id"), "", "Where the signal is sent").described("(required)"),
        ]),
    ]), "").required("configure traces, metrics, logs or profiles"),
    section("telemetry", &[
        section("metrics", METRICS),
        section("logs", LOGS),
        value("resource", Strings, "", "Attributes of the resource of metrics that are pushed, beside `service.name`, `service.version` and `service.instance.id` or instead of them; `null` leaves one of these out. No series of `/metrics` and no line of the log carries them"),
        row("traces", Refused, "the agent does not trace itself"),
    ]),
];

#[rustfmt::skip]
const METRICS: Settings = &[
    value("level", Word(&["none", "basic", "normal", "detailed"]), "normal", "`none` closes the port and pushes nothing; the others are the same"),
    row("readers", List(&[
        section("pull", &[section("exporter", &[section("prometheus", &[
            value("host", Text("string"), "localhost", "Where `/metrics` is served"),
            value("port", Whole(0, u16::MAX as u64, "port"), "8888", "Where `/metrics` is served"),
            value("without_type_suffix", Flag, "false", "Leave `_total` off counters").described("`false`; `true` without readers"),
            value("without_units", Flag, "false", "Leave `_bytes` and `_seconds` off").described("`false`; `true` without readers"),
            row("without_scope_info", Ignored, "no series carries scope labels"),
            row("with_resource_constant_labels", Ignored, "no series carries resource labels"),
        ]).required("write prometheus, which alone can be pulled")]).required("write an exporter with prometheus")]),
        section("periodic", &[
            value("interval", Whole(100, 86_400_000, "milliseconds"), "60000", "How often the metrics are pushed"),
            value("timeout", Whole(1, 86_400_000, "milliseconds"), "30000", "Limit of one push"),
            section("exporter", &[
                section("otlp", OTLP_PUSH).required("write otlp with protocol and endpoint"),
                row("console", Refused, "metrics are not printed; read /metrics"),
                row("otlp_http|otlp_grpc", Refused, "is a key of a later schema, which the collector (v0.162) does not take either; write otlp with protocol: http/protobuf or grpc"),
            ]).required("write an exporter with otlp"),
        ]),
        row("producers", Refused, "there are no metrics but the agent's own"),
    ]), ""),
    row("address", Refused, "the collector no longer supports it either; use readers"),
    row("views", Refused, "the metrics cannot be changed"),
];

#[rustfmt::skip]
const OTLP_PUSH: Settings = &[
    value("protocol", Word(&["http/protobuf", "grpc"]), "", "How the metrics are sent").required("write http/protobuf or grpc"),
    value("endpoint", NonEmpty("URL or address"), "", "Where they are sent. Without a scheme, `insecure` decides about TLS. For `http/protobuf` a path is used as it is, and none means `/v1/metrics`").required("write for example http://collector:4318/v1/metrics, or http://collector:4317 with protocol: grpc"),
    value("insecure", Flag, "false", "Plaintext, if the endpoint has no scheme"),
    value("certificate", Text("path"), "", "CA certificates that may sign the endpoint's certificate, or that certificate itself, PEM; like every file here, read again when it has changed").described("the system's CA certificates"),
    value("client_certificate", Text("path"), "", "The agent's certificate chain, PEM"),
    value("client_key", Text("path"), "", "The private key of the certificate, PEM (PKCS#8, PKCS#1 or SEC 1)"),
    value("compression", Word(&["none", "gzip"]), "none", "Compression of requests, at level 1"),
    value("timeout", Whole(1, 86_400_000, "milliseconds"), "10000", "Limit of one attempt, connecting included"),
    row("headers", List(&[
        value("name", NonEmpty("name"), "", "A header that is sent with every request").required("name the header"),
        value("value", Text("string"), "", "Its value, which is never printed").required("give its value"),
    ]), "a list of mappings with name and value"),
    row("temporality_preference", Only("cumulative"), "every value counts from the start of the process, as on /metrics"),
    row("default_histogram_aggregation", Only("explicit_bucket_histogram"), "histograms have fixed bounds, as on /metrics"),
    row("headers_list", Refused, "is not supported; write headers"),
    row("tls", Refused, "is a key of a later schema, which the collector (v0.162) does not take either; write certificate, client_certificate, client_key and insecure"),
];

#[rustfmt::skip]
const LOGS: Settings = &[
    value("level", Word(&["debug", "info", "warn", "error"]), "info", "Least severe level that is logged"),
    value("encoding", Word(&["json", "console"]), "console", "Format of log lines"),
    value("output_paths", Ids("`[stderr]` or `[stdout]`"), "[stderr]", "Where log lines go"),
    row("sampling", Ignored, "repeated lines are folded into one a minute, with their number"),
    row("development", Ignored, "there is no development mode"),
    row("disable_caller", Ignored, "lines name no caller"),
    row("disable_stacktrace", Ignored, "lines have no stack traces"),
    row("error_output_paths", Ignored, "the log has no errors of its own"),
    row("initial_fields|processors", Refused, "log lines have one fixed set of fields"),
];
