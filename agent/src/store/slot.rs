//! Slots: each process holds one directory by a lock on a file in it, which the system releases however
//! the process ends. Must not know what is in a slot.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{StoreError, files};
use crate::config::Storage;

/// More processes than this never share a directory.
const SLOTS: u32 = 1000;

const LOCK_FILE: &str = "lock";

/// A slot this process holds; released when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    path: PathBuf,
    lock: File,
}

impl Slot {
    /// Takes the first slot nobody holds and that `fits`, making it if need be.
    pub(crate) fn claim(
        storage: &Storage,
        fits: impl Fn(&Self) -> bool,
    ) -> Result<Self, StoreError> {
        let directory = Path::new(&storage.directory);
        if storage.create_directory {
            files::make_directory(directory, storage.directory_permissions)
                .map_err(|source| StoreError::io(directory, source))?;
        } else if !directory.is_dir() {
            return Err(StoreError::Missing(directory.to_owned()));
        }
        let mut failed = StoreError::Taken(directory.to_owned());
        for number in 0..SLOTS {
            let path = directory.join(format!("slot-{number}"));
            let held = files::make_directory(&path, storage.directory_permissions)
                .map_err(|source| StoreError::io(&path, source))
                .and_then(|()| Self::try_hold(path));
            match held {
                Ok(Some(slot)) if fits(&slot) => return Ok(slot),
                Ok(_) => {}
                // It belongs to another user, or is no directory: the next may be ours.
                Err(error) if error.is_local() => failed = error,
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    /// Paths of every slot there is.
    pub(crate) fn all(storage: &Storage) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&storage.directory) else {
            return Vec::new();
        };
        let is_slot = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("slot-"))
        };
        let mut paths: Vec<_> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(is_slot)
            .collect();
        paths.sort_unstable();
        paths
    }

    /// `None` where another process holds it.
    pub(crate) fn try_hold(path: PathBuf) -> Result<Option<Self>, StoreError> {
        let failed = |source| StoreError::io(&path, source);
        // Read-only once it is there, so that an idle agent has no file open for writing.
        let open = || File::open(path.join(LOCK_FILE));
        let lock = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut made = files::to_write();
                made.create(true)
                    .truncate(false)
                    .open(path.join(LOCK_FILE))
                    .and_then(|_| open())
            }
            other => other,
        };
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let slot = Self { path, lock };
        // Between opening and locking it may have been replaced.
        Ok(slot.is_there().then_some(slot))
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path still leads to it.
    pub(crate) fn is_there(&self) -> bool {
        let identity = |metadata: fs::Metadata| files::identity(&metadata);
        let here = self.lock.metadata().map(identity).ok();
        let there = fs::metadata(self.path.join(LOCK_FILE)).map(identity).ok();
        here.is_some() && here == there
    }

    /// The directory of one lane: id of its exporter and name of its signal.
    pub(crate) fn lane(&self, exporter: &str, signal: &str) -> PathBuf {
        let safe: String = exporter
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02x}"),
            })
            .collect();
        self.path.join(format!("{safe}.{signal}"))
    }

    /// Names of directories in it that hold segments and are none of `known`.
    pub(crate) fn strangers(&self, known: &[PathBuf]) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| !known.contains(path))
            .filter(|path| files::list(path).is_ok_and(|(segments, _)| !segments.is_empty()))
            .collect()
    }
}
