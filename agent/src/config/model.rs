//! The configuration as types that can only hold what the agent does. `schema` says which setting means what, and
//! which defaults there are.

use std::time::Duration;

use super::text::Text;
use crate::scan::Signal;

/// The whole effective configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is listened on, and the limits of one request.
    pub receiver: ReceiverConfig,
    /// One per configured signal.
    pub pipelines: Vec<Pipeline>,
    /// The exporters that a pipeline uses, in the order of their first use.
    pub exporters: Vec<Exporter>,
    /// How much telemetry may be held.
    pub memory: Memory,
    /// Where health is served over TCP.
    pub health: Option<Health>,
    /// What the agent reports about itself.
    pub telemetry: Telemetry,
    /// What is worth a log line but no mistake, such as a variable that is not set.
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
}

/// How long client connections live; zero means without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// An HTTP/1.1 connection without a request is closed after this.
    pub idle_http1: Duration,
    /// The same for HTTP/2.
    pub idle_http2: Duration,
    /// The agent asks every connection to end after about this.
    pub max_age: Duration,
    /// Requests on a connection that was asked to end have this long.
    pub max_age_grace: Duration,
    /// A silent HTTP/2 connection is pinged after this; never zero.
    pub ping_after: Duration,
    /// The answer must arrive within this; never zero.
    pub ping_timeout: Duration,
}

/// One socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSocket {
    /// Where clients connect to.
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// One entry of a `resource` processor.
#[derive(Clone, Debug, PartialEq)]
pub struct AttributeEdit {
    /// Attribute key, never empty.
    pub key: String,
    /// What happens to it.
    pub action: AttributeAction,
}

/// What a `resource` processor does with a key.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeAction {
    /// Sets the value where the key is absent: the application wins.
    Insert(AttributeValue),
    /// Sets the value where the key is present.
    Update(AttributeValue),
    /// Sets the value: the configuration wins.
    Upsert(AttributeValue),
    /// Removes the key.
    Delete,
}

/// A literal attribute value.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// UTF-8 text.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// 64-bit signed.
    Integer(i64),
    /// IEEE double.
    Float(f64),
}

/// Where a signal is forwarded to and how.
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
    /// What happens after an attempt fails.
    pub retry: Retry,
    /// Where the queue is kept on disk, too; without it, the queue is in memory only.
    pub storage: Option<Storage>,
}

/// `file_storage`: a directory for queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The component id.
    pub id: String,
    /// Where the queues are.
    pub directory: String,
    /// Create the directory if it is missing.
    pub create_directory: bool,
    /// Mode of created directories.
    pub directory_permissions: u32,
    /// Acknowledge only what would survive a power failure; otherwise, what survives the end of the process.
    pub fsync: bool,
    /// Size the files of one signal may have, including those about to be deleted; 0 means that only
    /// `queue_size` limits them.
    pub max_size: u64,
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

/// Encoding of what is sent upstream.
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

/// `sending_queue` and its `batch`, all sizes in uncompressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Bytes one signal may have waiting or in flight, in memory and on disk.
    pub capacity: usize,
    /// Requests in flight per signal.
    pub consumers: usize,
    /// The oldest request waits this long for others to join it.
    pub flush_timeout: Duration,
    /// A batch this large is sent at once.
    pub min_size: usize,
    /// Requests are never merged beyond this. The default is below the 4 MiB that most gRPC servers accept.
    pub max_size: usize,
}

/// `retry_on_failure`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// `false`: one attempt, then the batch is counted as lost.
    pub enabled: bool,
    /// First wait.
    pub initial_interval: Duration,
    /// Longest wait, unless the upstream asks for more.
    pub max_interval: Duration,
    /// Growth from one wait to the next.
    pub multiplier: f64,
    /// Each wait varies by this share in both directions.
    pub randomization_factor: f64,
    /// A batch is given up after this; zero means never.
    pub max_elapsed_time: Duration,
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

/// `service.telemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Where Prometheus metrics are served.
    pub metrics: Option<MetricsReader>,
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// Format of log lines.
    pub log_encoding: LogEncoding,
    /// Where log lines go.
    pub log_output: LogOutput,
}

/// A Prometheus pull reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsReader {
    /// Where to listen.
    pub listen: Address,
    /// Leave `_total` off counters, as the collector's default reader does.
    pub without_type_suffix: bool,
    /// Leave `_bytes` and `_seconds` off, as the collector's default reader does.
    pub without_units: bool,
}

/// Severity of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Start, stop and changes of state.
    Info,
    /// What may need attention.
    Warn,
    /// What loses telemetry.
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

/// `tls` of an exporter that encrypts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Any certificate is accepted: the connection is encrypted, but the upstream is not verified.
    pub insecure_skip_verify: bool,
    /// The name the upstream's certificate must be for, instead of the endpoint's host.
    pub server_name_override: Option<String>,
    /// CA certificates that may sign the upstream's; none means the system's.
    pub ca: Option<Pem>,
    /// The system's CA certificates are trusted in addition to `ca`.
    pub include_system_ca: bool,
    /// The agent's own certificate and key.
    pub identity: Option<Identity>,
    /// TLS versions offered.
    pub versions: Versions,
    /// How often the agent looks for changed files; none means the default.
    pub reload_interval: Option<Duration>,
}

/// `tls` of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The agent's own certificate and key.
    pub identity: Identity,
    /// CA certificates, one of which must have signed every client's certificate.
    pub client_ca: Option<Pem>,
    /// TLS versions offered.
    pub versions: Versions,
    /// How often the agent looks for changed files; none means the default.
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
