//! Why a command has no answer, and the exit code that says so.

use std::fmt;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The words of the command line do not fit together, or a file cannot be used.
    #[error("{0}")]
    Usage(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// The kubeconfig cannot be used.
    #[error("no cluster is known: {0}")]
    Kubeconfig(String),
    /// The API server cannot be reached.
    #[error(
        "the API server {server} cannot be reached: {why}; is the context the right one (--context)?"
    )]
    Unreachable {
        /// Its address.
        server: String,
        /// What happened.
        why: String,
    },
    /// The API server did not answer in time.
    #[error(
        "the API server did not answer within {seconds} s ({action}); --request-timeout allows more"
    )]
    TimedOut {
        /// What was asked.
        action: String,
        /// The limit.
        seconds: u64,
    },
    /// The API server does not know the user.
    #[error("the API server does not accept your credentials (401 Unauthorized); log in again")]
    Unauthorized,
    /// The user lacks a right.
    #[error("{0}")]
    Forbidden(Right),
    /// The API server does not serve a kind.
    #[error("{0}")]
    NotServed(String),
    /// The API server refused a request for another reason.
    #[error("the API server refused to {action}: {why}")]
    Refused {
        /// What was asked.
        action: String,
        /// Its reason.
        why: String,
    },
    /// Standard output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] std::io::Error),
    /// The runtime cannot be started, or a document cannot be made.
    #[error("{0}")]
    Internal(String),
}

impl CliError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) | Self::NotServed(_) | Self::Output(_) | Self::Internal(_) => 1,
            Self::Usage(_) => 2,
            Self::Kubeconfig(_)
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Unauthorized
            | Self::Forbidden(_)
            | Self::Refused { .. } => 3,
        }
    }
}

/// A right that the user lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The verb, such as `list`.
    pub verb: &'static str,
    /// The resource with its group, as RBAC writes it in commands: `pods`, `daemonsets.apps`, `pods/proxy`.
    pub resource: String,
    /// The namespace; `None` for all, and for resources of the cluster.
    pub namespace: Option<String>,
}

impl Right {
    /// The command by which an administrator makes a role that grants it.
    pub fn remedy(&self) -> String {
        let (verb, resource) = (self.verb, &self.resource);
        match &self.namespace {
            Some(namespace) => format!(
                "kubectl create role NAME -n {namespace} --verb={verb} --resource={resource}"
            ),
            None => format!("kubectl create clusterrole NAME --verb={verb} --resource={resource}"),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, resource) = (self.verb, &self.resource);
        let place = match &self.namespace {
            Some(namespace) => format!("namespace {namespace}"),
            None => "the whole cluster".into(),
        };
        write!(
            f,
            "you may not {verb} {resource} in {place}; ask for a role with this right, as {} makes it, and for a binding to it",
            self.remedy()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_right_is_named_with_the_command_that_grants_it() {
        let right = Right {
            verb: "list",
            resource: "otelagents.otelagent.dev".into(),
            namespace: Some("shop".into()),
        };
        assert_eq!(
            right.to_string(),
            "you may not list otelagents.otelagent.dev in namespace shop; ask for a role with this right, as kubectl create \
             role NAME -n shop --verb=list --resource=otelagents.otelagent.dev makes it, and for a binding to it"
        );
        assert_eq!(CliError::Forbidden(right).exit_code(), 3);
    }
}
