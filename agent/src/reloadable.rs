//! Values that are made from files and follow changes of them. A value stays in use while the changed files are
//! invalid.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Resolve;
use crate::lock::lock;
use crate::logging::{LogThrottle, causes};

/// The minimum interval of checks; a check happens only when the value is requested.
const INTERVAL: Duration = Duration::from_secs(1);

/// Resolves references by the environment and the file system of this process.
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }
}

/// Makes a value from files.
pub(crate) trait FileSource {
    /// The content of the files. Compared by hash, so that no second copy is kept.
    type Content: Hash;
    /// The value.
    type Made;
    /// Why the value cannot be made.
    type Error: Error;

    /// Reads every file.
    fn read(&self) -> Result<Self::Content, Self::Error>;
    /// Makes the value.
    fn make(&self, content: Self::Content) -> Result<Self::Made, Self::Error>;
}

/// A value that follows its files. It compares contents, not times: mounted secrets change by a swapped link,
/// and file system clocks are coarse.
pub(crate) struct Reloadable<S: FileSource> {
    /// What the files are of, for the log.
    of: String,
    source: S,
    interval: Duration,
    state: Mutex<ReloadState<S::Made>>,
    failures: LogThrottle,
}

struct ReloadState<M> {
    made: Arc<M>,
    hash: u64,
    checked: Instant,
}

fn hash(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

impl<S: FileSource> Reloadable<S> {
    /// Makes the first value; `of` names the owner of the files in the log.
    ///
    /// # Errors
    /// If the files cannot be read or used.
    pub(crate) fn new(of: &str, source: S, interval: Option<Duration>) -> Result<Self, S::Error> {
        let content = source.read()?;
        let hash = hash(&content);
        let made = Arc::new(source.make(content)?);
        Ok(Self {
            of: of.to_owned(),
            source,
            interval: interval.unwrap_or(INTERVAL),
            state: Mutex::new(ReloadState {
                made,
                hash,
                checked: Instant::now(),
            }),
            failures: LogThrottle::default(),
        })
    }

    /// The value by the current files, at most one interval late.
    pub(crate) fn current(&self) -> Arc<S::Made> {
        let mut state = lock(&self.state);
        if state.checked.elapsed() >= self.interval {
            state.checked = Instant::now();
            if let Err(error) = self.follow(&mut state)
                && let Some(left_out) = self.failures.due()
            {
                warn!(
                    of = self.of,
                    error = causes(&error),
                    left_out,
                    "changed files cannot be used; the previous content stays in use"
                );
            }
        }
        Arc::clone(&state.made)
    }

    fn follow(&self, state: &mut ReloadState<S::Made>) -> Result<(), S::Error> {
        let content = self.source.read()?;
        let hash = hash(&content);
        if hash != state.hash {
            state.made = Arc::new(self.source.make(content)?);
            state.hash = hash;
            info!(of = self.of, "changed files are in use");
        }
        Ok(())
    }
}
