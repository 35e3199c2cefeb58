//! The configuration: a documented subset of OpenTelemetry Collector configuration, read into types
//! that can only hold what the agent does. Pure: no file, no environment, no clock.
//!
//! Field names and defaults are the collector's (v0.162) where the field is the collector's; an
//! unmodified collector starts with the same file. Everything else is refused by name.

mod changes;
mod document;
mod expand;
mod exporters;
pub mod fields;
mod processors;
mod receivers;
mod section;
mod service;
mod storage;
mod summary;
mod text;
mod tls;
mod tree;
mod units;

use std::fmt;
use std::time::Duration;

use otlp_wire::Signal;

pub use self::changes::{Changes, changes, fingerprint};
pub use self::text::{Secret, Text, is_header_value};
pub use self::tls::{ClientTls, Identity, Pem, ServerTls, Versions};
pub use otlp_wire::{AttributeAction, AttributeEdit, AttributeValue};

/// One mistake in a configuration: where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the field, `exporters.otlp_grpc.compression`; empty for the whole document.
    pub path: String,
    /// What is wrong with its value and what is allowed.
    pub message: String,
}

impl Problem {
    fn new(path: &str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.path, self.message)
        }
    }
}

/// Where the values of `${env:…}` and `${file:…}` come from.
pub trait Resolve {
    /// The value of an environment variable, if it is set.
    fn env(&self, name: &str) -> Option<String>;
    /// The content of a file, or why it cannot be read.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// The whole effective configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is listened on, and the limits of one request.
    pub receiver: Receiver,
    /// One per configured signal.
    pub pipelines: Vec<Pipeline>,
    /// Those that a pipeline uses, in the order of the file.
    pub exporters: Vec<Exporter>,
    /// How much telemetry may be held.
    pub memory: Memory,
    /// Where health is served over TCP.
    pub health: Option<Health>,
    /// What the agent tells about itself.
    pub telemetry: Telemetry,
    /// What deserves a log line but is no mistake, such as a variable that is not set.
    pub warnings: Vec<String>,
}

/// `receivers.otlp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The component id, `otlp` or `otlp/name`; the `receiver` label of metrics.
    pub id: String,
    /// Every one takes OTLP/gRPC and OTLP/HTTP alike.
    pub listen: Vec<Listener>,
    /// Largest gRPC message in bytes, also after decompression. Default 4 MiB.
    pub max_grpc_message: usize,
    /// Largest HTTP body in bytes, also after decompression. Default 20 MiB.
    pub max_http_body: usize,
    /// Calls one HTTP/2 connection may have open. Default 256.
    pub max_concurrent_streams: u32,
    /// Paths that take a signal beside its default one.
    pub url_paths: Vec<(String, Signal)>,
    /// How long client connections live.
    pub connections: Connections,
}

/// How long client connections live; zero means for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// An HTTP/1.1 connection without a request is closed after this. Default 5 min.
    pub idle_http1: Duration,
    /// The same for HTTP/2. Default 5 min.
    pub idle_http2: Duration,
    /// Every connection is asked to end after about this.
    pub max_age: Duration,
    /// Requests of a connection that was asked to end have this long.
    pub max_age_grace: Duration,
    /// A silent HTTP/2 connection is pinged after this. Default 1 min; never zero.
    pub ping_after: Duration,
    /// The answer must come within this. Default 20 s; never zero.
    pub ping_timeout: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            idle_http1: Duration::from_mins(5),
            idle_http2: Duration::from_mins(5),
            max_age: Duration::ZERO,
            max_age_grace: Duration::ZERO,
            ping_after: Duration::from_mins(1),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// One socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub place: Place,
    /// How clients must speak there; none means plaintext.
    pub tls: Option<ServerTls>,
}

/// What clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
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

/// The way of one signal through the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// What it carries.
    pub signal: Signal,
    /// Ids of its processors, in order; the `processor` label of metrics.
    pub processors: Vec<String>,
    /// Edits of resource attributes, in order; none for profiles, which pass as they are.
    pub attributes: Vec<AttributeEdit>,
    /// Index into [`Config::exporters`].
    pub exporter: usize,
}

