//! What can go wrong around the work.
//!
//! Must not know what the controller can fail at: that has an enum of its own.

use std::net::SocketAddr;
use std::time::Duration;

/// An error of the process around the work.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Neither a kubeconfig nor a service account was found.
    #[error(
        "no way to the API server is configured: set KUBECONFIG, or run in a pod with a service account"
    )]
    NoCluster(#[source] Box<kube::config::InferConfigError>),
    /// The client cannot be built from what was configured.
    #[error("the configured way to the API server cannot be used")]
    Client(#[source] Box<kube::Error>),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    /// The log level is not one.
    #[error(
        "{directives:?} is no log level: write one such as info, or target=level pairs separated by commas"
    )]
    LogLevel {
        /// What was given.
        directives: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logs were set up before.
    #[error("logs are set up already")]
    LogsSetUp(#[source] tracing_subscriber::util::TryInitError),
    /// A call of the API server did not end in time. Travels inside of [`kube::Error::Service`].
    #[error("no answer from the API server within {} s", .0.as_secs_f32())]
    CallTimedOut(Duration),
    /// A write was held back: another process may be leader. Travels inside of [`kube::Error::Service`].
    #[error("not written: this process does not hold the lease")]
    NotLeader,
}

impl ProcessError {
    /// This room's error inside of a client error, if that is what it carries.
    pub fn within(error: &kube::Error) -> Option<&Self> {
        match error {
            kube::Error::Service(source) => source.downcast_ref(),
            _ => None,
        }
    }
}
