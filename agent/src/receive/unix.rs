//! Unix sockets to listen on, and the file that leads to each. Must not know what is spoken on them.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Whoever reaches the directory may send, as whoever reaches a port may: applications run as other
/// users than the agent.
const MODE: u32 = 0o666;

/// A socket that is listened on. Its file goes when it is dropped, unless another agent has put its
/// own in its place.
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl UnixSocket {
    /// Listens under `path`. A socket that is there already is replaced in one step: it is what a
    /// killed agent left, or belongs to one that this agent follows.
    pub(super) fn bind(path: &str) -> io::Result<Self> {
        let path = PathBuf::from(path);
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => {
                let what = "something that is no socket is in the way";
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

    /// Whether whoever connects reaches this socket, and not that of an agent that follows.
    pub(super) fn is_reached(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Takes the file away, so that nobody connects any more.
    pub(super) fn turn_away(&self) {
        if self.is_reached() {
            let _ = remove(&self.path);
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        self.turn_away();
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
