//! Whether delivery works, by signal: for health, for the log, and for batches that wait for their next
//! attempt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use otlp_wire::Signal;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{info, warn};

use crate::lock::lock;

/// The longest wait between attempts during shutdown.
const DRAIN_WAIT: Duration = Duration::from_millis(500);

/// An upstream that keeps failing is logged at this interval.
const REMINDER: Duration = Duration::from_mins(1);

/// Whether delivery works.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivery {
    /// Since when every attempt has failed, and the reason of the last failure.
    pub(crate) failing: Option<(Instant, String)>,
    /// When the last attempt succeeded.
    pub(crate) succeeded: Option<Instant>,
}

/// The delivery of one signal; an upstream may accept logs and refuse traces.
#[derive(Default)]
struct SignalDelivery {
    state: Mutex<DeliveryState>,
    /// Ends waits: the upstream works again, or the agent shuts down.
    wake: Notify,
}

#[derive(Default)]
struct DeliveryState {
    delivery: Delivery,
    attempts: u64,
    /// The time of the last log line about failures.
    last_line: Option<Instant>,
    /// Whether the current failures were logged.
    logged: bool,
}

/// The deliveries to one upstream, by signal.
pub(super) struct Deliveries {
    exporter: String,
    signals: Vec<SignalDelivery>,
    draining: AtomicBool,
}

impl SignalDelivery {
    fn state(&self) -> MutexGuard<'_, DeliveryState> {
        lock(&self.state)
    }
}

impl Deliveries {
    pub(super) fn new(exporter: &str) -> Self {
        Self {
            exporter: exporter.to_owned(),
            signals: Signal::ALL
                .iter()
                .map(|_| SignalDelivery::default())
                .collect(),
            draining: AtomicBool::new(false),
        }
    }

    /// All signals together; failing if any of them is.
    pub(super) fn overall(&self) -> Delivery {
        let mut overall = Delivery::default();
        for delivery in &self.signals {
            let Delivery { failing, succeeded } = delivery.state().delivery.clone();
            overall.succeeded = overall.succeeded.max(succeeded);
            let since = |failing: &Option<(Instant, String)>| failing.as_ref().map(|(at, _)| *at);
            if overall.failing.is_none() || since(&failing) < since(&overall.failing) {
                overall.failing = failing.or(overall.failing);
            }
        }
        overall
    }

    /// Makes waits between attempts short from now on.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Ends the waits of all signals.
    pub(super) fn wake(&self) {
        for delivery in &self.signals {
            delivery.wake.notify_waiters();
        }
    }

    /// Waits before the next attempt. If the upstream `answered`, only a shutdown shortens the wait; if it was
    /// unreachable, the success of another attempt does too.
    pub(super) async fn wait(&self, signal: Signal, wait: Duration, answered: bool) {
        let Some(delivery) = self.signals.get(signal.index()) else {
            return;
        };
        let wake = delivery.wake.notified();
        if self.draining.load(Ordering::Relaxed) {
            sleep(wait.min(DRAIN_WAIT)).await;
            return;
        }
        let until = Instant::now() + wait;
        let _ = timeout_at(until, wake).await;
        if answered && !self.draining.load(Ordering::Relaxed) {
            sleep_until(until).await;
        }
    }

    /// Notes a successful attempt.
    pub(super) fn succeeded(&self, signal: Signal) {
        let Some(delivery) = self.signals.get(signal.index()) else {
            return;
        };
        let mut state = delivery.state();
        state.delivery.succeeded = Some(Instant::now());
        let Some((since, _)) = state.delivery.failing.take() else {
            return;
        };
        let attempts = std::mem::take(&mut state.attempts);
        let logged = std::mem::take(&mut state.logged);
        drop(state);
        if logged {
            info!(
                exporter = self.exporter,
                signal = signal.name(),
                failed_attempts = attempts,
                seconds = since.elapsed().as_secs(),
                "delivery works again"
            );
        }
        delivery.wake.notify_waiters();
    }

    /// Notes a failed attempt; logs at most once a minute.
    pub(super) fn failed(&self, signal: Signal, why: &str) {
        let Some(delivery) = self.signals.get(signal.index()) else {
            return;
        };
        let mut state = delivery.state();
        let now = Instant::now();
        let failing = state.delivery.failing.take();
        let since = failing.map_or(now, |(since, _)| since);
        state.delivery.failing = Some((since, why.to_owned()));
        state.attempts += 1;
        let attempts = state.attempts;
        let due = state
            .last_line
            .is_none_or(|last| now.duration_since(last) >= REMINDER);
        if due {
            state.last_line = Some(now);
            state.logged = true;
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
