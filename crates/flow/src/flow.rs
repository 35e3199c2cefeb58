//! What to do next: which piece to send, whether to take another batch from the queue, or how long to wait.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::isolation::Isolation;
use crate::outcome::Loss;
use crate::piece::Piece;
use crate::settings::Settings;
use crate::size::{FLOOR, SizeLimit};
use crate::window::Window;

/// The longest wait during a shutdown.
const DRAIN_WAIT: Duration = Duration::from_millis(500);

/// How long the queue has to offer a batch before one that has failed already is tried again.
const OFFER: Duration = Duration::from_millis(20);

/// The longest time limit of an attempt, in multiples of the configured one.
pub const MOST_PATIENCE: u32 = 6;

/// A piece that failed so often lets the queue offer another one first.
const STUCK_AFTER: u32 = 2;

/// A piece that failed so often while others passed is given up once it stops others.
const EVICTED_AFTER: u32 = 8;

/// The batches of one signal between queue and upstream.
#[derive(Debug)]
pub struct Flow<P> {
    pub(crate) settings: Settings,
    /// Counts the upstreams; answers of an earlier one say nothing about the present one.
    pub(crate) epoch: u64,
    /// Oldest first.
    pub(crate) waiting: Vec<Held<P>>,
    /// The batches taken over so far.
    pub(crate) taken: u64,
    /// Attempts in flight to the present upstream.
    pub(crate) flying: usize,
    /// Whether the attempt in flight must stay the only one.
    pub(crate) flying_alone: bool,
    pub(crate) window: Window,
    pub(crate) size: SizeLimit,
    pub(crate) backoff: Backoff,
    /// The time limit of an attempt in multiples of the configured one, by the last success.
    pub(crate) patience: u32,
    pub(crate) failure: Option<Failure>,
    /// No attempt begins earlier.
    pub(crate) resume_at: Duration,
    /// Since when the queue has been asked for a batch instead of a piece that has failed.
    pub(crate) asked_queue: Option<Duration>,
    pub(crate) isolation: Isolation,
    pub(crate) successes: u64,
    pub(crate) draining: bool,
}

/// The upstream fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// When that was last confirmed. Attempts that began earlier tell nothing new.
    pub(crate) at: Duration,
    /// It does not answer. It may be back at any moment, while one that answers is there and means it.
    pub(crate) is_silent: bool,
}

/// A piece that waits.
#[derive(Debug)]
pub(crate) struct Held<P> {
    pub(crate) piece: P,
    pub(crate) record: Record,
}

/// What has happened to a piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// The number of the batch, and the place of the piece in it.
    pub(crate) order: (u64, usize),
    /// When its first attempt began.
    pub(crate) first: Option<Duration>,
    pub(crate) ready_at: Duration,
    /// Whether it waits for itself, not for the upstream.
    pub(crate) keeps_wait: bool,
    /// Whether it may be in flight only alone, since it got no answer in time.
    pub(crate) alone: bool,
    /// The number of the batch that was cut because it was too large.
    pub(crate) cut: Option<u64>,
    /// Whether an attempt got no answer in time.
    pub(crate) is_late: bool,
    /// Failures in a row that may be its own fault.
    pub(crate) failures: u32,
    /// Those between which other pieces passed.
    pub(crate) passed_by: u32,
    /// The successes of others up to the last failure.
    pub(crate) seen: u64,
    pub(crate) backoff: Backoff,
}

/// A piece to send, and what the flow wants back with it.
#[derive(Debug)]
pub struct Attempt<P> {
    pub(crate) held: Held<P>,
    pub(crate) started: Duration,
    pub(crate) time_limit: Duration,
    pub(crate) epoch: u64,
    /// The successes when it began.
    pub(crate) successes: u64,
    /// Nothing else was in flight when it began.
    pub(crate) was_only: bool,
    /// The window was full from then on.
    pub(crate) was_full: bool,
}

