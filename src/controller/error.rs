//! The controller's errors, each with a stable reason.

use std::time::Duration;

use otelagent_core::build::ServerVersion;

/// A result with an error of the controller.
pub(crate) type Result<T, E = ControllerError> = std::result::Result<T, E>;

/// An error of the controller. A user's mistake is not an error but a value, which becomes a condition.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A read or write of the API server failed.
    #[error("{action}")]
    Api {
        /// The attempted action.
        action: String,
        /// The cause.
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
    /// The operator lacks its rights in a platform namespace.
    #[error(
        "the operator may not {what}, a platform namespace; apply manifests/platform-namespace there, as its \
         kustomization.yaml says (with Helm, set platformNamespaces), or take the namespace off --platform-namespaces"
    )]
    PlatformRightsMissing {
        /// The verb, the kind and the namespace.
        what: String,
        /// The namespace.
        namespace: String,
    },
    /// The operator lacks one of its rights in the whole cluster.
    #[error(
        "the operator may not {what} in the whole cluster, so it cannot know what is true; apply manifests/default again \
         (with Helm, upgrade the release)"
    )]
    RightsMissing {
        /// The verb and the kind.
        what: String,
    },
    /// Nodes can be read that could not be read at the start.
    #[error(
        "the nodes can be read now; start again to take the family of their addresses into account"
    )]
    NodesReadable,
    /// Somebody else keeps undoing what the operator writes.
    #[error(
        "{manager} keeps changing {kind} {name} back (metadata.managedFields); make it leave the object alone. The \
         operator writes it again in {} s", left.as_secs()
    )]
    Contested {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// The field manager that does so.
        manager: String,
        /// When the operator writes it again.
        left: Duration,
    },
    /// A stored object cannot be decoded.
    #[error("the object cannot be read: {0}; correct it, until then what it had keeps running")]
    Unreadable(String),
    /// A reconcile timed out, most likely because the API server did not answer.
    #[error("not finished after {seconds} s; trying again")]
    Timeout {
        /// The deadline.
        seconds: u64,
    },
    /// A reconcile panicked: a defect of the operator.
    #[error("a reconcile panicked, which is a defect of the operator; trying again")]
    Panicked,
    /// A cache lags behind the server, so the operator decides nothing by it.
    #[error("the watch of {0} lags behind the server; trying again")]
    StaleView(&'static str),
    /// The API server's version could not be read.
    #[error("the API server's version {0:?} cannot be read")]
    Version(String),
    /// The file with the webhook's CA certificates cannot be read.
    #[error("the file with the webhook's CA certificates cannot be read")]
    CaFile(#[source] std::io::Error),
    /// The webhook's CA could not be made.
    #[error("no CA can be made")]
    Ca(#[from] otelagent_webhook::issue::Failed),
    /// The API server has another version or other kinds than at the start.
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
    /// A stable word for logs, metrics and conditions.
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
            Self::PlatformRightsMissing { .. } => "PlatformRightsMissing",
            Self::RightsMissing { .. } => "RightsMissing",
            Self::NodesReadable => "NodesReadable",
            Self::Contested { .. } => "Contested",
            Self::Unreadable(_) => "Unreadable",
            Self::Timeout { .. } => "Timeout",
            Self::Panicked => "Panicked",
            Self::StaleView(_) => "StaleView",
            Self::Version(_) => "UnknownVersion",
            Self::CaFile(_) => "AuthorityFileUnreadable",
            Self::Ca(_) => "NoAuthority",
            Self::ServerChanged { .. } => "ServerChanged",
            Self::WatchEnded(_) => "WatchEnded",
        }
    }

    /// What the API server said, if it refused a call.
    pub(crate) fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(&status.message),
                _ => None,
            },
            _ => None,
        }
    }

    /// Wraps a client error with the attempted action.
    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api {
            action: action.into(),
            source: Box::new(source),
        }
    }
}
