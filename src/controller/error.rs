//! What can go wrong in the controller, each with a stable reason word.

use otelagent_core::build::ServerVersion;

/// What may end in an error of the controller.
pub(crate) type Result<T, E = ControllerError> = std::result::Result<T, E>;

/// An error of the controller. A user's mistake is none: that is a value, and ends in a condition.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A read or write of the API server failed.
    #[error("{action}")]
    Api {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object of the wanted name exists and belongs to somebody else.
    #[error("{kind} {name} exists and was not made for this OtelAgent; rename one of them")]
    NameTaken {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A reconcile took too long, most likely because the API server did not answer.
    #[error("no end after {seconds} s; trying again")]
    Timeout {
        /// How long it was given.
        seconds: u64,
    },
    /// A reconcile panicked: a mistake in this program.
    #[error("a reconcile panicked, which is a mistake of the operator; trying again")]
    Panicked,
    /// A cache lags behind the server, so nothing is decided by it.
    #[error("the watch of {0} lags behind the server; trying again")]
    StaleView(&'static str),
    /// The API server's version could not be read.
    #[error("the API server's version {0:?} cannot be read")]
    Version(String),
    /// A policy could not be rendered.
    #[error(transparent)]
    Policy(#[from] otelagent_core::inject::policy::PolicyError),
    /// The file with the webhook's CA certificates cannot be read.
    #[error("the file with the webhook's CA certificates cannot be read")]
    AuthorityFile(#[source] std::io::Error),
    /// The webhook's CA could not be made.
    #[error("no CA can be made")]
    Authority(#[from] otelagent_webhook::issue::Failed),
    /// The API server is another one than at the start: of another version, or with other kinds.
    #[error(
        "the API server has changed from {before} to {after}, or offers other admission kinds; start again to \
         take that into account"
    )]
    ServerChanged {
        /// Its version at the start.
        before: ServerVersion,
        /// Its version now.
        after: ServerVersion,
    },
    /// A watch ended for good.
    #[error("the watch of {0} ended")]
    WatchEnded(&'static str),
}

impl ControllerError {
    /// Stable word for logs, metrics and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_forbidden() => "Forbidden",
                kube::Error::Api(status) if status.is_conflict() => "Conflict",
                kube::Error::Api(status) if status.is_invalid() => "Invalid",
                kube::Error::Api(_) => "ApiRefused",
                _ => "ApiUnreachable",
            },
            Self::NameTaken { .. } => "NameTaken",
            Self::Timeout { .. } => "Timeout",
            Self::Panicked => "Panicked",
            Self::StaleView(_) => "StaleView",
            Self::Version(_) => "UnknownVersion",
            Self::Policy(_) => "PolicyTooLarge",
            Self::AuthorityFile(_) => "AuthorityFileUnreadable",
            Self::Authority(_) => "NoAuthority",
            Self::ServerChanged { .. } => "ServerChanged",
            Self::WatchEnded(_) => "WatchEnded",
        }
    }

    /// Wraps a client error with what was tried.
    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api {
            action: action.into(),
            source: Box::new(source),
        }
    }
}
