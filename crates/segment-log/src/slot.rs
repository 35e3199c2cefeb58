//! Slots: a process owns a directory by a lock on a file in it. The system releases the lock however the
//! process ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::LogError;
use crate::files;

/// The maximum number of processes that share a directory.
const SLOTS: u32 = 1000;

const LOCK_FILE: &str = "lock";

/// The directory that holds the slots.
#[derive(Clone, Debug)]
pub struct SlotDirectory {
    /// Its path.
    pub path: PathBuf,
    /// Whether to create it if it is missing.
    pub create: bool,
    /// The mode of new directories.
    pub mode: u32,
}

/// A slot that this process owns until it drops the value.
#[derive(Debug)]
pub struct Slot {
    path: PathBuf,
    lock: File,
}

impl SlotDirectory {
    /// Takes the first free slot that `fits`; creates one if necessary.
    ///
    /// # Errors
    /// If the directory cannot be used or no slot is free.
    pub fn claim(&self, fits: impl Fn(&Slot) -> bool) -> Result<Slot, LogError> {
        if self.create {
            files::make_directory(&self.path, self.mode)
                .map_err(|source| LogError::io(&self.path, source))?;
        } else if !self.path.is_dir() {
            return Err(LogError::Missing(self.path.clone()));
        }
        let mut failed = LogError::Taken(self.path.clone());
        for number in 0..SLOTS {
            let path = self.path.join(format!("slot-{number}"));
            let held = files::make_directory(&path, self.mode)
                .map_err(|source| LogError::io(&path, source))
                .and_then(|()| Slot::try_hold(path));
            match held {
                Ok(Some(slot)) if fits(&slot) => return Ok(slot),
                Ok(_) => {}
                // It belongs to another user, or is not a directory; the next may work.
                Err(error) if error.is_local() => failed = error,
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    /// The paths of all slots.
    pub fn slots(&self) -> Vec<PathBuf> {
        let is_slot = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("slot-"))
        };
        let mut paths: Vec<_> = files::entries(&self.path).filter(is_slot).collect();
        paths.sort_unstable();
        paths
    }
}

impl Slot {
    /// Takes a slot; `None` if another process holds it.
    ///
    /// # Errors
    /// If the lock file cannot be opened or locked.
    pub fn try_hold(path: PathBuf) -> Result<Option<Self>, LogError> {
        let failed = |source| LogError::io(&path, source);
        // Opens it read-only, so that an idle process has no file open for writing.
        let file = path.join(LOCK_FILE);
        let lock = match File::open(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                files::open_or_create(&file).and_then(|_| File::open(&file))
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
        // Another process may have replaced the file before the lock.
        Ok(slot.exists().then_some(slot))
    }

    /// The directory of the slot.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to this slot.
    pub fn exists(&self) -> bool {
        let identity = |metadata: fs::Metadata| files::identity(&metadata);
        let here = self.lock.metadata().map(identity).ok();
        let there = fs::metadata(self.path.join(LOCK_FILE)).map(identity).ok();
        here.is_some() && here == there
    }

    /// The directory of one log, named after an owner and a kind.
    pub fn log_directory(&self, owner: &str, kind: &str) -> PathBuf {
        let safe: String = owner
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02x}"),
            })
            .collect();
        self.path.join(format!("{safe}.{kind}"))
    }

    /// The directories with segments that are not in `known`.
    pub fn unknown_logs(&self, known: &[PathBuf]) -> Vec<PathBuf> {
        files::entries(&self.path)
            .filter(|path| !known.contains(path))
            .filter(|path| files::list(path).is_ok_and(|(segments, _)| !segments.is_empty()))
            .collect()
    }
}
