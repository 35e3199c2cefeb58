//! Errors of the process outside of the controller.
//!
//! The controller's errors have an enum of their own.

use std::net::SocketAddr;
use std::time::Duration;

/// An error of the process outside of the controller.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Neither a kubeconfig nor a service account was found.
    #[error(
        "the API server is not configured: set KUBECONFIG, or run in a pod with a service account"
    )]
    NoCluster(#[source] Box<kube::config::InferConfigError>),
    /// The client cannot be built from the configuration.
    #[error("cannot connect to the API server as configured")]
    Client(#[source] Box<kube::Error>),
    /// The process cannot listen on an address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The process cannot wait for signals.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    /// The log level is invalid.
    #[error(
        "{directives:?} is not a log level: write one, such as info, or target=level pairs separated by commas"
    )]
    LogLevel {
        /// The given text.
        directives: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logs were set up before.
    #[error("logging is already set up")]
    LogsSetUp(#[source] tracing_subscriber::util::TryInitError),
    /// A call of the API server did not end in time. Travels inside of [`kube::Error::Service`].
    #[error("no answer from the API server within {} s", .0.as_secs_f32())]
    CallTimedOut(Duration),
    /// A write was blocked: another process may be the leader. Travels inside of [`kube::Error::Service`].
    #[error("not written: this process does not hold the lease")]
    NotLeader,
}

impl ProcessError {
    /// The [`ProcessError`] inside of a client error, if there is one.
    pub fn within(error: &kube::Error) -> Option<&Self> {
        match error {
            kube::Error::Service(source) => source.downcast_ref(),
            _ => None,
        }
    }
}
