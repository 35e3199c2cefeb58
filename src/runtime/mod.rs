//! What a process needs besides its work: arguments, logs, metrics, probes, the API client, the lease,
//! shutdown.
//!
//! - [`args`]: the command line.
//! - [`telemetry`]: structured logs.
//! - [`metrics`]: the process's metrics, and their page.
//! - [`probes`]: health and readiness.
//! - [`fence`]: until when this process may write.
//! - [`client`]: an API client whose calls are bounded and whose writes stop when leadership ends.
//! - [`history`]: detects a restore of etcd before a watch resumes.
//! - [`election`]: decides what a candidate does next, as a pure function.
//! - [`lease`]: leadership by a Lease.
//! - [`shutdown`]: shutdown on a signal.
//! - [`http`]: the server for metrics and probes.
//! - `shown`: the metrics of each `OtelAgent`.
//! - [`described`]: one description of all metrics.
//! - [`served`]: the webhook's metrics and probes.
//! - [`error`]: the errors of these modules.
//!
//! This module does not know the controller.

pub mod args;
pub mod client;
pub mod described;
mod election;
mod error;
mod fence;
mod history;
mod http;
pub mod lease;
pub mod metrics;
pub mod probes;
mod served;
mod shown;
pub mod shutdown;
pub mod telemetry;
#[cfg(test)]
mod test_server;

pub use args::{Args, Command, ControllerArgs, InjectionEngine, ObservabilityArgs, WebhookArgs};
pub use error::ProcessError;
pub use fence::Fence;
pub use http::listen;
pub use lease::{Leadership, LeaseSettings, Term};
pub use metrics::Metrics;
pub use probes::Readiness;
pub use served::Served;
pub use shown::{Counted, ShownAgent};
