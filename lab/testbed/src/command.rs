//! Running helper programs and small file operations, with errors that say what was attempted.
//!
//! Knows nothing of clusters.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Error, Result};

/// Where programs are looked for beyond the caller's PATH: root's PATH often lacks sbin.
const EXTRA_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// The search path for everything the bed runs.
pub(crate) fn search_path() -> String {
    match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{EXTRA_PATH}"),
        _ => EXTRA_PATH.to_owned(),
    }
}

/// Finds a program in the search path.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&search_path())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// A command with the bed's search path.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", search_path()).stdin(Stdio::null());
    command
}

/// Runs to the end and returns what it printed; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(Error::io(format!("run {}", shown(command))))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::Command {
        command: shown(command),
        output: format!("{}{}", tail(&stdout, 10), tail(&stderr, 20)),
    })
}

/// Runs a program given as words.
pub(crate) fn run_words(words: &[&str]) -> Result<String> {
    match words.split_first() {
        Some((program, args)) => run(command(program).args(args)),
        None => Ok(String::new()),
    }
}

/// The command line as one would type it, for messages.
fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line.chars().take(300).collect()
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The last lines of a file; empty when it cannot be read.
pub(crate) fn tail_of(path: &Path, lines: usize) -> String {
    fs::read(path)
        .map(|bytes| tail(&String::from_utf8_lossy(&bytes), lines))
        .unwrap_or_default()
}

/// Writes a file.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).map_err(Error::io(format!("write {}", path.display())))
}

/// Reads a file as text.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))
}

/// Makes a directory and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io(format!("make {}", path.display())))
}

/// Opens (making it if needed) a file and waits until this process alone holds its lock. The lock
/// ends with the returned file, and with the process.
pub(crate) fn lock(path: &Path, waiting: impl FnOnce()) -> Result<fs::File> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    let doing = format!("lock {}", path.display());
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(Error::io(doing.clone()))?;
    // Others mostly hold it for a moment; only a longer wait is worth a line.
    for _ in 0..40 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(25)),
            Err(fs::TryLockError::Error(error)) => return Err(Error::io(doing)(error)),
        }
    }
    waiting();
    file.lock().map_err(Error::io(doing))?;
    Ok(file)
}
