//! Helpers for the directories and files of logs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::LogError;
use crate::mark::{MARKS, latest_mark};
use crate::name::{FileKind, SegmentName};

/// The file with the marks.
const MARK_FILE: &str = "mark";

/// A short-lived file that tests the disk, and its size.
const PROBE_FILE: &str = "probe";
const PROBE: usize = 64 * 1024;

/// A compressed segment that is not whole yet.
const COMPRESSING_FILE: &str = "compressing";

/// The files beside the segments.
const OWN_FILES: [&str; 3] = [MARK_FILE, PROBE_FILE, COMPRESSING_FILE];

/// Creates a directory and its parents, so that they survive a loss of power as what is synced in them does
/// (fsync(2)). A parent that cannot be read is not synced.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    let missing = path.ancestors().take_while(|path| !path.exists());
    let parents: Vec<_> = missing.filter_map(Path::parent).collect();
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    for parent in parents {
        let here = parent.as_os_str().is_empty();
        let parent = if here { Path::new(".") } else { parent };
        if let Ok(parent) = File::open(parent) {
            parent.sync_all()?;
        }
    }
    Ok(())
}

/// Makes the names of a directory's files survive a loss of power (fsync(2)).
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Segments with their lengths, oldest first, and the names of foreign files.
type Listing = (Vec<(SegmentName, u64)>, Vec<String>);

/// Lists a directory.
pub(crate) fn list(directory: &Path) -> io::Result<Listing> {
    let mut segments = Vec::new();
    let mut foreign = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match SegmentName::parse(&name) {
            FileKind::Segment(parsed) => segments.push((parsed, entry.metadata()?.len())),
            FileKind::Newer | FileKind::Foreign if !OWN_FILES.contains(&&*name) => {
                foreign.push(name.into_owned());
            }
            FileKind::Newer | FileKind::Foreign => {}
        }
    }
    segments.sort_unstable();
    Ok((segments, foreign))
}

/// Deletes what a process has left that ended while it compressed a segment: the segment is whole as it was before,
/// and the other copy may not be.
pub(crate) fn tidy(directory: &Path) -> Result<(), LogError> {
    let remove = |path: PathBuf| match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io(path, error)),
        _ => Ok(()),
    };
    remove(compressing_path(directory))?;
    let (segments, _) = list(directory).map_err(|source| LogError::io(directory, source))?;
    for pair in segments.windows(2) {
        if let [(first, _), (second, _)] = pair
            && first.is_same(second)
        {
            remove(directory.join(second.to_string()))?;
        }
    }
    Ok(())
}

/// The file in which a segment is compressed.
pub(crate) fn compressing_path(directory: &Path) -> PathBuf {
    directory.join(COMPRESSING_FILE)
}

/// The file with the marks of a directory.
pub(crate) fn mark_path(directory: &Path) -> PathBuf {
    directory.join(MARK_FILE)
}

/// The paths of all entries of a directory that can be listed.
pub(crate) fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

/// The mark of a directory; without one nothing is settled.
pub(crate) fn read_mark(directory: &Path) -> (u64, u64) {
    let mut bytes = Vec::with_capacity(MARKS);
    let read = File::open(mark_path(directory))
        .and_then(|file| file.take(MARKS as u64).read_to_end(&mut bytes));
    read.ok()
        .and_then(|_| latest_mark(&bytes))
        .unwrap_or_default()
}

/// Deletes the mark and the directory if nothing else is left in it.
pub fn remove_empty(directory: &Path) {
    if list(directory).is_ok_and(|(segments, foreign)| segments.is_empty() && foreign.is_empty()) {
        let _ = fs::remove_file(mark_path(directory));
        let _ = fs::remove_dir(directory);
    }
}

/// Device and inode, which tell a directory or file from its replacement.
pub(crate) fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Options to write a file that only its owner can read.
pub(crate) fn to_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Opens a file to write; creates it if it is missing.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    to_write().create(true).truncate(false).open(path)
}

/// Tests whether a disk that failed takes data again.
pub(crate) fn probe(directory: &Path) -> Result<(), LogError> {
    let path = directory.join(PROBE_FILE);
    let written = to_write()
        .create(true)
        .truncate(true)
        .open(&path)
        .and_then(|mut file| file.write_all(&vec![0; PROBE]));
    let removed = fs::remove_file(&path);
    written
        .and(removed)
        .map_err(|source| LogError::io(path, source))
}
