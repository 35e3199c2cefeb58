//! What the end of an attempt means for its piece and for everything that follows.

use std::time::Duration;

use crate::backoff::{slow, spread};
use crate::flow::{Attempt, Failure, Flow, Held, MOST_PATIENCE, Record};
use crate::outcome::{Finished, Loss, Note, Outcome, Settled};
use crate::piece::Piece;
use crate::settings::Retry;
use crate::size::FLOOR;

/// A piece that failed so often while others passed fails for itself: it waits alone, and others go on.
const PERSONAL_AFTER: u32 = 2;

/// Its wait in multiples of the time that its attempts take.
const RARE: u32 = 20;

/// From here on it is halved, so that only the part that fails is kept back.
const HALVED_AFTER: u32 = 4;

impl<P> Finished<P> {
    fn waits() -> Self {
        Self {
            settled: None,
            note: None,
        }
    }

    fn delivered(piece: P) -> Self {
        Self {
            settled: Some(Settled::Delivered(piece)),
            note: None,
        }
    }

    fn lost(piece: P, loss: Loss) -> Self {
        Self {
            settled: Some(Settled::Lost(piece, loss)),
            note: None,
        }
    }

    fn noting(self, note: impl Into<Option<Note>>) -> Self {
        Self {
            note: note.into(),
            ..self
        }
    }
}

impl Record {
    fn is_personal(&self) -> bool {
        self.passed_by >= PERSONAL_AFTER
    }

    /// The growing wait of a piece that fails for itself, and takes up little of the time of others.
    fn own_wait(&mut self, took: Duration, retry: &Retry, dice: f64) -> Duration {
        self.keeps_wait = true;
        let rare = spread(took.saturating_mul(RARE), retry, dice);
        self.backoff.next(retry, dice).max(rare.min(retry.max_wait))
    }
}

impl<P: Piece> Held<P> {
    /// The second half of a piece that failed often while others passed.
    fn halved_if_others_pass(&mut self) -> Option<Self> {
        if self.record.passed_by < HALVED_AFTER || self.piece.requests() <= 1 {
            return None;
        }
        self.record.passed_by = PERSONAL_AFTER;
        self.split()
    }
}

impl<P: Piece> Flow<P> {
    /// Takes back an attempt with its outcome. `dice` is a random number from 0 up to 1.
    pub fn finished(
        &mut self,
        attempt: Attempt<P>,
        outcome: Outcome,
        now: Duration,
        dice: f64,
    ) -> Finished<P> {
        if attempt.epoch != self.epoch {
            return self.finished_elsewhere(attempt, outcome, now);
        }
        self.flying = self.flying.saturating_sub(1);
        self.flying_alone = false;
        let retry = self.settings.retry;
        match outcome {
            Outcome::Delivered => self.delivered(attempt, now, dice),
            Outcome::TooLarge => self.too_large(attempt.held, now, dice),
            Outcome::BadData => self.bad_data(attempt.held, now),
            Outcome::Denied | Outcome::Exhausted if !retry.hold => {
                Finished::lost(attempt.held.piece, Loss::Permanent)
            }
            _ if !retry.enabled => {
                self.window.collapse();
                Finished::lost(attempt.held.piece, Loss::GivenUp)
            }
            Outcome::Denied => self.denied(attempt, now, dice),
            Outcome::Unreachable => {
                let wait = self.fail_growing(attempt.started, true, Duration::ZERO, now, dice);
                self.keep(attempt.held, None, wait, now)
            }
            Outcome::Busy(asked) => self.busy(attempt, asked, now, dice),
            Outcome::Exhausted => self.busy(attempt, None, now, dice),
            Outcome::Broken => self.failed(attempt, true, Duration::ZERO, now, dice),
            Outcome::TimedOut => self.timed_out(attempt, now, dice),
        }
    }

    /// An attempt to an upstream that has been replaced: what did not get through goes to the new one at once.
    fn finished_elsewhere(
        &mut self,
        attempt: Attempt<P>,
        outcome: Outcome,
        now: Duration,
    ) -> Finished<P> {
        if outcome == Outcome::Delivered {
            return Finished::delivered(attempt.held.piece);
        }
        self.wait_anew(attempt.held, now);
        Finished::waits()
    }

