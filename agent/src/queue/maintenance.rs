//! Maintains the queues of one storage: holds a slot for them, notices when the disk fails or works again, and
//! adopts the records of processes that have ended.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use segment_log::{Log, LogError, ReadJob, Slot, SlotDirectory, leftovers, remove_empty};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::durable::PATIENCE;
use super::lane::Lane;
use super::request::{Origin, QueueFull};
use crate::logging::LogThrottle;
use crate::thread;

/// The interval of checks of the disk.
const INTERVAL: Duration = Duration::from_secs(1);

/// The pause between searches for records of ended processes.
const ADOPT_EVERY: Duration = Duration::from_secs(3);

/// The wait of an adoption for room in the queue.
const WAIT: Duration = Duration::from_millis(200);

/// The same for the disk.
const WRITE: Duration = Duration::from_millis(5);

/// The maximum that an adoption reads at once.
const READ_AT_ONCE: usize = 256 * 1024;

/// The upkeep of one storage, on threads of its own.
pub(crate) struct Maintenance {
    storage: Arc<SlotDirectory>,
    lanes: Arc<[Arc<Lane>]>,
    slot: Option<Slot>,
    unknown_queues: Arc<LogThrottle>,
}

impl Maintenance {
    /// Puts the lanes' queues on disk, together with the records of the slot's last owner. If the disk fails, or
    /// does not answer soon, the lanes start in memory.
    pub(crate) async fn start(storage: SlotDirectory, lanes: &[Arc<Lane>]) {
        let path = storage.path.clone();
        let (claimed, is_claimed) = oneshot::channel();
        if let Err(source) = Self::start_threads(storage, lanes, claimed) {
            report(lanes, &LogError::io(path, source));
        } else if timeout(PATIENCE, is_claimed).await.is_err() {
            report(lanes, &LogError::Stalled(path));
        }
    }

    fn start_threads(
        storage: SlotDirectory,
        lanes: &[Arc<Lane>],
        claimed: oneshot::Sender<()>,
    ) -> io::Result<()> {
        for lane in lanes {
            let lane = Arc::clone(lane);
            thread::start("queue-write", move || lane.write())?;
        }
        let mut maintenance = Self {
            storage: Arc::new(storage),
            lanes: lanes.into(),
            slot: None,
            unknown_queues: Arc::default(),
        };
        let adoption = Adoption {
            storage: Arc::clone(&maintenance.storage),
            lanes: Arc::clone(&maintenance.lanes),
            unknown_queues: Arc::clone(&maintenance.unknown_queues),
            stuck: HashSet::new(),
        };
        thread::start("queue-upkeep", move || {
            maintenance.claim(true);
            // The start no longer waits if it took too long.
            let _ = claimed.send(());
            maintenance.run();
        })?;
        thread::start("queue-adopt", move || adoption.run())?;
        Ok(())
    }

    /// Notices that the disk of a lane does not answer, until the process ends.
    pub(crate) async fn watch(lane: Arc<Lane>) {
        let Some(durable) = &lane.durable else { return };
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = durable.late.notified() => lane.stall(),
                _ = looks.tick() => lane.stall_if_late(),
            }
        }
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
            Err(error) => report(&self.lanes, &error),
        }
    }

    fn run(mut self) {
        loop {
            self.maintain();
            let next = Instant::now() + INTERVAL;
            while Instant::now() < next && self.compress() {}
            sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Compresses a segment of each queue that has one. Returns whether there may be more.
    fn compress(&self) -> bool {
        let compressed = self.lanes.iter().filter(|lane| lane.compress_next());
        compressed.count() > 0
    }

    fn maintain(&mut self) {
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
            if !lane.has_log() {
                attach(lane, slot);
            }
            lane.rest();
        }
    }
}

fn report(lanes: &[Arc<Lane>], error: &LogError) {
    for lane in lanes {
        lane.report_storage_failure(error);
    }
}

fn attach(lane: &Lane, slot: &Slot) {
    let Some(limits) = lane.log_limits() else {
        return;
    };
    let directory = slot.log_directory(lane.exporter(), lane.signal.name());
    match Log::open(&directory, limits) {
        Ok(log) => lane.attach(log),
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
struct Adoption {
    storage: Arc<SlotDirectory>,
    lanes: Arc<[Arc<Lane>]>,
    unknown_queues: Arc<LogThrottle>,
    /// Directories whose files cannot be deleted; their records must not be sent again and again.
    stuck: HashSet<PathBuf>,
}

impl Adoption {
    /// Searches until the process ends; blocks.
    fn run(mut self) {
        loop {
            if self.lanes.iter().any(|lane| lane.has_log()) {
                self.search();
            }
            sleep(ADOPT_EVERY);
        }
    }

    fn search(&mut self) {
        for path in self.storage.slots() {
            let Ok(Some(slot)) = Slot::try_hold(path) else {
                continue;
            };
            log_unknown_queues(&slot, &self.lanes, &self.unknown_queues);
            for lane in self.lanes.iter() {
                let directory = slot.log_directory(lane.exporter(), lane.signal.name());
                if !self.stuck.contains(&directory)
                    && let Err(error) = adopt(lane, &directory)
                {
                    warn!(reason = error.reason(), %error, "cannot adopt a queue");
                    self.stuck.insert(directory);
                }
            }
        }
    }
}

/// Moves the records in a directory to the lane.
fn adopt(lane: &Lane, directory: &Path) -> Result<(), LogError> {
    let failed = |source| LogError::io(directory, source);
    let segments = leftovers(directory, READ_AT_ONCE)?;
    if segments.is_empty() {
        return Ok(());
    }
    info!(
        directory = %directory.display(),
        segments = segments.len(),
        "adopting records of another process on disk"
    );
    for segment in segments {
        if lane.adopt(&segment).is_some() {
            segment.remove_segment().map_err(failed)?;
        }
    }
    remove_empty(directory);
    Ok(())
}

impl Lane {
    /// Appends the records of another process's segment, and returns once they are as safe as acknowledged
    /// ones; blocks. `None` if this lane has no disk.
    fn adopt(&self, segment: &ReadJob) -> Option<()> {
        let durable = self.durable.as_ref()?;
        let mut job = Some(segment.clone());
        while let Some(next) = job {
            let mut permit = durable.budget.permit(None);
            let chunk = next.run(&mut |bytes| {
                permit.grow_in_turn(bytes);
                true
            });
            self.report_damage(&chunk);
            job = segment.after(&chunk);
            let mut last = None;
            for record in chunk.records {
                last = loop {
                    // While the disk fails the record would use memory without asking for it.
                    self.until_storage_works();
                    let held = self.held(record.payload.clone(), record.items)?;
                    match self.push(held, Origin::Recovered) {
                        Ok(ack) => break ack.sequence,
                        Err(QueueFull) => sleep(WAIT),
                    }
                };
            }
            while last.is_some_and(|last| !durable.is_safe(last)) {
                sleep(WRITE);
            }
        }
        self.until_storage_works();
        Some(())
    }

    fn until_storage_works(&self) {
        while self.is_failing() {
            sleep(WAIT);
        }
    }
}
