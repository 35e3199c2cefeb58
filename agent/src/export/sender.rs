//! Moves the requests of one lane to the upstream: does the I/O that the flow decides on.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use otelagent_flow::{Attempt, Flow, Loss, Settled, Step};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::answer::UpstreamAnswer;
use super::attempt;
use super::upstream::{Control, Upstream};
use crate::metrics::Lost;
use crate::queue::{Batch, Lane};

/// The next batch of a lane; `None` once it is closed and empty.
type NextBatch = Pin<Box<dyn Future<Output = Option<Batch>> + Send>>;

/// Sends the requests of a lane until it is closed and everything is settled.
pub(crate) async fn send_lane(upstream: Arc<Upstream>, lane: Arc<Lane>) {
    BatchSender::new(upstream, lane).run().await;
}

struct BatchSender {
    upstream: Arc<Upstream>,
    lane: Arc<Lane>,
    flow: Flow<Batch>,
    /// Where the flow's time begins.
    clock: Instant,
    control: watch::Receiver<Control>,
    in_use: Control,
    in_flight: JoinSet<(Attempt<Batch>, UpstreamAnswer)>,
}

impl BatchSender {
    fn new(upstream: Arc<Upstream>, lane: Arc<Lane>) -> Self {
        let mut control = upstream.control();
        let in_use = control.borrow_and_update().clone();
        Self {
            flow: Flow::new(in_use.destination.settings(), Duration::ZERO),
            clock: Instant::now(),
            upstream,
            lane,
            control,
            in_use,
            in_flight: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        let mut next = next_batch(&self.lane);
        let mut is_open = true;
        loop {
            match self.flow.next(self.now()) {
                Step::Send(attempt) => self.send(attempt),
                Step::Lost(batch, loss) => {
                    self.lost(batch, loss, "given up while it waited");
                    // There may be one for each item of a large request.
                    tokio::task::yield_now().await;
                }
                Step::Idle { take, until } => {
                    if !is_open && self.flow.is_empty() && self.in_flight.is_empty() {
                        return;
                    }
                    if let Some(bytes) = take {
                        self.lane.limit_batches(bytes);
                    }
                    tokio::select! {
                        biased;
                        Some(Ok((attempt, answer))) = self.in_flight.join_next() => {
                            self.finished(attempt, &answer);
                        }
                        Ok(()) = self.control.changed() => self.controlled(),
                        // While no batch is wanted, requests gather into larger ones.
                        batch = &mut next, if is_open && take.is_some() => match batch {
                            Some(batch) => {
                                next = next_batch(&self.lane);
                                self.take(batch);
                            }
                            None => is_open = false,
                        },
                        () = until_due(self.clock, until), if until.is_some() => {}
                    }
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    fn take(&mut self, batch: Batch) {
        let (signal, items, bytes) = (batch.signal(), batch.items(), batch.bytes() as u64);
        let metrics = &self.upstream.shared.metrics;
        metrics.dispatched(signal, items, bytes);
        self.flow.push(batch, self.now());
    }

    /// While the upstream fails, what waits for it belongs on disk. Not called after a batch was taken, which would go
    /// to and fro.
    fn relieve_memory(&mut self) {
        let (fails, repeated) = (self.flow.is_failing(), self.flow.repeated_bytes());
        self.lane.note_upstream(fails, repeated);
        while let Some(batch) = self.flow.give_back(self.now(), Batch::can_go_back) {
            batch.go_back();
        }
    }

    fn controlled(&mut self) {
        let control = self.control.borrow_and_update().clone();
        if !Arc::ptr_eq(&control.destination, &self.in_use.destination) {
            self.flow.reset(control.destination.settings(), self.now());
        }
        if control.is_draining && !self.in_use.is_draining {
            self.flow.drain(self.now());
        }
        self.in_use = control;
        self.relieve_memory();
    }

    fn send(&mut self, mut attempt: Attempt<Batch>) {
        let destination = Arc::clone(&self.in_use.destination);
        let shared = self.upstream.shared.clone();
        self.in_flight.spawn(async move {
            let mut waited = Duration::ZERO;
            let (piece, limit) = (attempt.piece(), attempt.time_limit());
            let answer = attempt::send(piece, &destination, &shared, limit, &mut waited).await;
            attempt.delayed(waited);
            (attempt, answer)
        });
    }

    fn finished(&mut self, attempt: Attempt<Batch>, answer: &UpstreamAnswer) {
        let is_current = self.flow.is_current(&attempt);
        self.upstream.report(self.lane.signal, answer, is_current);
        let now = self.now();
        let finished = self
            .flow
            .finished(attempt, answer.outcome, now, fastrand::f64());
        if let Some(note) = finished.note {
            self.upstream.log_note(note, &answer.message);
        }
        match finished.settled {
            Some(Settled::Delivered(batch)) => batch.delivered(answer.rejected),
            Some(Settled::Lost(batch, loss)) => self.lost(batch, loss, &answer.message),
            None => {}
        }
        self.relieve_memory();
    }

    fn lost(&self, batch: Batch, loss: Loss, why: &str) {
        let reason = match loss {
            Loss::Permanent => Lost::Permanent,
            Loss::TooLarge => Lost::TooLarge,
            Loss::GivenUp => Lost::GivenUp,
        };
        self.upstream
            .log_loss(batch.signal(), batch.items(), reason, why);
        batch.lost(reason);
    }
}

fn next_batch(lane: &Arc<Lane>) -> NextBatch {
    let lane = Arc::clone(lane);
    Box::pin(async move { Batch::next(&lane).await })
}

/// Waits until a moment of the flow's time, if there is one.
async fn until_due(clock: Instant, until: Option<Duration>) {
    let left = until.unwrap_or(Duration::MAX);
    sleep(left.saturating_sub(clock.elapsed())).await;
}
