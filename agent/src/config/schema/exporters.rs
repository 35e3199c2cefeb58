//! The schema of `exporters`.

use super::receivers::{
    CERT_FILE, CERT_PEM, CIPHER_SUITES, CURVES, FEW_BYTES, KEY_FILE, KEY_PEM, MAX_VERSION,
    MIN_VERSION, NO_EXTENSIONS, TPM, inline,
};
use super::setting::ValueKind::{self, Duration, Flag, Number, Strings, Text, Whole, Word};
use super::setting::{Setting, Settings, alias, ignored, only, refused, section, value};

const SIZE: ValueKind = Whole(1, 64 << 30, "bytes");

const ONE_LOG: &str = "the agent has only one log";

const FOLDED: &str = "the exporter writes at most one line a second";

const LESS_COSTLY: &str = "the agent uses HTTP/1.1, which costs the upstream less";

const NO_COPY: &str = "batches are sent from where they are in memory";

#[rustfmt::skip]
pub(super) const TYPES: Settings = &[
    section("otlp_grpc", GRPC),
    section("otlp_http", HTTP),
    alias("otlp", "otlp_grpc"),
    alias("otlphttp", "otlp_http"),
    section("otlp_*", BOTH),
    section("debug", &[
        value("verbosity", Word(&["basic"]), "basic", "At most one log line a second per signal, with the number of requests, items and bytes"),
        ignored("sampling_initial|sampling_thereafter", FOLDED),
        ignored("use_internal_logger", ONE_LOG),
        refused("output_paths", ONE_LOG),
    ]),
    section("nop", &[]),
];

#[rustfmt::skip]
const GRPC: Settings = &[
    value("endpoint", Text("address or URL"), "", "Host and port of the upstream; a leading `http://` means plaintext. The port defaults to 4317").described("(required)"),
    value("timeout", Duration, "5s", "Limit of one attempt, connecting included").zero_is_default(),
    value("user_agent", Text("string"), "", "`user-agent` of every request").described("`otelagent-agent/<version>`"),
    value("authority", Text("string"), "", "`:authority` of every request").described("the endpoint"),
    only("balancer_name", "round_robin", "every new connection goes to a random address of the name"),
    ignored("wait_for_ready", "a batch waits for the upstream in any case"),
    ignored("keepalive", "calls share one HTTP/2 connection, which is renewed from time to time"),
    ignored("read_buffer_size", FEW_BYTES),
    ignored("write_buffer_size", NO_COPY),
];

#[rustfmt::skip]
const HTTP: Settings = &[
    value("endpoint", Text("URL"), "", "URL of the upstream, to which `/v1/<signal>` is appended. Required unless every signal in use has an endpoint of its own"),
    value("traces_endpoint", Text("URL"), "", "Full URL for traces, used as it is instead of `endpoint`"),
    value("metrics_endpoint", Text("URL"), "", "The same for metrics"),
    value("logs_endpoint", Text("URL"), "", "The same for logs"),
    value("profiles_endpoint", Text("URL"), "", "The same for profiles"),
    value("timeout", Duration, "30s", "Limit of one attempt, connecting included").zero_is_default(),
    value("encoding", Word(&["proto"]), "proto", "Encoding of request bodies"),
    section("compression_params", &[
        only("level", "1", "higher levels cost several times the CPU for a few percent of size"),
    ]),
    ignored("read_buffer_size", FEW_BYTES),
    ignored("write_buffer_size", NO_COPY),
    ignored("max_idle_conns|max_idle_conns_per_host|max_conns_per_host", "there are as many connections as requests in flight, see sending_queue.num_consumers"),
    ignored("idle_conn_timeout", "connections are renewed from time to time"),
    ignored("force_attempt_http2|http2_read_idle_timeout|http2_ping_timeout", LESS_COSTLY),
    refused("proxy_url", "proxies are not supported; HTTP_PROXY and similar variables are not read either"),
    refused("cookies", "cookies are not kept"),
];

#[rustfmt::skip]
const BOTH: Settings = &[
    section("tls", TLS),
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
        value("hold", Flag, "true", "While the upstream refuses the agent (401, 403, 404, 405, 501, a redirect; gRPC 7, 12, 16) or says without a delay that a quota is exhausted (gRPC 8), telemetry waits, and one probe every `max_interval` finds the end of it. `false`: it is counted as lost at once, as in the collector"),
    ]),
    refused("auth", "there are no authenticators; give credentials as headers, with ${file:PATH}"),
    refused("middlewares", NO_EXTENSIONS),
];

#[rustfmt::skip]
const TLS: Settings = &[
    value("insecure", Flag, "false", "Plaintext, if the endpoint has no scheme"),
    value("insecure_skip_verify", Flag, "false", "Any certificate is accepted: the connection is encrypted, but the upstream is not verified"),
    value("server_name_override", Text("string"), "", "The name the upstream's certificate must be for").described("the endpoint's host"),
    value("ca_file", Text("path"), "", "CA certificates that may sign the upstream's certificate, PEM; like every file here, read again when it has changed").described("the system's CA certificates"),
    inline("ca_pem"),
    value("include_system_ca_certs_pool", Flag, "false", "The system's CA certificates are trusted, too"),
    CERT_FILE, CERT_PEM, KEY_FILE, KEY_PEM, MIN_VERSION, MAX_VERSION,
    value("reload_interval", Duration, "", "How often the agent looks for changed files while there is something to send").described("`1s`"),
    CIPHER_SUITES, CURVES, TPM,
];

#[rustfmt::skip]
const QUEUE: Settings = &[
    only("enabled", "true", "the queue cannot be switched off"),
    only("block_on_overflow", "false", "a full queue answers at once that the client may retry"),
    only("wait_for_result", "false", "clients are answered as soon as their telemetry is held"),
    sizer("Required with `queue_size`: the agent counts bytes"),
    value("queue_size", SIZE, "67108864", "Uncompressed bytes of one signal that may wait or be in flight, in memory and on disk"),
    value("num_consumers", Whole(1, 1000, "requests"), "10", "Requests in flight per signal"),
    value("storage", Text("id of an extension"), "", "A `file_storage` that keeps the queue on disk, too"),
    section("batch", &[
        value("flush_timeout", Duration, "200ms", "The oldest request waits this long for others to join it"),
        sizer("Required with `min_size` or `max_size`"),
        value("min_size", SIZE, "3145728", "A batch this large is sent at once").described("`3145728`, at most `max_size`"),
        value("max_size", SIZE, "3145728", "Requests are never merged beyond this").described("`3145728`, at least `min_size`"),
        refused("partition", "the headers of clients are not kept, so there is nothing to partition by"),
    ]),
];

const fn sizer(meaning: &'static str) -> Setting {
    value("sizer", Word(&["bytes"]), "", meaning)
}
