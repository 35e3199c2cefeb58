//! Whether delivery works, signal by signal: for health, for the log, and for batches that wait before
//! they are tried again. Must not know how requests are sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otlp_wire::Signal;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{info, warn};

/// Longest wait between attempts while the agent shuts down.
const DRAIN_WAIT: Duration = Duration::from_millis(500);

/// An upstream that stays away is mentioned this often.
const REMINDER: Duration = Duration::from_mins(1);

/// Whether delivery works, as health tells it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivery {
    /// Since when every attempt has failed, and why the last one did.
    pub(crate) failing: Option<(Instant, String)>,
    /// When the last attempt succeeded.
    pub(crate) succeeded: Option<Instant>,
}

/// One signal's way to the upstream. An upstream may take logs and have no room for traces.
#[derive(Default)]
struct Way {
    state: Mutex<State>,
    /// The upstream can be reached again, or the agent shuts down: no need to wait longer.
    hurry: Notify,
}

#[derive(Default)]
struct State {
    delivery: Delivery,
    attempts: u64,
    /// When the log was last told of a failure.
    mentioned: Option<Instant>,
    /// Whether it was told of this row of failures.
    told: bool,
}

/// All ways to one upstream.
pub(super) struct Deliveries {
    exporter: String,
    ways: Vec<Way>,
    draining: AtomicBool,
}

impl Way {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deliveries {
    pub(super) fn new(exporter: &str) -> Self {
        Self {
            exporter: exporter.to_owned(),
            ways: Signal::ALL.iter().map(|_| Way::default()).collect(),
            draining: AtomicBool::new(false),
        }
    }

    /// All signals together: failing where any of them is.
    pub(super) fn overall(&self) -> Delivery {
        let mut overall = Delivery::default();
        for way in &self.ways {
            let Delivery { failing, succeeded } = way.state().delivery.clone();
            overall.succeeded = overall.succeeded.max(succeeded);
            let since = |failing: &Option<(Instant, String)>| failing.as_ref().map(|(at, _)| *at);
            if overall.failing.is_none() || since(&failing) < since(&overall.failing) {
                overall.failing = failing.or(overall.failing);
            }
        }
        overall
    }

    /// From now on waits between attempts are short, and those under way end.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.hurry();
    }

    /// What waits need not wait any longer.
    pub(super) fn hurry(&self) {
        for way in &self.ways {
            way.hurry.notify_waiters();
        }
    }

    /// Waits before the next attempt. Where the upstream has answered, it asks for that wait, and
    /// nothing but a shutdown cuts it; where it could not be reached, another's success does.
    pub(super) async fn pause(&self, signal: Signal, wait: Duration, answered: bool) {
        let Some(way) = self.ways.get(signal.index()) else {
            return;
        };
        let hurry = way.hurry.notified();
        if self.draining.load(Ordering::Relaxed) {
            sleep(wait.min(DRAIN_WAIT)).await;
            return;
        }
        let until = Instant::now() + wait;
        let _ = timeout_at(until, hurry).await;
        if answered && !self.draining.load(Ordering::Relaxed) {
            sleep_until(until).await;
        }
    }

    /// An attempt has succeeded.
    pub(super) fn succeeded(&self, signal: Signal) {
        let Some(way) = self.ways.get(signal.index()) else {
            return;
        };
        let mut state = way.state();
        state.delivery.succeeded = Some(Instant::now());
        let Some((since, _)) = state.delivery.failing.take() else {
            return;
        };
        let attempts = std::mem::take(&mut state.attempts);
        let told = std::mem::take(&mut state.told);
        drop(state);
        if told {
            info!(
                exporter = self.exporter,
                signal = signal.name(),
                failed_attempts = attempts,
                seconds = since.elapsed().as_secs(),
                "delivery works again"
            );
        }
        way.hurry.notify_waiters();
    }

    /// Remembers a failure; the log gets a line a minute at most.
    pub(super) fn failed(&self, signal: Signal, why: &str) {
        let Some(way) = self.ways.get(signal.index()) else {
            return;
        };
        let mut state = way.state();
        let now = Instant::now();
        let failing = state.delivery.failing.take();
        let since = failing.map_or(now, |(since, _)| since);
        state.delivery.failing = Some((since, why.to_owned()));
        state.attempts += 1;
        let attempts = state.attempts;
        let due = state
            .mentioned
            .is_none_or(|last| now.duration_since(last) >= REMINDER);
        if due {
            state.mentioned = Some(now);
            state.told = true;
        }
        drop(state);
        if due {
            warn!(
                exporter = self.exporter,
                signal = signal.name(),
                failed_attempts = attempts,
                seconds = since.elapsed().as_secs(),
                why,
                "delivery fails; telemetry is kept and sent again"
            );
        }
    }
}