    fn delivered(&mut self, attempt: Attempt<P>, now: Duration, dice: f64) -> Finished<P> {
        self.successes += 1;
        self.works(attempt.started, now);
        let timeout = self.settings.timeout;
        let latency = now.saturating_sub(attempt.started);
        if latency > timeout {
            self.patience = MOST_PATIENCE;
        } else if latency <= timeout / 2 {
            self.patience = 1;
        }
        let bytes = attempt.held.piece.bytes();
        let is_least = bytes <= self.size.least();
        let most = self.settings.max_in_flight;
        self.window
            .succeeded(latency, attempt.was_full, is_least, timeout, most);
        self.size.passed(bytes, latency, attempt.was_only, timeout);
        let retry = &self.settings.retry;
        let pause = spread(self.window.pause(latency), retry, dice).min(retry.max_wait);
        if !pause.is_zero() {
            self.pause_until(now.saturating_add(self.shortened(pause)));
        }
        Finished::delivered(attempt.held.piece)
    }

    fn too_large(&mut self, mut held: Held<P>, now: Duration, dice: f64) -> Finished<P> {
        self.answers(now);
        self.window.collapse();
        let bytes = held.piece.bytes();
        if self.size.refused(bytes, now) > 1 {
            let pause = self.backoff.next(&self.settings.retry, dice);
            self.pause_until(now.saturating_add(self.shortened(pause)));
        }
        let cut = held.record.cut;
        held.record.cut = Some(cut.unwrap_or_else(|| self.size.new_cut()));
        let Some(half) = held.split() else {
            self.size.refused_whole(bytes, cut);
            return Finished::lost(held.piece, Loss::TooLarge);
        };
        self.wait_both(held, half, now);
        Finished::waits().noting(Note::Cut(bytes))
    }

    fn bad_data(&mut self, mut held: Held<P>, now: Duration) -> Finished<P> {
        self.answers(now);
        let requests = held.piece.requests();
        if requests <= 1 {
            return Finished::lost(held.piece, Loss::Permanent);
        }
        if !self.isolation.take(now) {
            return Finished::lost(held.piece, Loss::Permanent)
                .noting(Note::IsolationSpent(requests));
        }
        let Some(half) = held.split() else {
            return Finished::lost(held.piece, Loss::Permanent);
        };
        self.wait_both(held, half, now);
        Finished::waits().noting(Note::Isolating(requests))
    }

    fn busy(
        &mut self,
        attempt: Attempt<P>,
        asked: Option<Duration>,
        now: Duration,
        dice: f64,
    ) -> Finished<P> {
        let granted = asked.map(|asked| asked.min(self.settings.retry.max_wait));
        let note = asked
            .zip(granted)
            .filter(|(asked, granted)| granted < asked)
            .map(|(asked, granted)| Note::WaitBounded { asked, granted });
        self.failed(attempt, false, granted.unwrap_or_default(), now, dice)
            .noting(note)
    }

    fn timed_out(&mut self, attempt: Attempt<P>, now: Duration, dice: f64) -> Finished<P> {
        let others_pass = self.successes > attempt.successes;
        let took = now.saturating_sub(attempt.started);
        let mut held = attempt.held;
        let bytes = held.piece.bytes();
        self.fail_once_more(&mut held.record);
        // A small one alone without an answer says nothing about the load, and leaves others a place.
        let beside_others = others_pass && bytes <= FLOOR;
        held.record.is_late = !beside_others;
        // Alone in flight it was too large for the time; else it is tried alone first.
        let half = if attempt.was_only && bytes > FLOOR {
            self.size.timed_out(bytes);
            held.split()
        } else {
            None
        };
        held.record.alone = held.piece.bytes() > FLOOR;
        let wait = if held.record.is_personal() {
            held.record.own_wait(took, &self.settings.retry, dice)
        } else {
            let is_least = bytes <= self.size.least();
            let places = if beside_others { 2 } else { 1 };
            self.window
                .timed_out(attempt.started, is_least, places, now);
            if others_pass {
                Duration::ZERO
            } else {
                self.fail_growing(attempt.started, true, Duration::ZERO, now, dice)
            }
        };
        self.keep(held, half, wait, now)
    }

    /// A failure that may be the piece's own fault: of the load, or of a connection.
    fn failed(
        &mut self,
        attempt: Attempt<P>,
        is_silent: bool,
        asked: Duration,
        now: Duration,
        dice: f64,
    ) -> Finished<P> {
        let took = now.saturating_sub(attempt.started);
        let mut held = attempt.held;
        self.fail_once_more(&mut held.record);
        let wait = if held.record.is_personal() {
            held.record
                .own_wait(took, &self.settings.retry, dice)
                .max(asked)
        } else {
            held.record.keeps_wait = !asked.is_zero();
            self.fail_growing(attempt.started, is_silent, asked, now, dice)
        };
        let half = held.halved_if_others_pass();
        self.keep(held, half, wait, now)
    }

