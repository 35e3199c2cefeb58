//! The table of fields: `receivers`. Must not know how a field is read.

use super::{CURVES, Field, KEYS, SUITES, ignored, only, refused, taken};

const SERVER_CA: &str = "means nothing to a server; clients are verified by client_ca_file";

const BOTH: &str =
    "Host and port; an empty host means every address. Every port takes both protocols";

const CLOCKED: &str = "fixed: a request has 10 s for its headers and 30 s for its body";

const NO_AUTH: &str = "clients are not authenticated; keep the port private to the node or the pod";

const NO_METADATA: &str = "headers of clients are not kept beside telemetry";

#[rustfmt::skip]
pub(super) const FIELDS: &[Field] = &[
    taken("receivers.otlp.protocols.grpc.endpoint", "address", "localhost:4317", BOTH),
    taken("receivers.otlp.protocols.*.transport", "`tcp` or `unix`", "tcp", "Kind of socket; with `unix` the endpoint is a path"),
    taken("receivers.otlp.protocols.grpc.max_recv_msg_size_mib", "MiB, 0 to 1024", "4", "Largest gRPC message, also after decompression; 0 means the default"),
    taken("receivers.otlp.protocols.grpc.max_concurrent_streams", "number", "256", "Calls one HTTP/2 connection may have open; 0 means the default"),
    taken("receivers.otlp.protocols.grpc.keepalive.server_parameters.max_connection_idle", "duration", "5m", "An HTTP/2 connection without a call is closed after this; 0 means never"),
    taken("receivers.otlp.protocols.grpc.keepalive.server_parameters.max_connection_age", "duration", "0s", "Every connection is closed after this, spread by a tenth, once its open requests are answered, so that clients spread over replicas; 0 means never"),
    taken("receivers.otlp.protocols.grpc.keepalive.server_parameters.max_connection_age_grace", "duration", "0s", "Requests of a connection that reached its age are cut off after this; 0 means never"),
    taken("receivers.otlp.protocols.grpc.keepalive.server_parameters.time", "duration", "1m", "A silent HTTP/2 connection is pinged after this; 0 means the default"),
    taken("receivers.otlp.protocols.grpc.keepalive.server_parameters.timeout", "duration", "20s", "A ping that is not answered for this long ends the connection; 0 means the default"),
    ignored("receivers.otlp.protocols.grpc.keepalive.enforcement_policy", "clients may ping as often as they like; floods are bounded by the HTTP/2 library"),
    ignored("receivers.otlp.protocols.grpc.read_buffer_size", "bodies are read into buffers of their own size"),
    ignored("receivers.otlp.protocols.grpc.write_buffer_size", "answers are a few bytes"),
    only("receivers.otlp.protocols.grpc.include_metadata", "false", NO_METADATA),
    refused("receivers.otlp.protocols.grpc.auth", NO_AUTH),
    refused("receivers.otlp.protocols.grpc.middlewares", "there are no extensions that could be called"),
    taken("receivers.otlp.protocols.*.tls.cert_file", "path", "", "The agent's certificate and those that lead to its authority, PEM; read again when it has changed, like every file here"),
    taken("receivers.otlp.protocols.*.tls.cert_pem", "PEM", "", "The same in the document"),
    taken("receivers.otlp.protocols.*.tls.key_file", "path", "", "Its private key, PEM (PKCS#8, PKCS#1 or SEC 1)"),
    taken("receivers.otlp.protocols.*.tls.key_pem", "PEM", "", "The same in the document"),
    taken("receivers.otlp.protocols.*.tls.client_ca_file", "path", "", "Authorities one of which must vouch for every client, PEM; without it nobody is asked"),
    taken("receivers.otlp.protocols.*.tls.min_version", "`1.2` or `1.3`", "1.2", "Least version that is spoken"),
    taken("receivers.otlp.protocols.*.tls.max_version", "`1.2` or `1.3`", "1.3", "Highest version that is spoken"),
    taken("receivers.otlp.protocols.*.tls.reload_interval", "duration", "1s", "How often the files are looked at while clients connect"),
    ignored("receivers.otlp.protocols.*.tls.client_ca_file_reload", "every file is read again when it has changed"),
    refused("receivers.otlp.protocols.*.tls.ca_file", SERVER_CA),
    refused("receivers.otlp.protocols.*.tls.ca_pem", SERVER_CA),
    refused("receivers.otlp.protocols.*.tls.cipher_suites", SUITES),
    refused("receivers.otlp.protocols.*.tls.curve_preferences", CURVES),
    refused("receivers.otlp.protocols.*.tls.tpm", KEYS),
    taken("receivers.otlp.protocols.http.endpoint", "address", "localhost:4318", BOTH),
    taken("receivers.otlp.protocols.http.traces_url_path", "path", "/v1/traces", "A further path that takes traces"),
    taken("receivers.otlp.protocols.http.metrics_url_path", "path", "/v1/metrics", "A further path that takes metrics"),
    taken("receivers.otlp.protocols.http.logs_url_path", "path", "/v1/logs", "A further path that takes logs"),
    taken("receivers.otlp.protocols.http.max_request_body_size", "bytes, up to 1 GiB", "20971520", "Largest HTTP body, also after decompression; 0 means the default"),
    taken("receivers.otlp.protocols.http.idle_timeout", "duration", "5m", "An HTTP/1.1 connection without a request is closed after this; 0 means the default"),
    only("receivers.otlp.protocols.http.keep_alives_enabled", "true", "clients that want a connection per request close it themselves"),
    refused("receivers.otlp.protocols.http.compression_algorithms", "none, gzip and zstd are taken always, and nothing else"),
    refused("receivers.otlp.protocols.http.cors", "browsers cannot send to this agent; let a collector take their telemetry"),
    refused("receivers.otlp.protocols.http.response_headers", "answers carry what the protocol asks for"),
    refused("receivers.otlp.protocols.http.read_timeout", CLOCKED),
    refused("receivers.otlp.protocols.http.read_header_timeout", CLOCKED),
    refused("receivers.otlp.protocols.http.write_timeout", CLOCKED),
    only("receivers.otlp.protocols.http.include_metadata", "false", NO_METADATA),
    refused("receivers.otlp.protocols.http.auth", NO_AUTH),
    refused("receivers.otlp.protocols.http.middlewares", "there are no extensions that could be called"),
];
