//! The schema of `receivers`, and what the TLS settings of receivers and exporters have in common.

use super::setting::ValueKind::{self, Duration, Text, Whole, Word};
use super::setting::{Setting, Settings, ignored, only, refused, section, value};

const GIB: u64 = 1 << 30;

const ENDPOINT: &str = "Host and port to listen on; an empty host means every address. Every port accepts both gRPC and HTTP";

const NO_AUTH: &str = "clients are not authenticated; keep the port private to the node or the pod";

pub(super) const NO_EXTENSIONS: &str = "there are no extensions that could be called";

pub(super) const FEW_BYTES: &str = "answers are a few bytes";

const NO_METADATA: Setting = only(
    "include_metadata",
    "false",
    "the headers of clients are not kept with their telemetry",
);

#[rustfmt::skip]
pub(super) const TYPES: Settings = &[section("otlp", &[section("protocols", &[
    section("grpc", GRPC),
    section("http", HTTP),
    section("*", BOTH),
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
        ignored("enforcement_policy", "clients may ping as often as they like; the HTTP/2 library limits floods"),
    ]),
    ignored("read_buffer_size", "bodies are read into buffers of their own size"),
    ignored("write_buffer_size", FEW_BYTES),
    NO_METADATA,
    refused("auth", NO_AUTH),
    refused("middlewares", NO_EXTENSIONS),
];

#[rustfmt::skip]
const HTTP: Settings = &[
    value("endpoint", Text("address"), "localhost:4318", ENDPOINT),
    value("traces_url_path", Text("path"), "/v1/traces", "Another path that accepts traces"),
    value("metrics_url_path", Text("path"), "/v1/metrics", "Another path that accepts metrics"),
    value("logs_url_path", Text("path"), "/v1/logs", "Another path that accepts logs"),
    value("max_request_body_size", Whole(0, GIB, "bytes"), "20971520", "Largest HTTP body, also after decompression").zero_is_default(),
    value("idle_timeout", Duration, "5m", "An HTTP/1.1 connection without a request is closed after this").zero_is_default(),
    only("keep_alives_enabled", "true", "clients that want one connection per request close it themselves"),
    NO_METADATA,
    refused("compression_algorithms", "gzip, zstd and uncompressed bodies are always accepted, and nothing else"),
    refused("cors", "browsers cannot send to this agent; let a collector receive their telemetry"),
    refused("response_headers", "answers carry what the protocol requires"),
    refused("read_timeout|read_header_timeout|write_timeout", "the timeouts are fixed: 10 s for the headers of a request, 30 s for its body"),
    refused("auth", NO_AUTH),
    refused("middlewares", NO_EXTENSIONS),
];

#[rustfmt::skip]
const BOTH: Settings = &[
    value("transport", Word(&["tcp", "unix"]), "tcp", "Kind of socket; with `unix`, `endpoint` is the path of the socket"),
    section("tls", &[
        CERT_FILE, CERT_PEM, KEY_FILE, KEY_PEM,
        value("client_ca_file", Text("path"), "", "CA certificates, PEM: every client must present a certificate signed by one of them. Without it, clients are not asked for one"),
        MIN_VERSION, MAX_VERSION,
        value("reload_interval", Duration, "", "How often the agent looks for changed files while clients connect").described("`1s`"),
        ignored("client_ca_file_reload", "every file is read again when it has changed"),
        refused("ca_file|ca_pem", "means nothing to a server; clients are verified by client_ca_file"),
        CIPHER_SUITES, CURVES, TPM,
    ]),
];

pub(super) const CERT_FILE: Setting = value(
    "cert_file",
    Text("path"),
    "",
    "The agent's certificate chain, PEM; like every file here, read again when it has changed",
);
pub(super) const CERT_PEM: Setting = inline("cert_pem");
pub(super) const KEY_FILE: Setting = value(
    "key_file",
    Text("path"),
    "",
    "The private key of the certificate, PEM (PKCS#8, PKCS#1 or SEC 1)",
);
pub(super) const KEY_PEM: Setting = inline("key_pem");
const VERSIONS: ValueKind = Word(&["1.2", "1.3"]);
pub(super) const MIN_VERSION: Setting = value("min_version", VERSIONS, "1.2", "Lowest TLS version");
pub(super) const MAX_VERSION: Setting =
    value("max_version", VERSIONS, "1.3", "Highest TLS version");
pub(super) const CIPHER_SUITES: Setting = refused(
    "cipher_suites",
    "is not supported; the agent uses only suites without known weaknesses, set min_version instead",
);
pub(super) const CURVES: Setting = refused(
    "curve_preferences",
    "is not supported; the agent offers X25519, P-256 and P-384, in this order",
);
pub(super) const TPM: Setting = refused(
    "tpm",
    "is not supported; the agent reads keys from key_file or key_pem",
);

pub(super) const fn inline(name: &'static str) -> Setting {
    value(
        name,
        Text("PEM"),
        "",
        "The same, written in the configuration",
    )
}
