//! Unix sockets to listen on, and their files.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Applications run as other users than the agent; access to the directory decides who may send.
const MODE: u32 = 0o666;

/// A listening socket. Its drop removes the file, unless another agent has replaced it.
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
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
        identity(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Removes the file, so that no client can connect.
    pub(super) fn refuse_new_connections(&self) {
        if self.is_reached() {
            let _ = remove(&self.path);
        }
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        self.refuse_new_connections();
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
