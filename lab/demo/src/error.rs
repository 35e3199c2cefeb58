//! Everything that can go wrong here, in one enum with a stable word per case.

use std::io;
use std::time::Duration;

/// The result of every operation of this package.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The test bed says no.
    #[error(transparent)]
    Bed(#[from] testbed::Error),
    /// A file or a process could not be handled.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was attempted, as "verb object".
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program did not build.
    #[error("building {what} failed:\n{output}")]
    Build {
        /// The program.
        what: String,
        /// The end of what the compiler said.
        output: String,
    },
    /// The cluster refused, or was not there.
    #[error("`kubectl {command}` failed: {output}")]
    Kubectl {
        /// The arguments.
        command: String,
        /// What it said.
        output: String,
    },
    /// An answer was not what it should be.
    #[error("cannot read {what}: {source}")]
    Answer {
        /// What was asked.
        what: String,
        /// Why it cannot be read.
        source: serde_json::Error,
    },
    /// A document has no place for a table.
    #[error("{document} has no markers for the table {table}")]
    Markers {
        /// The document.
        document: String,
        /// The table.
        table: String,
    },
    /// A switch lost telemetry, or an update lost what an agent had acknowledged.
    #[error("{items} spans or log records were lost")]
    Lost {
        /// How many.
        items: u64,
    },
    /// Something did not come about in time.
    #[error("{what} did not come about in {} s; last seen: {seen}", waited.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        waited: Duration,
        /// How it was when the time was over.
        seen: String,
    },
}

impl Error {
    /// A stable word for the case.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bed(error) => error.reason(),
            Self::Io { .. } => "Io",
            Self::Build { .. } => "BuildFailed",
            Self::Kubectl { .. } => "KubectlFailed",
            Self::Answer { .. } => "UnreadableAnswer",
            Self::Markers { .. } => "NoMarkers",
            Self::Lost { .. } => "TelemetryLost",
            Self::Timeout { .. } => "Timeout",
        }
    }

    /// Says what was attempted when the system refused.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
