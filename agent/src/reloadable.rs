//! Values that are made from files and follow changes of them. A value stays in use while the changed files are
//! invalid.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::config::Resolve;
use crate::lock::lock;
use crate::logging::{LogThrottle, causes};
use crate::thread;

/// The minimum interval of checks; a check happens only when the value is requested.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long those who request the value wait for a check.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a failed check means.
const KEPT: &str = "the previous content stays in use";

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
pub(crate) trait FileSource: Send + Sync + 'static {
    /// The content of the files. Compared by hash, so that no second copy is kept.
    type Content: Hash;
    /// The value.
    type Made: Send + Sync;
    /// Why the value cannot be made.
    type Error: Error;

    /// Whether there are files at all.
    fn can_change(&self) -> bool {
        true
    }

    /// Reads every file.
    fn read(&self) -> Result<Self::Content, Self::Error>;
    /// Makes the value.
    fn make(&self, content: Self::Content) -> Result<Self::Made, Self::Error>;
}

/// A value that follows its files. It compares contents, not times: mounted secrets change by a swapped link,
/// and file system clocks are coarse. Files are read on a thread, since a file system may hang.
pub(crate) struct Reloadable<S: FileSource>(Arc<Followed<S>>);

struct Followed<S: FileSource> {
    /// What the files are of, for the log.
    of: String,
    source: S,
    interval: Duration,
    state: Mutex<ReloadState<S::Made>>,
    failures: LogThrottle,
    stalls: LogThrottle,
}

struct ReloadState<M> {
    made: Arc<M>,
    hash: u64,
    /// When the last check began.
    checked: Instant,
    /// The last check, which drops its sender at the end.
    check: Option<watch::Receiver<()>>,
}

fn hash(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

impl<S: FileSource> Reloadable<S> {
    /// Makes the first value, and waits for its files; `of` names their owner in the log.
    ///
    /// # Errors
    /// If the files cannot be read or used.
    pub(crate) fn new(of: &str, source: S, interval: Option<Duration>) -> Result<Self, S::Error> {
        let content = source.read()?;
        let hash = hash(&content);
        let made = Arc::new(source.make(content)?);
        Ok(Self(Arc::new(Followed {
            of: of.to_owned(),
            source,
            interval: interval.unwrap_or(INTERVAL),
            state: Mutex::new(ReloadState {
                made,
                hash,
                checked: Instant::now(),
                check: None,
            }),
            failures: LogThrottle::default(),
            stalls: LogThrottle::default(),
        })))
    }

    /// The value by the current files, at most one interval late. While the files do not answer, the previous value.
    pub(crate) async fn current(&self) -> Arc<S::Made> {
        if let Some((mut check, until)) = self.check() {
            // Its end is an error.
            let _ = timeout_at(until, check.changed()).await;
        }
        Arc::clone(&lock(&self.0.state).made)
    }

    /// The check that callers wait for, and until when. Begins one if it is time.
    fn check(&self) -> Option<(watch::Receiver<()>, Instant)> {
        if !self.0.source.can_change() {
            return None;
        }
        let mut state = lock(&self.0.state);
        let last = state.check.as_ref();
        let running = last.filter(|check| check.has_changed().is_ok()).cloned();
        if running.is_none() && state.checked.elapsed() < self.0.interval {
            return None;
        }
        let check = if let Some(check) = running {
            check
        } else {
            state.checked = Instant::now();
            state.check.insert(self.begin()?).clone()
        };
        let until = state.checked + PATIENCE;
        if Instant::now() < until {
            return Some((check, until));
        }
        if let Some(left_out) = self.0.stalls.due() {
            let of = &self.0.of;
            warn!(of, left_out, "files do not answer; {KEPT}");
        }
        None
    }

    fn begin(&self) -> Option<watch::Receiver<()>> {
        let (running, check) = watch::channel(());
        let followed = Arc::clone(&self.0);
        let begun = thread::start("files", move || {
            if let Err(error) = followed.follow() {
                followed.report(&error);
            }
            drop(running);
        });
        begun.map_err(|error| self.0.report(&error)).ok()?;
        Some(check)
    }
}

impl<S: FileSource> Followed<S> {
    fn follow(&self) -> Result<(), S::Error> {
        let content = self.source.read()?;
        let hash = hash(&content);
        if hash == lock(&self.state).hash {
            return Ok(());
        }
        let made = Arc::new(self.source.make(content)?);
        let mut state = lock(&self.state);
        state.made = made;
        state.hash = hash;
        info!(of = self.of, "changed files are in use");
        Ok(())
    }

    fn report(&self, error: &dyn Error) {
        if let Some(left_out) = self.failures.due() {
            let (of, error) = (&self.of, causes(error));
            warn!(of, error, left_out, "changed files cannot be used; {KEPT}");
        }
    }
}
