//! Threads for what may wait for a disk or a resolver: nothing of it runs on the reactor, and nothing of it has to
//! wait for anything else.

use std::io;
use std::thread::{Builder, JoinHandle};

use tokio::sync::oneshot;

/// Starts a thread, which does not keep the process from ending.
///
/// # Errors
/// If there can be no more threads.
pub(crate) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run)
}

/// Starts a thread for one job, and returns where its result comes. The job goes on if nothing waits for it any more.
///
/// # Errors
/// If there can be no more threads.
pub(crate) fn run<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, result) = oneshot::channel();
    start(name, move || {
        let _ = done.send(job());
    })?;
    Ok(result)
}
