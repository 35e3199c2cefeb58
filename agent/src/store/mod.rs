//! Queues on disk: a directory of slots, one per process, in each a log per exporter and signal. Must not
//! know what is queued or where it goes.
//!
//! ```text
//! <directory>/slot-0/lock                                 held by the process whose slot it is
//!                   /otlp_grpc.traces/0000…01-9f86d081.v1 segments, see the room `segment`
//!                                    /mark                what is settled
//! ```

mod files;
mod log;
mod read;
mod slot;

use std::io;
use std::path::PathBuf;

pub(crate) use self::files::remove_empty;
pub(crate) use self::log::{Limits, Log, Place, Unsynced};
pub(crate) use self::read::{Chunk, Job, Leftover, leftovers};
pub(crate) use self::slot::Slot;

/// Why a queue is not on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The configured directory is missing and may not be made.
    #[error("{0} does not exist, and create_directory is not set")]
    Missing(PathBuf),
    /// Every slot is held by another process.
    #[error("every slot of {0} is taken")]
    Taken(PathBuf),
    /// The directory in use was removed or replaced.
    #[error("{0} has been removed or replaced")]
    Vanished(PathBuf),
    /// The file system refuses.
    #[error("{path}: {source}")]
    Io {
        /// What was read, written or made.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl StoreError {
    /// Stable word for logs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Taken(_) => "taken",
            Self::Vanished(_) => "vanished",
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "full",
                io::ErrorKind::ReadOnlyFilesystem => "read_only",
                io::ErrorKind::PermissionDenied => "denied",
                _ => "io",
            },
        }
    }

    /// Whether it says nothing about other paths.
    fn is_local(&self) -> bool {
        use io::ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied};
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), PermissionDenied | AlreadyExists | NotADirectory))
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }
}