impl<P> Attempt<P> {
    /// The piece to send.
    pub fn piece(&self) -> &P {
        &self.held.piece
    }

    /// How long to wait for progress, and then for the answer.
    pub fn time_limit(&self) -> Duration {
        self.time_limit
    }

    /// Notes that it was begun so much later than it was asked for, because memory was short.
    pub fn delayed(&mut self, by: Duration) {
        self.started = self.started.saturating_add(by);
    }
}

/// What to do next.
#[derive(Debug)]
pub enum Step<P> {
    /// Send this now.
    Send(Attempt<P>),
    /// This is lost without another attempt.
    Lost(P, Loss),
    /// Wait for the end of an attempt, for `until`, or for a batch of at most `take` bytes from the queue if
    /// there is a number; then ask again. `until` is later than now.
    Idle {
        /// The size of the batch to take.
        take: Option<usize>,
        /// When something changes by itself.
        until: Option<Duration>,
    },
}

impl<P: Piece> Held<P> {
    /// Splits off the second half.
    pub(crate) fn split(&mut self) -> Option<Self> {
        let piece = self.piece.split()?;
        let mut record = self.record.clone();
        record.order.1 = record.order.1.saturating_add(self.piece.queued_bytes());
        Some(Self { piece, record })
    }
}

impl<P: Piece> Flow<P> {
    /// An empty flow to an upstream about which nothing is known.
    pub fn new(settings: Settings, now: Duration) -> Self {
        Self {
            settings,
            epoch: 0,
            waiting: Vec::new(),
            taken: 0,
            flying: 0,
            flying_alone: false,
            window: Window::new(),
            size: SizeLimit::new(settings.max_batch),
            backoff: Backoff::default(),
            patience: 1,
            failure: None,
            resume_at: now,
            asked_queue: None,
            isolation: Isolation::new(now),
            successes: 0,
            draining: false,
        }
    }

    /// Uses other settings, perhaps another upstream. Ends every wait and forgets what was learned.
    pub fn reset(&mut self, settings: Settings, now: Duration) {
        let waiting = std::mem::take(&mut self.waiting);
        *self = Self {
            epoch: self.epoch.wrapping_add(1),
            taken: self.taken,
            draining: self.draining,
            ..Self::new(settings, now)
        };
        for held in waiting {
            self.wait_anew(held, now);
        }
    }

    /// Makes waits short from now on: the process ends.
    pub fn drain(&mut self, now: Duration) {
        self.draining = true;
        let latest = now.saturating_add(DRAIN_WAIT);
        self.resume_at = self.resume_at.min(latest);
        for held in &mut self.waiting {
            held.record.ready_at = held.record.ready_at.min(latest);
        }
    }

    /// Takes over a batch from the queue.
    pub fn push(&mut self, piece: P, now: Duration) {
        self.taken += 1;
        let record = Record {
            order: (self.taken, 0),
            ..Record::default()
        };
        self.wait_anew(Held { piece, record }, now);
    }

    /// Whether nothing waits here.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the upstream fails.
    pub fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// The bytes of pieces that wait here for another attempt.
    pub fn repeated_bytes(&self) -> usize {
        let tried = |held: &&Held<P>| held.record.failures > 0;
        let pieces = self.waiting.iter().filter(tried);
        pieces.map(|held| held.piece.queued_bytes()).sum()
    }

    /// While the upstream fails, returns a batch to the queue: the newest here, unless it is the only one and as
    /// small as a probe, or its past counts.
    pub fn give_back(&mut self, now: Duration, may: impl Fn(&P) -> bool) -> Option<P> {
        let counts_time = !self.settings.retry.max_elapsed_time.is_zero();
        if self.failure.is_none() || self.draining || counts_time {
            return None;
        }
        let newest = self.waiting.last()?;
        let is_only = self.waiting.len() + self.flying == 1;
        let is_probe = is_only && newest.piece.bytes() <= self.take_size(now);
        let is_blank = newest.record.failures == 0 && newest.record.cut.is_none();
        let goes = is_blank && !is_probe && may(&newest.piece);
        goes.then(|| self.waiting.pop())?.map(|held| held.piece)
    }

