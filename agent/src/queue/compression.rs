//! Compresses what waits on disk, on the thread of the upkeep. Nothing waits for it: a disk that is full or hangs
//! leaves things as they are.

use segment_log::Compressed;

use super::lane::{Lane, LaneState};

/// The segments that stay as they are because they leave soon: of a queue whose upstream works, and of one whose
/// upstream fails.
const SOON: usize = 8;
const SOON_IN_OUTAGE: usize = 1;

impl Lane {
    /// Compresses the next segment that waits; blocks. Returns whether there may be another.
    pub(super) fn compress_next(&self) -> bool {
        let Some(durable) = &self.durable else {
            return false;
        };
        let mut state = self.state();
        let soon = if state.upstream_fails {
            SOON_IN_OUTAGE
        } else {
            SOON
        };
        let job = state.disk.as_mut().and_then(|disk| disk.compress_job(soon));
        drop(state);
        let Some((job, log)) = job else { return false };
        let mut permit = durable.budget.permit(None);
        let outcome = job.run(&mut |bytes| permit.grow_if_ample(bytes));
        drop(permit);
        let mut state = self.state();
        let disk = state.disk.as_mut();
        let unneeded = disk.and_then(|disk| disk.compressed(log, &job, &outcome));
        self.count_as_on_disk(&mut state);
        self.wake_writer(state);
        if let Some(name) = unneeded {
            job.remove(name);
        }
        matches!(outcome, Ok(Compressed::Done(..)))
    }

    /// What is on disk counts with its size there.
    pub(super) fn count_as_on_disk(&self, state: &mut LaneState) {
        let Some(disk) = &state.disk else { return };
        let (saved, leftover) = (disk.saved(), disk.leftover());
        let before = std::mem::replace(&mut state.saved_bytes, saved);
        let (more, less) = (saved.saturating_sub(before), before.saturating_sub(saved));
        self.metrics.released(self.signal, 0, more as u64);
        self.metrics.recovered(self.signal, 0, less as u64);
        self.metrics.leftover(self.signal, leftover as u64);
    }
}
