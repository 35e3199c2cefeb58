//! Directories and files of a queue on disk. Must not know what is queued.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::StoreError;
use crate::segment::{MARKS, Name, Named, latest_mark};

/// Name of the file of marks.
const MARK_FILE: &str = "mark";

/// Name of a file that is there for a moment, and its size.
const PROBE_FILE: &str = "probe";
const PROBE: usize = 64 * 1024;

/// Makes a directory and those above it.
pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Segments with their lengths, oldest first, and the names of files that are not ours.
type Listing = (Vec<(Name, u64)>, Vec<String>);

/// What is in a directory.
pub(super) fn list(directory: &Path) -> io::Result<Listing> {
    let mut segments = Vec::new();
    let mut foreign = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match Name::parse(&name) {
            Named::Segment(parsed) => segments.push((parsed, entry.metadata()?.len())),
            Named::Newer | Named::Foreign if ![MARK_FILE, PROBE_FILE].contains(&&*name) => {
                foreign.push(name.into_owned());
            }
            Named::Newer | Named::Foreign => {}
        }
    }
    segments.sort_unstable();
    Ok((segments, foreign))
}

/// The mark of a directory; nothing is settled where there is none.
pub(super) fn read_mark(directory: &Path) -> (u64, u64) {
    let mut bytes = Vec::with_capacity(MARKS);
    let read = File::open(directory.join(MARK_FILE))
        .and_then(|file| file.take(MARKS as u64).read_to_end(&mut bytes));
    read.ok()
        .and_then(|_| latest_mark(&bytes))
        .unwrap_or_default()
}

/// Deletes the mark and the directory, where nothing else is left in it.
pub(crate) fn remove_empty(directory: &Path) {
    if list(directory).is_ok_and(|(segments, foreign)| segments.is_empty() && foreign.is_empty()) {
        let _ = fs::remove_file(directory.join(MARK_FILE));
        let _ = fs::remove_dir(directory);
    }
}

/// Device and inode, which tell a directory or file from one that has taken its place.
pub(super) fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Writes both; one system call, as a rule.
pub(super) fn write_both(mut file: &File, header: &[u8], payload: &[u8]) -> io::Result<()> {
    let both = [IoSlice::new(header), IoSlice::new(payload)];
    let written = loop {
        match file.write_vectored(&both) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    match header.get(written..) {
        Some(rest) if !rest.is_empty() => {
            file.write_all(rest)?;
            file.write_all(payload)
        }
        _ => file.write_all(payload.get(written - header.len()..).unwrap_or_default()),
    }
}

/// A file for its owner alone, to be written.
pub(super) fn to_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// The file of marks, made if it is missing.
pub(super) fn open_mark(directory: &Path) -> io::Result<File> {
    to_write()
        .create(true)
        .truncate(false)
        .open(directory.join(MARK_FILE))
}

/// Whether the disk takes anything, after it has failed to.
pub(super) fn probe(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join(PROBE_FILE);
    let written = to_write()
        .create(true)
        .truncate(true)
        .open(&path)
        .and_then(|mut file| file.write_all(&vec![0; PROBE]));
    let removed = fs::remove_file(&path);
    written
        .and(removed)
        .map_err(|source| StoreError::io(path, source))
}