    /// The way is refused; or only this piece, by a firewall that looks at the data.
    fn denied(&mut self, attempt: Attempt<P>, now: Duration, dice: f64) -> Finished<P> {
        let took = now.saturating_sub(attempt.started);
        let retry = self.settings.retry;
        let mut wait = slow(&retry, dice);
        let mut held = attempt.held;
        self.fail_once_more(&mut held.record);
        if held.record.is_personal() {
            wait = held.record.own_wait(took, &retry, dice).max(wait);
        } else {
            wait = self.fail(attempt.started, false, wait, now);
        }
        let half = held.halved_if_others_pass();
        self.keep(held, half, wait, now)
    }

    fn fail_once_more(&mut self, record: &mut Record) {
        record.failures = record.failures.saturating_add(1);
        if self.successes > record.seen && record.failures > 1 {
            record.passed_by = record.passed_by.saturating_add(1);
        }
        record.seen = self.successes;
    }

    /// The upstream fails: one probe after a growing wait, at least what it asked for. Returns the wait.
    fn fail_growing(
        &mut self,
        started: Duration,
        is_silent: bool,
        asked: Duration,
        now: Duration,
        dice: f64,
    ) -> Duration {
        let wait = if self.is_news(started) {
            self.backoff.next(&self.settings.retry, dice).max(asked)
        } else {
            asked
        };
        self.fail(started, is_silent, wait, now)
    }

    /// The upstream fails: one probe after `wait`. Returns how long until then: an attempt that began before the
    /// failure was known changes it only to what the upstream asks for.
    fn fail(
        &mut self,
        started: Duration,
        is_silent: bool,
        wait: Duration,
        now: Duration,
    ) -> Duration {
        let until = now.saturating_add(self.shortened(wait));
        if self.is_news(started) {
            self.resume_at = until;
            self.failure = Some(Failure { at: now, is_silent });
            self.window.collapse();
        } else {
            self.pause_until(until);
            if let Some(failure) = &mut self.failure {
                failure.is_silent &= is_silent;
            }
        }
        self.resume_at.saturating_sub(now)
    }

    fn is_news(&self, started: Duration) -> bool {
        self.failure.is_none_or(|failure| started >= failure.at)
    }

    fn pause_until(&mut self, until: Duration) {
        self.resume_at = self.resume_at.max(until);
    }

    /// The upstream takes what was sent at `started`.
    fn works(&mut self, started: Duration, now: Duration) {
        let is_over = |failure: Failure| failure.is_silent || started >= failure.at;
        if self.failure.is_some_and(is_over) {
            self.recovered(now);
        }
        if self.failure.is_none() {
            self.backoff.reset();
        }
    }

    /// The upstream answers.
    fn answers(&mut self, now: Duration) {
        if self.failure.is_some_and(|failure| failure.is_silent) {
            self.recovered(now);
        }
    }

    fn recovered(&mut self, now: Duration) {
        self.failure = None;
        self.resume_at = now;
        for held in &mut self.waiting {
            if !held.record.keeps_wait {
                held.record.ready_at = held.record.ready_at.min(now);
            }
        }
    }

    /// Keeps a piece, and its second half if it was halved, for another attempt. Gives it up if its time is up by
    /// then; the half follows when it is.
    fn keep(
        &mut self,
        mut held: Held<P>,
        half: Option<Held<P>>,
        wait: Duration,
        now: Duration,
    ) -> Finished<P> {
        let ready_at = now.saturating_add(self.shortened(wait));
        if let Some(mut half) = half {
            half.record = Record {
                order: half.record.order,
                ready_at,
                ..held.record.clone()
            };
            self.wait(half);
        }
        let expiry = self.expiry(&held.record);
        if expiry.is_some_and(|expiry| expiry < ready_at) {
            return Finished::lost(held.piece, Loss::GivenUp);
        }
        held.record.ready_at = ready_at;
        self.wait(held);
        Finished::waits()
    }

    /// Both halves of a piece go next.
    fn wait_both(&mut self, held: Held<P>, half: Held<P>, now: Duration) {
        for mut part in [held, half] {
            part.record.ready_at = now;
            self.wait(part);
        }
    }
}
