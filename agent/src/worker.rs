//! A thread of its own for work that would keep everything else waiting: the runtime has one thread, which must
//! not compute for more than a fraction of a millisecond at a time.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedMutexGuard, oneshot};
use tracing::warn;

use crate::lock::lock;
use crate::logging::LogThrottle;
use crate::thread;

type Job = Box<dyn FnOnce() + Send>;

/// Does one job at a time, with a state that jobs share. Its thread starts with the first job and does not delay
/// the end of the process. If the system refuses a thread, the caller's does the work.
pub(crate) struct Worker<S> {
    /// The thread's name, of at most 15 bytes.
    name: &'static str,
    state: Arc<tokio::sync::Mutex<S>>,
    thread: Mutex<Option<mpsc::Sender<Job>>>,
    refused: LogThrottle,
}

/// The right to the next job.
pub(crate) struct Turn<S>(OwnedMutexGuard<S>);

/// A job was not finished, because its thread has ended. Only a panic in a job can cause that.
#[derive(Debug, thiserror::Error)]
#[error("its thread has ended")]
pub(crate) struct WorkerGone;

impl<S: Default + Send + 'static> Worker<S> {
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            state: Arc::default(),
            thread: Mutex::new(None),
            refused: LogThrottle::default(),
        })
    }

    /// Waits until earlier jobs are done. Callers get their turns in order of arrival; one that stops waiting
    /// leaves nothing behind.
    pub(crate) async fn turn(&self) -> Turn<S> {
        Turn(Arc::clone(&self.state).lock_owned().await)
    }

    /// Does a job and returns its result. If the caller stops waiting, the job still goes on to its end, and its
    /// result is dropped. A job must not wait for anything.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        mut turn: Turn<S>,
        job: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, WorkerGone> {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || {
            let outcome = job(&mut turn.0);
            // First, so that the next job begins while the caller wakes up.
            drop(turn);
            let _ = done.send(outcome);
        });
        if let Err(job) = self.hand_over(job) {
            job();
        }
        result.await.map_err(|_| WorkerGone)
    }

    /// Gives a job to the thread; returns it if there is none.
    fn hand_over(&self, job: Job) -> Result<(), Job> {
        let mut thread = lock(&self.thread);
        let Some(jobs) = thread.take().or_else(|| self.start()) else {
            return Err(job);
        };
        jobs.send(job).map_err(|refused| refused.0)?;
        *thread = Some(jobs);
        Ok(())
    }

    fn start(&self) -> Option<mpsc::Sender<Job>> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let started = thread::start(self.name, || queue.into_iter().for_each(|job| job()));
        let error = started.err();
        if let Some(error) = &error
            && let Some(left_out) = self.refused.due()
        {
            let thread = self.name;
            warn!(thread, %error, left_out, "the system refuses a thread; requests wait for each other");
        }
        error.is_none().then_some(jobs)
    }
}
