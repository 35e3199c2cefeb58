//! Whether delivery works, by signal: for health and for the log.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use otlp_wire::Signal;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::lock::lock;

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
struct SignalDelivery(Mutex<DeliveryState>);

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
}

impl SignalDelivery {
    fn state(&self) -> MutexGuard<'_, DeliveryState> {
        lock(&self.0)
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
    }

    /// Notes a failed attempt; logs at most once a minute. `is_refused` if the upstream is there and refuses this
    /// agent: that needs a person.
    pub(super) fn failed(&self, signal: Signal, why: &str, is_refused: bool) {
        let Some(delivery) = self.signals.get(signal.index()) else {
            return;
        };
        let mut state = delivery.state();
        let now = Instant::now();
        let failing = state.delivery.failing.take();
        let since = failing.map_or(now, |(since, _)| since);
        state.delivery.failing = Some((since, why.to_owned()));
        state.attempts += 1;
        let failed_attempts = state.attempts;
        let due = state
            .last_line
            .is_none_or(|last| now.duration_since(last) >= REMINDER);
        if !due {
            return;
        }
        state.last_line = Some(now);
        state.logged = true;
        drop(state);
        let (exporter, signal) = (&self.exporter, signal.name());
        let seconds = since.elapsed().as_secs();
        if is_refused {
            error!(
                exporter,
                signal,
                failed_attempts,
                seconds,
                why,
                "the upstream refuses this agent: check endpoint, protocol and credentials"
            );
        } else {
            warn!(
                exporter,
                signal,
                failed_attempts,
                seconds,
                why,
                "delivery fails; telemetry is kept and sent again"
            );
        }
    }
}
