//! Shell. What a process needs around its work: arguments, logs, metrics, probes, the API client, the
//! lease, the end.
//!
//! - [`args`]: the command line.
//! - [`telemetry`]: structured logs.
//! - [`metrics`]: what the process counts, and where Prometheus reads it.
//! - [`probes`]: whether the kubelet should wait, or start the process anew.
//! - [`fence`]: until when this process may write.
//! - [`client`]: an API client whose calls end, and whose writes end with the leadership.
//! - [`history`]: watches of that client, kept to the history that the server has.
//! - [`election`]: what a candidate does next, as a pure function.
//! - [`lease`]: leadership by a Lease.
//! - [`shutdown`]: the end, asked for by a signal.
//! - [`http`]: the small server behind metrics and probes.
//! - [`served`]: the webhook's metrics and probes.
//! - [`error`]: what can go wrong here.
//!
//! This room must not know what the controller does with any of it.

pub mod args;
pub mod client;
mod election;
mod error;
mod fence;
mod history;
mod http;
pub mod lease;
pub mod metrics;
pub mod probes;
mod served;
pub mod shutdown;
pub mod telemetry;
#[cfg(test)]
mod test_server;

pub use args::{Args, Command, ControllerArgs, InjectionEngine, TellingArgs, WebhookArgs};
pub use error::ProcessError;
pub use fence::Fence;
pub use http::listen;
pub use lease::{Leadership, LeaseSettings, Term};
pub use metrics::Metrics;
pub use probes::Readiness;
pub use served::Served;
