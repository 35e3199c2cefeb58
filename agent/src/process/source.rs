//! The configuration file and the files it refers to: read, and looked at again. Must not know what
//! the configuration says.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::config::{self, Config, Problem, Resolve};
use crate::live::Process;

/// Where the configuration comes from, and what it was like when it was last read.
pub(super) struct Source {
    file: PathBuf,
    referenced: Vec<PathBuf>,
    /// Of everything that was read.
    seen: u64,
    /// Of the file alone.
    pub(super) fingerprint: u64,
}

/// The environment and file system of this process; remembers which files were asked for.
#[derive(Default)]
struct Remembering(Mutex<Vec<PathBuf>>);

impl Resolve for Remembering {
    fn env(&self, name: &str) -> Option<String> {
        Process.env(name)
    }

    fn file(&self, path: &str) -> Result<String, String> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(path.into());
        Process.file(path)
    }
}

impl Source {
    /// A file that has not been read yet.
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            referenced: Vec::new(),
            seen: 0,
            fingerprint: 0,
        }
    }

    /// Reads it.
    pub(super) fn load(&mut self) -> Result<Config, Vec<Problem>> {
        let process = Remembering::default();
        let config = match std::fs::read_to_string(&self.file) {
            Ok(yaml) => {
                self.fingerprint = config::fingerprint(&yaml);
                config::load(&yaml, &process)
            }
            Err(error) => Err(vec![Problem {
                path: String::new(),
                message: format!("cannot read {}: {error}", self.file.display()),
            }]),
        };
        self.referenced = process
            .0
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        self.seen = self.look();
        config
    }

    /// Whether anything is different from when it was last read.
    pub(super) fn has_changed(&self) -> bool {
        self.look() != self.seen
    }

    fn look(&self) -> u64 {
        let files = std::iter::once(&self.file).chain(&self.referenced);
        let mut all = String::new();
        for file in files {
            // What cannot be read is different from what is empty.
            match std::fs::read_to_string(file) {
                Ok(text) => all.push_str(&text),
                Err(_) => all.push('\u{1}'),
            }
            all.push('\0');
        }
        config::fingerprint(&all)
    }
}
