//! The size of requests that the upstream takes, as far as its answers have told.

use std::time::Duration;

/// Batches are not cut smaller than this, in bytes: below, an upstream that says "too large" means something else.
pub(crate) const FLOOR: usize = 64 * 1024;

/// So many pieces that cannot be cut, refused in a row, speak for the others of their batch.
const ENOUGH: u32 = 4;

/// A refused size is forgotten after this time: limits are raised, too.
const FORGET: Duration = Duration::from_mins(10);

#[derive(Clone, Debug)]
pub(crate) struct SizeLimit {
    /// The configured size of a full batch.
    most: usize,
    /// Half of the smallest size that was refused, and when.
    learned: Option<(usize, Duration)>,
    /// What a slow upstream answers in time.
    in_time: usize,
    /// Refusals since the last success.
    in_a_row: u32,
    /// The batches that were cut so far.
    cuts: u64,
    /// Refusals since the last success of pieces that cannot be cut.
    whole_in_a_row: u32,
    /// A batch of which such pieces were refused, one below the floor or several, and the size of the smallest.
    hopeless: Option<(u64, usize)>,
}

impl SizeLimit {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            learned: None,
            in_time: usize::MAX,
            in_a_row: 0,
            cuts: 0,
            whole_in_a_row: 0,
            hopeless: None,
        }
    }

    /// The size for the next batch.
    pub(crate) fn limit(&self, now: Duration) -> usize {
        self.most.min(self.passing(now))
    }

    /// The size that is known to pass, in time; as large as can be where nothing else was seen.
    pub(crate) fn passing(&self, now: Duration) -> usize {
        self.in_time.min(self.learned(now).unwrap_or(usize::MAX))
    }

    fn learned(&self, now: Duration) -> Option<usize> {
        let recent = |at: Duration| now.saturating_sub(at) < FORGET;
        self.learned
            .filter(|(_, at)| recent(*at))
            .map(|(size, _)| size)
    }

    /// The size from which on pieces of a batch that was cut are known to be refused.
    pub(crate) fn hopeless(&self, cut: Option<u64>) -> Option<usize> {
        let (of, size) = self.hopeless?;
        (cut == Some(of)).then_some(size)
    }

    /// A number for a batch that is cut.
    pub(crate) fn new_cut(&mut self) -> u64 {
        self.cuts += 1;
        self.cuts
    }

    /// The size below which a batch would not be answered faster by much.
    pub(crate) fn least(&self) -> usize {
        (self.most / 8).max(FLOOR)
    }

    /// Notes a piece that was refused as too large; returns the refusals in a row.
    pub(crate) fn refused(&mut self, bytes: usize, now: Duration) -> u32 {
        let half = (bytes / 2).max(FLOOR);
        let known = self.learned(now).unwrap_or(usize::MAX);
        self.learned = Some((half.min(known), now));
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.in_a_row
    }

    /// Notes that a refused piece of a batch cannot be cut. Below the floor, an upstream that refuses it refuses
    /// all of its size; above, one that refuses several and takes none in between.
    pub(crate) fn refused_whole(&mut self, bytes: usize, cut: Option<u64>) {
        self.whole_in_a_row = self.whole_in_a_row.saturating_add(1);
        let is_enough = bytes <= FLOOR || self.whole_in_a_row >= ENOUGH;
        if let Some(cut) = cut.filter(|_| is_enough) {
            let known = self.hopeless(Some(cut)).unwrap_or(usize::MAX);
            self.hopeless = Some((cut, bytes.min(known)));
        }
    }

    /// Notes a piece that got no answer in time, or only just, although nothing else was in flight.
    pub(crate) fn timed_out(&mut self, bytes: usize) {
        self.in_time = (bytes / 2).max(self.least()).min(self.in_time);
    }

    /// Notes a success, and whether nothing else was in flight that could have slowed it down.
    pub(crate) fn passed(
        &mut self,
        bytes: usize,
        latency: Duration,
        was_alone: bool,
        timeout: Duration,
    ) {
        self.in_a_row = 0;
        self.whole_in_a_row = 0;
        if self.hopeless.is_some_and(|(_, size)| bytes >= size) {
            self.hopeless = None;
        }
        if latency > timeout / 2 && was_alone {
            self.timed_out(bytes);
        } else if latency < timeout / 4 {
            let more = self.in_time.saturating_mul(2);
            self.in_time = if more < self.most { more } else { usize::MAX };
        }
    }
}
