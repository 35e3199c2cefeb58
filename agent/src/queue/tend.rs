//! Tends the queues of one storage while the process lives: holds a slot for them, notices when the disk
//! fails or comes back, and takes over what dead processes have left. Must not know batches.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use segment_log::{Leftover, Log, LogError, Slot, SlotDirectory, leftovers, remove_empty};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::{Full, Lane, Origin};
use crate::fold::Fold;

/// How often the disk is looked at, and tried again after it failed.
const LOOK: Duration = Duration::from_secs(1);

/// Looks between searches for what dead processes have left.
const ADOPT_EVERY: u64 = 3;

/// How long an adoption waits for room.
const WAIT: Duration = Duration::from_millis(200);

/// Most of a dead process's log that is read in one go.
const PIECE: usize = 256 * 1024;

/// The queues of one storage.
pub(crate) struct Tender {
    storage: Arc<SlotDirectory>,
    lanes: Arc<[Arc<Lane>]>,
    slot: Option<Slot>,
    strangers: Arc<Fold>,
}

impl Tender {
    /// Puts the lanes' queues on disk, with what the last owner of the slot has left. Where that fails they
    /// begin in memory.
    pub(crate) fn start(storage: SlotDirectory, lanes: Vec<Arc<Lane>>) -> Self {
        let mut tender = Self {
            storage: Arc::new(storage),
            lanes: lanes.into(),
            slot: None,
            strangers: Arc::default(),
        };
        tender.claim(true);
        tender
    }

    /// Takes a slot; `continues`: its log may hold something already.
    fn claim(&mut self, continues: bool) {
        let empty = |slot: &Slot| {
            self.lanes.iter().all(|lane| {
                let directory = slot.log_directory(lane.exporter(), lane.signal.name());
                leftovers(&directory).is_ok_and(|leftovers| leftovers.is_empty())
            })
        };
        match self.storage.claim(|slot| continues || empty(slot)) {
            Ok(slot) => {
                tell_strangers(&slot, &self.lanes, &self.strangers);
                for lane in self.lanes.iter() {
                    attach(lane, &slot);
                }
                self.slot = Some(slot);
            }
            Err(error) => {
                for lane in self.lanes.iter() {
                    lane.tell_failing(&error);
                }
            }
        }
    }

    /// For ever.
    pub(crate) async fn run(mut self) {
        let mut commits = JoinSet::new();
        for lane in self.lanes.iter() {
            if lane.log_limits().is_some_and(|limits| limits.fsync) {
                commits.spawn(Arc::clone(lane).commit());
            }
        }
        let mut adoption = self.search(Adoption::default());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in 0_u64.. {
            looks.tick().await;
            self.look_after().await;
            let due = self.slot.is_some() && look.is_multiple_of(ADOPT_EVERY);
            if due && adoption.is_finished() {
                let last = (&mut adoption).await.unwrap_or_default();
                adoption = self.search(last);
            }
        }
    }

    fn search(&self, last: Adoption) -> JoinHandle<Adoption> {
        tokio::spawn(last.run(
            Arc::clone(&self.storage),
            Arc::clone(&self.lanes),
            Arc::clone(&self.strangers),
        ))
    }

    async fn look_after(&mut self) {
        if let Some(slot) = self.slot.take_if(|slot| !slot.exists()) {
            let error = LogError::Vanished(slot.path().to_owned());
            for lane in self.lanes.iter() {
                lane.gone(&error);
            }
        }
        if self.slot.is_none() {
            self.claim(false);
        }
        let Some(slot) = &self.slot else { return };
        for lane in self.lanes.iter() {
            if !lane.is_there() {
                let directory = slot.log_directory(lane.exporter(), lane.signal.name());
                lane.gone(&LogError::Vanished(directory));
            }
            if !lane.has_log() {
                attach(lane, slot);
            }
            while lane.is_failing() && lane.has_log() && !lane.come_back() {
                tokio::task::yield_now().await;
            }
            lane.rest();
        }
    }
}

fn attach(lane: &Lane, slot: &Slot) {
    let Some(limits) = lane.log_limits() else {
        return;
    };
    let directory = slot.log_directory(lane.exporter(), lane.signal.name());
    match Log::open(&directory, limits) {
        Ok(log) => {
            lane.attach(log);
            while !lane.come_back() {}
        }
        Err(error) => lane.tell_failing(&error),
    }
}

/// Queues of exporters that are not configured any more are nobody's to send.
fn tell_strangers(slot: &Slot, lanes: &[Arc<Lane>], told: &Fold) {
    let known: Vec<_> = lanes
        .iter()
        .map(|lane| slot.log_directory(lane.exporter(), lane.signal.name()))
        .collect();
    for path in slot.unknown_logs(&known) {
        if told.due().is_some() {
            warn!(path = %path.display(), "a queue no exporter is configured for is left alone");
        }
    }
}

/// Takes over what dead processes have left in their slots.
#[derive(Default)]
struct Adoption {
    /// Directories whose files cannot be deleted: what is in them must not be sent again and again.
    stuck: HashSet<PathBuf>,
}

impl Adoption {
    /// One search; it comes back for the next.
    async fn run(
        mut self,
        storage: Arc<SlotDirectory>,
        lanes: Arc<[Arc<Lane>]>,
        told: Arc<Fold>,
    ) -> Self {
        for path in storage.slots() {
            let Ok(Some(slot)) = Slot::try_hold(path) else {
                continue;
            };
            tell_strangers(&slot, &lanes, &told);
            for lane in lanes.iter() {
                let directory = slot.log_directory(lane.exporter(), lane.signal.name());
                if !self.stuck.contains(&directory)
                    && let Err(error) = take_over(lane, &directory).await
                {
                    warn!(reason = error.reason(), %error, "a queue cannot be taken over");
                    self.stuck.insert(directory);
                }
            }
        }
        self
    }
}

/// Empties the directory of a lane like this one.
async fn take_over(lane: &Lane, directory: &Path) -> Result<(), LogError> {
    let failed = |source| LogError::io(directory, source);
    let segments = leftovers(directory).map_err(failed)?;
    if segments.is_empty() {
        return Ok(());
    }
    info!(
        directory = %directory.display(),
        segments = segments.len(),
        "taking over what another process has left on disk"
    );
    for segment in segments {
        if lane.take_over(&segment).await.is_some() {
            segment.remove().map_err(failed)?;
        }
    }
    remove_empty(directory);
    Ok(())
}

impl Lane {
    /// Appends what a segment of a dead process holds, and returns when it is as safe as if this
    /// process had acknowledged it. `None`: the process ends.
    async fn take_over(&self, segment: &Leftover) -> Option<()> {
        let mut job = Some(segment.first_job(PIECE));
        while let Some(next) = job {
            let chunk = spawn_blocking(move || next.run()).await.ok()?;
            self.tell_damage(&chunk);
            job = segment.job_after(&chunk, PIECE);
            for record in chunk.records {
                loop {
                    // While the disk fails it would be held in memory, without asking for room there.
                    self.works_again().await;
                    let held = self.held(record.payload.clone(), record.items)?;
                    match self.push(held, Origin::Recovered) {
                        Ok(ticket) => break ticket.ready().await,
                        Err(Full) => sleep(WAIT).await,
                    }
                }
            }
        }
        self.works_again().await;
        Some(())
    }

    async fn works_again(&self) {
        while self.is_failing() {
            sleep(WAIT).await;
        }
    }
}