/// Where a signal is forwarded to and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Exporter {
    /// The component id, `otlp_grpc` or `otlp_grpc/name`; the `exporter` label of metrics.
    pub id: String,
    /// The only signal it carries, where the file gives that signal an endpoint of its own.
    pub signal: Option<Signal>,
    /// Wire protocol.
    pub protocol: Protocol,
    /// Host and port to connect to; empty where nothing is connected to.
    pub endpoint: Address,
    /// How the upstream must be spoken to; none means plaintext.
    pub tls: Option<ClientTls>,
    /// Path before `/v1/<signal>` of OTLP/HTTP, without a slash at its end; with `signal` the whole
    /// path. Empty for gRPC.
    pub base_path: String,
    /// `user-agent` of requests, in place of the agent's own.
    pub user_agent: Option<String>,
    /// `:authority` of gRPC requests, in place of the endpoint.
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
    /// Where the queue is kept on disk as well; in memory alone without it.
    pub storage: Option<Storage>,
}

/// `file_storage`: a directory for queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The component id.
    pub id: String,
    /// Where the queues are. Default `/var/lib/otelcol/file_storage`.
    pub directory: String,
    /// Make the directory where it is missing. Default false.
    pub create_directory: bool,
    /// Mode of directories that are made. Default 0750.
    pub directory_permissions: u32,
    /// Acknowledge only what would survive a loss of power. Default false: what is acknowledged
    /// survives the end of the process.
    pub fsync: bool,
    /// Bytes the files of one signal may take, what waits to be deleted included; 0, the default, means
    /// that only `queue_size` bounds them.
    pub max_size: u64,
}

/// How telemetry leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with binary protobuf.
    Http,
    /// Counted in the log, then dropped.
    Debug,
    /// Dropped.
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
    /// The name both transports announce it by; none for plain bytes.
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
    /// Bytes one signal may have waiting or in flight, in memory and on disk. Default 64 MiB.
    pub capacity: usize,
    /// Requests in flight per signal. Default 10.
    pub consumers: usize,
    /// Oldest telemetry waits this long for company. Default 200 ms.
    pub flush_timeout: Duration,
    /// A batch this large is sent at once. Default 3 MiB.
    pub min_size: usize,
    /// A batch is never merged beyond this. Default 3 MiB, below the 4 MiB most gRPC servers take.
    pub max_size: usize,
}

/// `retry_on_failure`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// `false`: one attempt, then the batch is lost and counted.
    pub enabled: bool,
    /// First wait. Default 5 s.
    pub initial_interval: Duration,
    /// Longest wait, unless the upstream asks for more. Default 30 s.
    pub max_interval: Duration,
    /// Growth from one wait to the next. Default 1.5.
    pub multiplier: f64,
    /// Each wait is spread by this share in both directions. Default 0.5.
    pub randomization_factor: f64,
    /// A batch is given up after this; zero, the default, means never.
    pub max_elapsed_time: Duration,
}

/// `memory_limiter`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Never exceeded by telemetry held. Default 64 MiB.
    pub limit: usize,
    /// New requests are refused above `limit - spike`. Default a fifth of the limit.
    pub spike: usize,
}

/// `health_check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where to listen. Default localhost:13133.
    pub listen: Address,
    /// The path that answers, next to `/ready`. Default `/`.
    pub path: String,
}

/// `service.telemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Where Prometheus metrics are served. Default localhost:8888.
    pub metrics: Option<MetricsReader>,
    /// Least severe level that is logged. Default info.
    pub log_level: LogLevel,
    /// Shape of a log line. Default console.
    pub log_encoding: LogEncoding,
    /// Where log lines go. Default stderr.
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
    /// Starts, stops, changes of state.
    Info,
    /// What may need a person.
    Warn,
    /// What loses telemetry.
    Error,
}

/// Shape of a log line.
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

/// Every field the reader asks for while it reads a document, by the path [`fields`] has, and whether
/// it was there: what the table of fields is compared with.
pub fn asked(yaml: &str) -> Vec<(String, bool)> {
    document::asked(yaml)
}

/// Checks a configuration without looking anything up: every `${…}` reference counts as a valid value
/// of whatever type its field has, and stays in the result as it was written.
///
/// # Errors
/// Every problem found, in the order of the file.
pub fn check(yaml: &str) -> Result<Config, Vec<Problem>> {
    document::read(yaml, &expand::Mode::Opaque)
}

/// Reads a configuration for use, with references looked up through `resolve`.
///
/// # Errors
/// Every problem found, in the order of the file.
pub fn load(yaml: &str, resolve: &dyn Resolve) -> Result<Config, Vec<Problem>> {
    document::read(yaml, &expand::Mode::Resolve(resolve))
}
