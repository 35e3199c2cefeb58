//! The thread of a lane that writes to the disk, and may wait for it as long as the disk likes.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use segment_log::{LogError, Outcome, Work, Writer};
use tokio::time::Instant;
use tracing::info;

use super::disk::DiskState;
use super::durable::PATIENCE;
use super::lane::{Lane, LaneState};

/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

impl Lane {
    /// Does the work of the disk until the process ends; blocks.
    pub(super) fn write(&self) {
        let mut writer = Writer::default();
        let mut last = 0;
        loop {
            let (work, log) = self.next_work();
            if log != last {
                writer = Writer::default();
                last = log;
            }
            let outcome = writer.run(&work);
            let has_failed = outcome.error.is_some();
            self.work_done(log, &work, outcome);
            if has_failed {
                std::thread::sleep(RETRY);
            }
        }
    }

    /// Lets the thread see what there is to do, if it waits.
    pub(super) fn wake_writer(&self, mut state: MutexGuard<'_, LaneState>) {
        let disk = state.disk.as_mut();
        let waits = disk.is_some_and(|disk| std::mem::take(&mut disk.writer_waits));
        drop(state);
        if waits {
            self.work.notify_one();
        }
    }

    fn next_work(&self) -> (Work, u64) {
        let mut state = self.state();
        loop {
            let work = state.disk.as_mut().and_then(DiskState::work);
            if let Some(disk) = &mut state.disk {
                disk.writer_waits = work.is_none();
            }
            if let Some(work) = work {
                return work;
            }
            let waiting = self.work.wait(state);
            state = waiting.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work_done(&self, log: u64, work: &Work, outcome: Outcome) {
        let mut state = self.state();
        let Some(disk) = &mut state.disk else { return };
        disk.work_done(log, work, &outcome);
        let is_current = disk.log_numbered(log).is_some();
        let safe = match (&outcome.error, disk.log()) {
            (_, None) => 0,
            (None, Some(log)) => log.written_below(),
            // What waits for the disk is acknowledged from memory.
            (Some(_), Some(log)) => log.next_sequence(),
        };
        let more = !disk.is_read();
        if let Some(durable) = &self.durable {
            durable.safe_below(safe);
        }
        self.resume(state);
        if more {
            self.ready.notify_one();
        }
        match outcome.error {
            Some(error @ LogError::Vanished(_)) if is_current => self.lose_log(&error),
            Some(error) if is_current => self.report_storage_failure(&error),
            _ => {}
        }
    }

    /// Returns to the disk after a failure, once it has caught up.
    pub(super) fn resume(&self, mut state: MutexGuard<'_, LaneState>) {
        let is_read = state.disk.as_ref().is_some_and(DiskState::is_read);
        let has_joined = is_read && state.join_behind();
        if !is_read && state.disk.as_ref().is_some_and(DiskState::can_resume) {
            state.return_behind();
        }
        let LaneState { disk, waiting, .. } = &mut *state;
        let is_back = disk.as_mut().is_some_and(|disk| disk.resume(waiting));
        self.wake_writer(state);
        if has_joined {
            self.ready.notify_one();
        }
        if !is_back {
            return;
        }
        self.metrics.storage(self.signal, None);
        if let Some(durable) = &self.durable
            && durable.failing.ended()
        {
            info!(
                exporter = self.exporter(),
                signal = self.signal.name(),
                "the queue is on disk again"
            );
        }
    }

    /// Continues in memory if the disk has been at work for too long.
    pub(super) fn stall_if_late(&self) {
        let is_late = |disk: &DiskState| {
            let working = disk.working();
            let is_writing = working.is_some_and(|since| since.elapsed() >= PATIENCE);
            is_writing || disk.is_read_late()
        };
        if self.state().disk.as_ref().is_some_and(is_late) {
            self.stall();
        }
    }

    /// Continues in memory, since the disk does not answer.
    pub(super) fn stall(&self) {
        let mut state = self.state();
        let Some(disk) = &mut state.disk else { return };
        let next = disk.log().map_or(0, |log| log.next_sequence());
        let stalled = disk.stall();
        drop(state);
        if let Some(durable) = &self.durable {
            durable.safe_below(next);
        }
        if let Some(error) = stalled {
            self.report_storage_failure(&error);
            // What is in memory need not wait for it.
            self.ready.notify_one();
        }
    }

    /// Lets the disk test whether the files are still there, and close and delete what is not needed any more.
    pub(super) fn rest(&self) {
        let mut state = self.state();
        if let Some(log) = state.disk.as_mut().and_then(DiskState::log) {
            log.rest();
        }
        self.resume(state);
    }

    /// Waits until the disk has nothing to do, at most until `deadline`.
    pub(crate) async fn written(&self, deadline: Instant) {
        let at_rest = || {
            let state = self.state();
            let disk = state.disk.as_ref();
            disk.is_none_or(|disk| !disk.has_log() || disk.is_at_rest())
        };
        while !at_rest() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
