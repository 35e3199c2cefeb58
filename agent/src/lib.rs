//! The otelagent agent: receives OTLP from applications, acknowledges a request once it holds it, merges small
//! requests into large ones on their wire bytes, and forwards them.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | reads collector-style YAML into a typed configuration, or lists every problem in it |
//! | `process` | arguments, signals, the order of starting and stopping |
//! | `receive` | client connections and both OTLP transports |
//! | `encoding` | decompresses what arrives, within the budget |
//! | `queue` | one lane per signal, in memory or on disk, cut into batches |
//! | `export` | sends batches to the upstream until they are settled; `otelagent-flow` decides how |
//! | `compress` | compresses what is sent, one batch at a time |
//! | `worker` | a thread for long computations: large requests, compression |
//! | `budget` | limits the memory for telemetry |
//! | `senders` | fair shares of memory and queues |
//! | `tls` | certificates and CAs for rustls, on both sides |
//! | `stream` | TCP, Unix and TLS connections as one type |
//! | `resolve` | resolves names |
//! | `reloadable` | values that follow changes of their files |
//! | [`metrics`] | counters, their Prometheus text, and the reference of them |
//! | `health` | answers about the agent itself |
//! | `logging`, `lock` | small helpers |
//! | `offline` | the receiving side without sockets, for tests |
//!
//! The crates `otlp-wire`, `segment-log` and `otelagent-flow` hold the wire format, the files of queues, and the
//! decisions about the upstream. The agent does not know Kubernetes: an orchestrator writes its file and reads
//! its answers. Without the feature `server` the library is only [`config`].

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
mod health;
#[cfg(feature = "server")]
mod lock;
#[cfg(feature = "server")]
mod logging;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod offline;
#[cfg(feature = "server")]
pub mod process;
#[cfg(feature = "server")]
mod queue;
#[cfg(feature = "server")]
mod receive;
#[cfg(feature = "server")]
mod reloadable;
#[cfg(feature = "server")]
mod resolve;
#[cfg(feature = "server")]
mod senders;
#[cfg(feature = "server")]
mod stream;
#[cfg(feature = "server")]
mod thread;
#[cfg(feature = "server")]
mod tls;
#[cfg(feature = "server")]
mod worker;