    /// The pieces that wait here.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the attempt is one to the present upstream.
    pub fn is_current(&self, attempt: &Attempt<P>) -> bool {
        attempt.epoch == self.epoch
    }

    /// What to do now.
    pub fn next(&mut self, now: Duration) -> Step<P> {
        if let Some(held) = self.overdue(now).or_else(|| self.evicted()) {
            return Step::Lost(held.piece, Loss::GivenUp);
        }
        if !self.has_slot() || self.resume_at > now {
            let until = self.wake_at(now);
            return Step::Idle { take: None, until };
        }
        if let Some(index) = self.first_ready(now) {
            let record = self.waiting.get(index).map(|held| &held.record);
            let is_stuck = record.is_some_and(|record| record.failures >= STUCK_AFTER);
            if self.flying > 0 && record.is_some_and(|record| record.alone) {
                let until = self.expiries().min();
                return Step::Idle { take: None, until };
            }
            let patience = self.asked_queue.get_or_insert(now).saturating_add(OFFER);
            if is_stuck && self.failure.is_some() && self.may_take() && now < patience {
                return Step::Idle {
                    take: Some(self.take_size(now)),
                    until: Some(patience),
                };
            }
            self.asked_queue = None;
            return self.start(index, now);
        }
        Step::Idle {
            take: self.may_take().then(|| self.take_size(now)),
            until: self.wake_at(now),
        }
    }

    /// Keeps a piece whose past does not count.
    pub(crate) fn wait_anew(&mut self, held: Held<P>, now: Duration) {
        let record = Record {
            order: held.record.order,
            first: held.record.first,
            ready_at: now,
            ..Record::default()
        };
        let piece = held.piece;
        self.wait(Held { piece, record });
    }

    pub(crate) fn wait(&mut self, held: Held<P>) {
        let order = held.record.order;
        let index = self
            .waiting
            .partition_point(|other| other.record.order < order);
        self.waiting.insert(index, held);
    }

    /// The wait as it is during a shutdown.
    pub(crate) fn shortened(&self, wait: Duration) -> Duration {
        if self.draining {
            wait.min(DRAIN_WAIT)
        } else {
            wait
        }
    }

    fn has_slot(&self) -> bool {
        // One probe while the upstream fails.
        let most = match self.failure {
            Some(_) => 1,
            None => self.window.size(),
        };
        self.flying < most.min(self.settings.max_in_flight.max(1)) && !self.flying_alone
    }

    /// Whether pieces leave strictly in order, which is what one consumer is for.
    fn keeps_order(&self) -> bool {
        self.settings.max_in_flight <= 1
    }

    /// The piece to send now, if one is ready.
    fn first_ready(&self, now: Duration) -> Option<usize> {
        let ready = self.waiting.iter().enumerate();
        let ready = ready.filter(|(_, held)| held.record.ready_at <= now);
        let first = match self.failure {
            // What has failed least, then what is smallest: another piece tells whether it was this one's fault.
            Some(_) if !self.keeps_order() => ready.min_by_key(|(_, held)| {
                let failures = held.record.failures;
                (failures, if failures > 0 { held.piece.bytes() } else { 0 })
            }),
            _ => ready.min_by_key(|(_, held)| (held.record.passed_by, 0)),
        };
        first.map(|(index, _)| index)
    }

