//! Unix sockets to listen on, and their files.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use tokio::net::UnixListener;

use crate::thread;

/// Applications run as other users than the agent; access to the directory decides who may send.
const MODE: u32 = 0o666;

/// How long the end of the agent waits for the file system.
const PATIENCE: Duration = Duration::from_millis(250);

/// Device and inode.
type FileId = (u64, u64);

/// A listening socket. Its drop removes the file, unless another agent has replaced it.
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
    file: FileId,
}

impl UnixSocket {
    /// Listens under `path`. Atomically replaces an existing socket, which a killed agent left behind or
    /// which belongs to the agent that this one replaces.
    pub(super) fn bind(path: &str) -> io::Result<Self> {
        let path = PathBuf::from(path);
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => {
                let what = "a file that is not a socket is in the way";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            _ => {}
        }
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        remove(&fresh)?;
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(MODE))?;
        let file = identity(&fresh)?;
        fs::rename(&fresh, &path)?;
        Ok(Self {
            listener,
            path,
            file,
        })
    }

    /// Whether new connections reach this socket and not that of a successor.
    pub(super) fn is_reached(&self) -> bool {
        self.aside(is_reached).unwrap_or(true)
    }

    /// Removes the file, so that no client can connect.
    pub(super) fn refuse_new_connections(&self) {
        self.aside(|path, file| is_reached(path, file) && remove(path).is_ok());
    }

    /// Asks a thread about the file, for a moment: its file system may hang.
    fn aside(&self, ask: impl FnOnce(&Path, FileId) -> bool + Send + 'static) -> Option<bool> {
        let (path, file) = (self.path.clone(), self.file);
        let (done, answer) = mpsc::channel();
        let begun = thread::start("socket file", move || {
            let _ = done.send(ask(&path, file));
        });
        begun.ok()?;
        answer.recv_timeout(PATIENCE).ok()
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        self.refuse_new_connections();
    }
}

fn identity(path: &Path) -> io::Result<FileId> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn is_reached(path: &Path, file: FileId) -> bool {
    identity(path).is_ok_and(|found| found == file)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
