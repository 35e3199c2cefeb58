//! Maintains the queues of one storage: holds a slot for them, notices when the disk fails or works again, and
//! adopts the records of processes that have ended.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use segment_log::{Log, LogError, ReadJob, Slot, SlotDirectory, leftovers, remove_empty};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::lane::Lane;
use super::request::{Origin, QueueFull};
use crate::logging::LogThrottle;

/// The interval of checks of the disk.
const INTERVAL: Duration = Duration::from_secs(1);

/// Checks between searches for records of ended processes.
const ADOPT_EVERY: u64 = 3;

/// The wait of an adoption for room in the queue.
const WAIT: Duration = Duration::from_millis(200);

/// The maximum that an adoption reads at once.
const READ_AT_ONCE: usize = 256 * 1024;

/// The maintenance task of one storage.
pub(crate) struct Maintenance {
    storage: Arc<SlotDirectory>,
    lanes: Arc<[Arc<Lane>]>,
    slot: Option<Slot>,
    unknown_queues: Arc<LogThrottle>,
}

impl Maintenance {
    /// Puts the lanes' queues on disk, together with the records of the slot's last owner. If that fails the
    /// lanes start in memory.
    pub(crate) fn start(storage: SlotDirectory, lanes: Vec<Arc<Lane>>) -> Self {
        let mut maintenance = Self {
            storage: Arc::new(storage),
            lanes: lanes.into(),
            slot: None,
            unknown_queues: Arc::default(),
        };
        maintenance.claim(true);
        maintenance
    }

    /// Takes a slot; with `may_hold_records` its logs need not be empty.
    fn claim(&mut self, may_hold_records: bool) {
        let empty = |slot: &Slot| {
            self.lanes.iter().all(|lane| {
                let directory = slot.log_directory(lane.exporter(), lane.signal.name());
                leftovers(&directory, READ_AT_ONCE).is_ok_and(|leftovers| leftovers.is_empty())
            })
        };
        match self.storage.claim(|slot| may_hold_records || empty(slot)) {
            Ok(slot) => {
                log_unknown_queues(&slot, &self.lanes, &self.unknown_queues);
                for lane in self.lanes.iter() {
                    attach(lane, &slot);
                }
                self.slot = Some(slot);
            }
            Err(error) => {
                for lane in self.lanes.iter() {
                    lane.report_storage_failure(&error);
                }
            }
        }
    }

    /// Runs until the process ends.
    pub(crate) async fn run(mut self) {
        let mut commits = JoinSet::new();
        for lane in self.lanes.iter() {
            if lane.log_limits().is_some_and(|limits| limits.fsync) {
                commits.spawn(Arc::clone(lane).commit());
            }
        }
        let mut adoption = self.search(Adoption::default());
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in 0_u64.. {
            looks.tick().await;
            self.maintain().await;
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
            Arc::clone(&self.unknown_queues),
        ))
    }

    async fn maintain(&mut self) {
        if let Some(slot) = self.slot.take_if(|slot| !slot.exists()) {
            let error = LogError::Vanished(slot.path().to_owned());
            for lane in self.lanes.iter() {
                lane.lose_log(&error);
            }
        }
        if self.slot.is_none() {
            self.claim(false);
        }
        let Some(slot) = &self.slot else { return };
        for lane in self.lanes.iter() {
            if !lane.log_exists() {
                let directory = slot.log_directory(lane.exporter(), lane.signal.name());
                lane.lose_log(&LogError::Vanished(directory));
            }
            if !lane.has_log() {
                attach(lane, slot);
            }
            while lane.is_failing() && lane.has_log() && !lane.resume() {
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
            while !lane.resume() {}
        }
        Err(error) => lane.report_storage_failure(&error),
    }
}

/// Logs queues of exporters that are no longer configured; no lane sends them.
fn log_unknown_queues(slot: &Slot, lanes: &[Arc<Lane>], throttle: &LogThrottle) {
    let known: Vec<_> = lanes
        .iter()
        .map(|lane| slot.log_directory(lane.exporter(), lane.signal.name()))
        .collect();
    for path in slot.unknown_logs(&known) {
        if throttle.due().is_some() {
            warn!(path = %path.display(), "leaving a queue without a configured exporter alone");
        }
    }
}

/// Adopts the records of ended processes.
#[derive(Default)]
struct Adoption {
    /// Directories whose files cannot be deleted; their records must not be sent again and again.
    stuck: HashSet<PathBuf>,
}

impl Adoption {
    /// Searches once and returns itself for the next search.
    async fn run(
        mut self,
        storage: Arc<SlotDirectory>,
        lanes: Arc<[Arc<Lane>]>,
        throttle: Arc<LogThrottle>,
    ) -> Self {
        for path in storage.slots() {
            let Ok(Some(slot)) = Slot::try_hold(path) else {
                continue;
            };
            log_unknown_queues(&slot, &lanes, &throttle);
            for lane in lanes.iter() {
                let directory = slot.log_directory(lane.exporter(), lane.signal.name());
                if !self.stuck.contains(&directory)
                    && let Err(error) = adopt(lane, &directory).await
                {
                    warn!(reason = error.reason(), %error, "cannot adopt a queue");
                    self.stuck.insert(directory);
                }
            }
        }
        self
    }
}

/// Moves the records in a directory to the lane.
async fn adopt(lane: &Lane, directory: &Path) -> Result<(), LogError> {
    let failed = |source| LogError::io(directory, source);
    let segments = leftovers(directory, READ_AT_ONCE).map_err(failed)?;
    if segments.is_empty() {
        return Ok(());
    }
    info!(
        directory = %directory.display(),
        segments = segments.len(),
        "adopting records of another process on disk"
    );
    for segment in segments {
        if lane.adopt(&segment).await.is_some() {
            segment.remove_segment().map_err(failed)?;
        }
    }
    remove_empty(directory);
    Ok(())
}

impl Lane {
    /// Appends the records of another process's segment, and returns once they are as safe as acknowledged
    /// ones. `None` means that the process ends.
    async fn adopt(&self, segment: &ReadJob) -> Option<()> {
        let mut job = Some(segment.clone());
        while let Some(next) = job {
            let chunk = spawn_blocking(move || next.run()).await.ok()?;
            self.report_damage(&chunk);
            job = segment.after(&chunk);
            for record in chunk.records {
                loop {
                    // While the disk fails the record would use memory without asking for it.
                    self.storage_works().await;
                    let held = self.held(record.payload.clone(), record.items)?;
                    match self.push(held, Origin::Recovered) {
                        Ok(ack) => break ack.ready().await,
                        Err(QueueFull) => sleep(WAIT).await,
                    }
                }
            }
        }
        self.storage_works().await;
        Some(())
    }

    async fn storage_works(&self) {
        while self.is_failing() {
            sleep(WAIT).await;
        }
    }
}
