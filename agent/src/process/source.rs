//! Reads the configuration file with the files it refers to, and detects changes of them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::timeout;
use tracing::warn;

use super::reload::{ConfigPreparation, PreparedConfig};
use crate::config::{self, Config, Problem, Resolve, Text};
use crate::reloadable::SystemResolver;
use crate::thread;

/// The interval of checks of the configuration's files.
const POLL: Duration = Duration::from_secs(1);

/// A file that was written just now may be incomplete.
const SETTLE: Duration = Duration::from_millis(100);

/// After this, the log says that files do not answer.
const SLOW: Duration = Duration::from_secs(10);

/// The origin of the configuration, with fingerprints of the last read.
#[derive(Clone, Default)]
pub(super) struct ConfigSource {
    file: PathBuf,
    referenced: Vec<PathBuf>,
    /// The fingerprint of all files.
    seen: u64,
    /// The fingerprint of the configuration file alone.
    pub(super) fingerprint: u64,
}

/// Resolves references in this process and records the requested files.
#[derive(Default)]
struct RecordingResolver {
    requested: RefCell<Vec<PathBuf>>,
    /// Whether a missing file counts as an empty one, and those that are missing.
    is_lenient: bool,
    missing: RefCell<Vec<String>>,
}

impl Resolve for RecordingResolver {
    fn env(&self, name: &str) -> Option<String> {
        SystemResolver.env(name)
    }

    fn file(&self, path: &str) -> Result<String, String> {
        self.requested.borrow_mut().push(path.into());
        if self.is_lenient && !Path::new(path).exists() {
            self.missing.borrow_mut().push(path.to_owned());
            return Ok(String::new());
        }
        SystemResolver.file(path)
    }
}

impl ConfigSource {
    /// A source that has not been read yet.
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            ..Self::default()
        }
    }

    /// Reads the configuration.
    pub(super) fn load(&mut self) -> Result<Config, Vec<Problem>> {
        self.load_with(&RecordingResolver::default())
    }

    /// Reads the configuration for the start. Files of headers may be missing: their exporter waits for them.
    pub(super) fn load_at_start(&mut self) -> Result<Config, Vec<Problem>> {
        let strictly = self.load();
        if strictly.is_ok() {
            return strictly;
        }
        let lenient = RecordingResolver {
            is_lenient: true,
            ..RecordingResolver::default()
        };
        let loaded = self.load_with(&lenient).ok();
        let missing = lenient.missing.into_inner();
        let of_headers = |config: &Config| {
            let exporters = config.exporters.iter();
            let exporters = exporters.flat_map(|one| std::iter::once(one).chain(&one.backups));
            let headers: Vec<&Text> = exporters
                .flat_map(|one| one.headers.iter().map(|(_, text)| text))
                .collect();
            let is_of_header = |file: &String| headers.iter().any(|text| text.is_from(file));
            missing.iter().all(is_of_header)
        };
        loaded.filter(of_headers).map_or(strictly, Ok)
    }

    fn load_with(&mut self, process: &RecordingResolver) -> Result<Config, Vec<Problem>> {
        let config = match std::fs::read_to_string(&self.file) {
            Ok(yaml) => {
                self.fingerprint = config::fingerprint(&yaml);
                config::load(&yaml, process)
            }
            Err(error) => Err(vec![Problem {
                path: String::new(),
                message: format!("cannot read {}: {error}", self.file.display()),
            }]),
        };
        self.referenced = process.requested.take();
        self.seen = self.look();
        config
    }

    /// Whether any file has changed since the last read.
    fn has_changed(&self) -> bool {
        self.look() != self.seen
    }

    fn look(&self) -> u64 {
        let files = std::iter::once(&self.file).chain(&self.referenced);
        let mut all = String::new();
        for file in files {
            // An unreadable file differs from an empty one.
            match std::fs::read_to_string(file) {
                Ok(text) => all.push_str(&text),
                Err(_) => all.push('\u{1}'),
            }
            all.push('\0');
        }
        config::fingerprint(&all)
    }
}

/// Waits for changes of the configuration. Files are read on another thread, since they may be on a disk that hangs.
pub(super) struct ConfigWatch {
    pub(super) source: ConfigSource,
    /// SIGHUP.
    pub(super) hangup: Signal,
}

/// The source after a look at its files, and what they say if that is to be applied.
type Looked = (ConfigSource, Option<Result<PreparedConfig, Vec<Problem>>>);

impl ConfigWatch {
    /// Reads the configuration after SIGHUP, or once a file has changed, and prepares what it needs.
    pub(super) async fn next(
        mut self,
        preparation: ConfigPreparation,
    ) -> (Self, Result<PreparedConfig, Vec<Problem>>) {
        loop {
            let is_asked = timeout(POLL, self.hangup.recv()).await.is_ok();
            let Some((source, prepared)) = self.look(is_asked, preparation.clone()).await else {
                continue;
            };
            self.source = source;
            if let Some(prepared) = prepared {
                return (self, prepared);
            }
        }
    }

    /// `None` if the system refuses a thread.
    async fn look(&self, is_asked: bool, preparation: ConfigPreparation) -> Option<Looked> {
        let mut source = self.source.clone();
        let begun = thread::run("configuration", move || {
            let has_changed = !is_asked && source.has_changed();
            if has_changed {
                std::thread::sleep(SETTLE);
            }
            let load = || source.load().and_then(|new| preparation.prepare(new));
            let prepared = (is_asked || has_changed).then(load);
            (source, prepared)
        });
        let mut looked = match begun {
            Ok(looked) => looked,
            Err(error) => {
                warn!(%error, "the system refuses a thread; the configuration is not read now");
                return None;
            }
        };
        if let Ok(looked) = timeout(SLOW, &mut looked).await {
            return looked.ok();
        }
        warn!("the files of the configuration do not answer; the current one stays in use");
        looked.await.ok()
    }
}
