//! The configuration as types that can only express what the agent does. `schema` has the meanings and defaults
//! of settings.
#![expect(missing_docs, reason = "the schema documents the settings")]

pub use otelagent_flow::Retry;
pub use otlp_wire::{AttributeAction, AttributeEdit, AttributeValue};

use std::time::Duration;

use super::text::Text;
use otlp_wire::Signal;

/// The whole effective configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The sockets and the limits of one request.
    pub receiver: ReceiverConfig,
    /// One per configured signal.
    pub pipelines: Vec<Pipeline>,
    /// The exporters that a pipeline uses, in the order of their first use.
    pub exporters: Vec<Exporter>,
    /// How much telemetry the agent may hold.
    pub memory: Memory,
    /// The TCP address for health.
    pub health: Option<Health>,
    /// What the agent reports about itself.
    pub telemetry: Telemetry,
    /// Worth a log line but not a mistake, such as an unset variable.
    pub warnings: Vec<String>,
}

/// `receivers.otlp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// The component id, `otlp` or `otlp/name`; the `receiver` label of metrics.
    pub id: String,
    /// Each of them accepts both OTLP/gRPC and OTLP/HTTP.
    pub listen: Vec<ListenSocket>,
    /// Largest gRPC message in bytes, also after decompression.
    pub max_grpc_message: usize,
    /// Largest HTTP body in bytes, also after decompression.
    pub max_http_body: usize,
    /// Calls one HTTP/2 connection may have open.
    pub max_concurrent_streams: u32,
    /// Paths that accept a signal in addition to its default one.
    pub url_paths: Vec<(String, Signal)>,
    /// How long client connections live.
    pub connections: Connections,
    /// What clients must send to be accepted; none accepts everyone.
    pub auth: Option<BearerAuth>,
    /// Whether browsers may send; none means no.
    pub cors: Option<Cors>,
}

/// `bearertokenauth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BearerAuth {
    pub id: String,
    /// In lower case.
    pub header: String,
    /// What stands before the token; may be empty.
    pub scheme: String,
    pub tokens: Tokens,
}

/// Where tokens are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// In a file, one a line, read again when it has changed.
    File(String),
    /// In the configuration itself.
    Inline(Vec<Text>),
}

/// `cors`: at least one origin, in which `*` stands for any characters; names of headers are in lower case. A
/// `max_age` of 0 s says nothing to browsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub allowed_origins: Vec<String>,
    pub allowed_headers: Vec<String>,
    pub max_age: Duration,
}

/// How long client connections live; zero means without a limit, `ping_after` and `ping_timeout` are never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    pub idle_http1: Duration,
    pub idle_http2: Duration,
    pub max_age: Duration,
    pub max_age_grace: Duration,
    pub ping_after: Duration,
    pub ping_timeout: Duration,
}

/// One socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSocket {
    /// The address for clients.
    pub address: BindAddress,
    /// TLS towards clients; none means plaintext.
    pub tls: Option<ServerTls>,
}

/// The address of a socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// A TCP port.
    Tcp(Address),
    /// The absolute path of a Unix socket.
    Unix(String),
}

/// A host and a port to listen on; an empty host means every address.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Address {
    /// Name or literal address, without brackets.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
}

/// How one signal passes through the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// What it carries.
    pub signal: Signal,
    /// Ids of its processors, in order; the `processor` label of metrics.
    pub processors: Vec<String>,
    /// Edits of resource attributes, in order; none for profiles, which pass unchanged.
    pub attributes: Vec<AttributeEdit>,
    /// Index into [`Config::exporters`].
    pub exporter: usize,
}

