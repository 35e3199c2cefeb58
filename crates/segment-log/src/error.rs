//! Why a log cannot be kept on disk.

use std::io;
use std::path::PathBuf;

/// Why a log cannot be kept on disk.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The configured directory is missing and may not be created.
    #[error("{0} does not exist, and create_directory is not set")]
    Missing(PathBuf),
    /// Other processes hold every slot.
    #[error("every slot of {0} is taken")]
    Taken(PathBuf),
    /// The directory in use was removed or replaced.
    #[error("{0} has been removed or replaced")]
    Vanished(PathBuf),
    /// The disk does not answer, neither yes nor no.
    #[error("{0}: the disk does not answer")]
    Stalled(PathBuf),
    /// The file system refuses an operation.
    #[error("{path}: {source}")]
    Io {
        /// The path that was read, written or created.
        path: PathBuf,
        /// Why the operation failed.
        source: io::Error,
    },
}

impl LogError {
    /// A stable word for logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Taken(_) => "taken",
            Self::Vanished(_) => "vanished",
            Self::Stalled(_) => "stalled",
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "full",
                io::ErrorKind::ReadOnlyFilesystem => "read_only",
                io::ErrorKind::PermissionDenied => "denied",
                _ => "io",
            },
        }
    }

    /// Whether other paths may still work.
    pub(crate) fn is_local(&self) -> bool {
        use io::ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied};
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), PermissionDenied | AlreadyExists | NotADirectory))
    }

    /// An I/O error with the path it is about.
    pub fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }
}
