//! The otelagent agent: takes OTLP from applications, acknowledges once it is held, merges small
//! requests into large ones on the wire bytes, and forwards them.
//!
//! | room | purity | one sentence |
//! |---|---|---|
//! | [`config`] | pure | collector-style YAML to a typed configuration, or every problem in it |
//! | [`scan`] | pure | whether bytes are an OTLP request, and how many items they carry |
//! | [`json`] | pure | OTLP/JSON to the same bytes as OTLP/protobuf |
//! | [`merge`] | pure | resource attributes edited in the bytes of a request |
//! | [`segment`] | pure | the bytes of a queue on disk: records, and what is left of them after damage |
//! | [`frame`] | pure | gRPC's frame around a message |
//! | [`rpc_status`] | pure | `google.rpc.Status` and the text forms gRPC headers use |
//! | `budget` | shell | how many bytes of telemetry may be held |
//! | `encoding` | shell | gzip and zstd of what arrives, bounded by the budget |
//! | `compress` | shell | gzip and zstd of what is sent, one batch at a time |
//! | `live` | shell | values made from files, made anew when the files change |
//! | `tls` | shell | certificates and authorities to rustls, both sides |
//! | `stream` | shell | TCP, Unix and TLS connections as one type |
//! | `receive` | shell | connections and both OTLP transports |
//! | `queue` | shell | one lane per signal, in memory or on disk as well, cut into batches by size and age |
//! | `store` | shell | the files of a queue on disk, and which process owns them |
//! | `export` | shell | batches to the upstream, again until they are settled |
//! | `metrics` | shell | the books, and their Prometheus text |
//! | `fold` | shell | repeated log lines folded into one a minute |
//! | `health` | shell | what the agent answers about itself |
//! | [`offline`] | shell | the receiving side without sockets, for fuzz targets and tests |
//! | `process` | shell | arguments, signals, the order of starting and stopping |
//!
//! The agent knows nothing of Kubernetes: an orchestrator writes its file and reads its answers.
//! Without the feature `server` only `config`, `scan`, `json` and `merge` exist.

pub mod config;

#[cfg(feature = "server")]
mod budget;
#[cfg(feature = "server")]
mod compress;
#[cfg(feature = "server")]
mod encoding;
#[cfg(feature = "server")]
mod export;
#[cfg(feature = "server")]
mod fold;
#[cfg(feature = "server")]
mod health;
#[cfg(feature = "server")]
mod live;
#[cfg(feature = "server")]
mod metrics;
#[cfg(feature = "server")]
pub mod offline;
#[cfg(feature = "server")]
pub mod process;
#[cfg(feature = "server")]
mod queue;
#[cfg(feature = "server")]
mod receive;
#[cfg(feature = "server")]
mod stream;
#[cfg(feature = "server")]
mod tls;