    /// Whether another batch may leave the queue. While the upstream fails, few do: the queue may be on disk.
    fn may_take(&self) -> bool {
        let bytes = || {
            self.waiting
                .iter()
                .map(|held| held.piece.bytes())
                .sum::<usize>()
        };
        let is_stuck = |held: &Held<P>| held.record.failures >= STUCK_AFTER;
        let is_wanted = || {
            let few = self.waiting.is_empty() || !self.keeps_order();
            few && self.waiting.iter().all(is_stuck) && bytes() < self.settings.max_batch.max(FLOOR)
        };
        self.waiting.len() < self.most_held() && (self.failure.is_none() || is_wanted())
    }

    /// The size of the next batch: a small one as a probe.
    fn take_size(&self, now: Duration) -> usize {
        let limit = self.size.limit(now);
        match self.failure {
            Some(_) => limit.min(self.size.least()),
            None => limit,
        }
    }

    fn most_held(&self) -> usize {
        self.settings.max_in_flight.max(2).saturating_mul(2)
    }

    /// Removes a piece whose time is up.
    fn overdue(&mut self, now: Duration) -> Option<Held<P>> {
        let expired = |held: &Held<P>| self.expiry(&held.record).is_some_and(|at| at <= now);
        let index = self.waiting.iter().position(expired)?;
        Some(self.waiting.remove(index))
    }

    pub(crate) fn expiry(&self, record: &Record) -> Option<Duration> {
        let limit = self.settings.retry.max_elapsed_time;
        let first = record.first.filter(|_| !limit.is_zero())?;
        Some(first.saturating_add(limit))
    }

    /// Removes the piece that the upstream refused most often while it took others, if there is no place left for
    /// others.
    fn evicted(&mut self) -> Option<Held<P>> {
        if self.waiting.len() < self.most_held() {
            return None;
        }
        let passed_by = self.waiting.iter().map(|held| held.record.passed_by);
        let worst = passed_by.max().filter(|most| *most >= EVICTED_AFTER)?;
        let index = self
            .waiting
            .iter()
            .position(|held| held.record.passed_by == worst)?;
        Some(self.waiting.remove(index))
    }

    /// Starts an attempt with the waiting piece at `index`, cut to a size that may pass.
    fn start(&mut self, index: usize, now: Duration) -> Step<P> {
        let mut held = self.waiting.remove(index);
        let hopeless = self.size.hopeless(held.record.cut);
        let below = hopeless.map_or(usize::MAX, |bytes| bytes.saturating_sub(1));
        let most = self.size.passing(now).min(below);
        while held.piece.bytes() > most
            && let Some(half) = held.split()
        {
            self.wait(half);
        }
        if hopeless.is_some_and(|least| held.piece.bytes() >= least) {
            return Step::Lost(held.piece, Loss::TooLarge);
        }
        held.record.first.get_or_insert(now);
        let time_limit = self.time_limit(&held.record);
        self.flying += 1;
        self.flying_alone = held.record.alone;
        Step::Send(Attempt {
            held,
            started: now,
            time_limit,
            epoch: self.epoch,
            successes: self.successes,
            was_only: self.flying == 1,
            was_full: self.flying >= self.window.size(),
        })
    }

    /// The time limit of an attempt, twice as long after one that was too short: an upstream that always takes a little
    /// longer would store the same again and again. Not where others pass.
    fn time_limit(&self, record: &Record) -> Duration {
        let again = if record.is_late && record.passed_by == 0 {
            2
        } else {
            1
        };
        self.settings
            .timeout
            .saturating_mul(again.max(self.patience))
    }

    /// When something is due by itself; later than now.
    fn wake_at(&self, now: Duration) -> Option<Duration> {
        let attempt = if !self.has_slot() {
            None
        } else if self.resume_at > now {
            Some(self.resume_at)
        } else {
            self.waiting.iter().map(|held| held.record.ready_at).min()
        };
        self.expiries().chain(attempt).min()
    }

    fn expiries(&self) -> impl Iterator<Item = Duration> {
        let records = self.waiting.iter().map(|held| &held.record);
        records.filter_map(|record| self.expiry(record))
    }
}