/// The destination of a signal, and how to send to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Exporter {
    /// The component id, `otlp_grpc` or `otlp_grpc/name`; the `exporter` label of metrics.
    pub id: String,
    /// The only signal it carries, if the file gives that signal an endpoint of its own.
    pub signal: Option<Signal>,
    /// Wire protocol.
    pub protocol: Protocol,
    /// Host and port to connect to; empty for exporters that send nothing.
    pub endpoint: Address,
    /// TLS towards the upstream; none means plaintext.
    pub tls: Option<ClientTls>,
    /// Path before `/v1/<signal>` of OTLP/HTTP, without a trailing slash; with `signal` the whole path.
    /// Empty for gRPC.
    pub base_path: String,
    /// `user-agent` of requests, instead of the agent's own.
    pub user_agent: Option<String>,
    /// `:authority` of gRPC requests, instead of the endpoint.
    pub authority: Option<String>,
    /// Encoding of request bodies.
    pub compression: Compression,
    /// Limit of one attempt, connecting included.
    pub timeout: Duration,
    /// Sent with every request, names in lower case.
    pub headers: Vec<(String, Text)>,
    /// Telemetry kept while it cannot be sent.
    pub queue: Queue,
    /// Retries after a failed attempt.
    pub retry: Retry,
    /// The directory of the queue on disk; without it, the queue is in memory only.
    pub storage: Option<Storage>,
    /// The proxy on the way to the upstream.
    pub proxy: Option<Proxy>,
    /// The same with the endpoints to use, in order, while those before them fail.
    pub backups: Vec<Exporter>,
    /// How long a backup is in use before the endpoints before it are tried again.
    pub failover_interval: Duration,
}

/// `file_storage`: a directory for queues. A `max_size` of 0 means that only `queue_size` limits them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    pub id: String,
    pub directory: String,
    pub create_directory: bool,
    pub directory_permissions: u32,
    pub fsync: bool,
    pub max_size: u64,
}

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where it listens.
    pub address: Address,
    /// `user:password`.
    pub credentials: Option<Text>,
    /// The setting or the environment variable that names it.
    pub origin: &'static str,
}

/// How telemetry leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with binary protobuf.
    Http,
    /// Telemetry is counted in the log, then dropped.
    Debug,
    /// Telemetry is dropped.
    Nop,
}

/// Compression of requests to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain bytes.
    None,
    /// RFC 1952, level 1.
    Gzip,
    /// RFC 8878, level 1.
    Zstd,
}

impl Compression {
    /// Its name in the headers of both transports; none for plain bytes.
    pub fn encoding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// `sending_queue` and its `batch`, all sizes in uncompressed bytes. `capacity` is `queue_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    pub capacity: usize,
    pub consumers: usize,
    pub flush_timeout: Duration,
    pub min_size: usize,
    pub max_size: usize,
}

/// `memory_limiter`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Limit of the telemetry held.
    pub limit: usize,
    /// New requests are refused above `limit - spike`.
    pub spike: usize,
}

/// `health_check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where to listen.
    pub listen: Address,
    /// Another path that answers as `/ready` does.
    pub path: String,
}

/// `service.telemetry`; without `metrics` the port stays closed, without `push` nothing is pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    pub metrics: Option<MetricsReader>,
    pub push: Option<MetricsPush>,
    /// Attributes of the resource of pushed metrics; those without a value are left out.
    pub resource: Vec<(String, Option<String>)>,
    pub log_level: LogLevel,
    pub log_encoding: LogEncoding,
    pub log_output: LogOutput,
}

/// A Prometheus pull reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsReader {
    pub listen: Address,
    pub without_type_suffix: bool,
    pub without_units: bool,
}

/// A periodic reader. What an exporter does beside sending does not apply to it: queue, retries, storage, failover.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsPush {
    pub interval: Duration,
    /// Limit of one push, from reading the counters to the answer.
    pub timeout: Duration,
    pub exporter: Exporter,
}

/// Severity of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Start, stop and changes of state.
    Info,
    /// Possible problems.
    Warn,
    /// Losses of telemetry.
    Error,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEncoding {
    /// One JSON object per line.
    Json,
    /// Text.
    Console,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
}

/// `tls` of an exporter that encrypts; without `ca` the system's CA certificates are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    pub insecure_skip_verify: bool,
    pub server_name_override: Option<String>,
    pub ca: Option<Pem>,
    pub include_system_ca: bool,
    pub identity: Option<Identity>,
    pub versions: Versions,
    pub reload_interval: Option<Duration>,
}

/// `tls` of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    pub identity: Identity,
    pub client_ca: Option<Pem>,
    pub versions: Versions,
    pub reload_interval: Option<Duration>,
}

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate first, then the intermediate ones.
    pub certificate: Pem,
    /// PKCS#8, PKCS#1 or SEC 1.
    pub key: Pem,
}

/// Where PEM text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// In a file, read again when it has changed.
    File(String),
    /// In the configuration itself.
    Inline(Text),
}

/// `min_version` and `max_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// RFC 5246.
    pub tls12: bool,
    /// RFC 8446.
    pub tls13: bool,
}

impl Default for Versions {
    fn default() -> Self {
        Self {
            tls12: true,
            tls13: true,
        }
    }
}
