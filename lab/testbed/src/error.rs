//! Everything that can go wrong in the bed, in one enum with a stable word per case.
//!
//! Knows no component: the failing component says in words what it was doing.

use std::io;
use std::path::PathBuf;

/// The result of every operation of this package.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or a process could not be handled.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was attempted, as "verb object".
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A helper program ended with an error.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it printed.
        output: String,
    },
    /// This machine lacks something that cannot be built.
    #[error("this machine lacks {what}; {remedy}")]
    Missing {
        /// What is missing.
        what: String,
        /// What the reader can do.
        remedy: String,
    },
    /// A part did not build.
    #[error("building {part} failed, the end of its output:\n{tail}")]
    Build {
        /// The part.
        part: String,
        /// The last lines of the builder.
        tail: String,
    },
    /// A component did not become ready, or ended.
    #[error("{component} is not ready: {why}\nthe end of {}:\n{tail}", log.display())]
    NotReady {
        /// The component.
        component: String,
        /// What was waited for.
        why: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A name, an option or a file is not usable.
    #[error("{0}")]
    Invalid(String),
    /// There is no bed of this name.
    #[error("there is no bed named {0}; `testbed status` lists them")]
    NoSuchBed(String),
    /// A bed of this name is up.
    #[error(
        "a bed named {0} is up; use it, choose another name, or end it with `testbed down --name {0}`"
    )]
    NameInUse(String),
    /// All address ranges are taken.
    #[error("no address range is free for another bed; end one with `testbed down`")]
    NoFreeSlot,
    /// Something of a bed could not be removed.
    #[error("bed {bed} was not removed completely:\n{output}")]
    Leftovers {
        /// The bed.
        bed: String,
        /// What is left.
        output: String,
    },
    /// The cluster is not ours, so its nodes are not touched.
    #[error(
        "{0} is not possible on an external cluster (KUBECONFIG is set); unset it to use a bed"
    )]
    External(&'static str),
    /// A certificate could not be made.
    #[error("cannot issue a certificate: {0}")]
    Pki(#[from] rcgen::Error),
    /// A document of ours or of the cluster was not the JSON expected.
    #[error("unexpected JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// A stable word for each case, for scripts and tests.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Io { .. } => "Io",
            Self::Command { .. } => "CommandFailed",
            Self::Missing { .. } => "Missing",
            Self::Build { .. } => "BuildFailed",
            Self::NotReady { .. } => "NotReady",
            Self::Invalid(_) => "Invalid",
            Self::NoSuchBed(_) => "NoSuchBed",
            Self::NameInUse(_) => "NameInUse",
            Self::NoFreeSlot => "NoFreeSlot",
            Self::Leftovers { .. } => "Leftovers",
            Self::External(_) => "ExternalCluster",
            Self::Pki(_) => "Pki",
            Self::Json(_) => "Json",
        }
    }

    /// Wraps an I/O error with what was attempted.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
