//! Threads for what may wait for a disk or a resolver: nothing of it runs on the reactor, and nothing of it has to
//! wait for anything else.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread, which does not keep the process from ending.
///
/// # Errors
/// If there can be no more threads.
pub(crate) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run)
}
