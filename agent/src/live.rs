//! Values made from files that may be replaced while the agent runs: made anew when the files say
//! something else, kept while what they say is no good. Must not know what is made.

use std::error::Error;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Resolve;
use crate::fold::Fold;

/// Files are looked at no oftener than this, and only when what is made of them is asked for.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// The environment and file system of this process.
pub(crate) struct Process;

impl Resolve for Process {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }
}

/// An error with everything that caused it, in one line.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// How a value is made of files.
pub(crate) trait Source {
    /// What the files say. Compared by its hash, so that no second copy is kept.
    type Content: Hash;
    /// What is made of it.
    type Made;
    /// Why that failed.
    type Error: Error;

    /// For the log.
    fn name(&self) -> &str;
    /// Whether there are files at all.
    fn can_change(&self) -> bool;
    /// Reads every file.
    fn read(&self) -> Result<Self::Content, Self::Error>;
    /// Makes the value.
    fn make(&self, content: Self::Content) -> Result<Self::Made, Self::Error>;
}

/// A value that follows its files. Content is compared, not times: a mounted secret is replaced by
/// swapping a link, and clocks of file systems are coarse.
pub(crate) struct Live<S: Source> {
    source: S,
    interval: Duration,
    state: Mutex<State<S::Made>>,
    failures: Fold,
}

struct State<M> {
    made: Arc<M>,
    hash: u64,
    looked: Instant,
}

fn hash(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

impl<S: Source> Live<S> {
    /// Makes the first value.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub(crate) fn new(source: S, interval: Option<Duration>) -> Result<Self, S::Error> {
        let content = source.read()?;
        let hash = hash(&content);
        let made = Arc::new(source.make(content)?);
        Ok(Self {
            source,
            interval: interval.unwrap_or(INTERVAL),
            state: Mutex::new(State {
                made,
                hash,
                looked: Instant::now(),
            }),
            failures: Fold::default(),
        })
    }

    /// The value as the files are now, give or take the interval.
    pub(crate) fn current(&self) -> Arc<S::Made> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.source.can_change() && state.looked.elapsed() >= self.interval {
            state.looked = Instant::now();
            if let Err(error) = self.follow(&mut state)
                && let Some(left_out) = self.failures.due()
            {
                warn!(
                    of = self.source.name(),
                    error = causes(&error),
                    left_out,
                    "changed files cannot be used; what was read before stays in use"
                );
            }
        }
        Arc::clone(&state.made)
    }

    fn follow(&self, state: &mut State<S::Made>) -> Result<(), S::Error> {
        let content = self.source.read()?;
        let hash = hash(&content);
        if hash != state.hash {
            state.made = Arc::new(self.source.make(content)?);
            state.hash = hash;
            info!(of = self.source.name(), "changed files are in use");
        }
        Ok(())
    }
}
