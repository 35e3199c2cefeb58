//! One configured exporter: where it sends to, and what is reported about it.

use std::sync::Arc;
use std::time::Duration;

use otelagent_flow::{Note, Outcome};
use otlp_wire::Signal;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::answer::UpstreamAnswer;
use super::delivery::{Deliveries, Delivery};
use super::destination::{Destination, MissingFiles};
use super::error::ExportError;
use crate::budget::Budget;
use crate::compress::Compressor;
use crate::config::Exporter;
use crate::logging::LogThrottle;
use crate::metrics::{Lost, Metrics};
use crate::worker::Worker;

/// One configured exporter.
pub(crate) struct Upstream {
    name: String,
    control: watch::Sender<Control>,
    pub(super) shared: Shared,
    deliveries: Deliveries,
    logs: Logs,
}

/// What senders obey.
#[derive(Clone)]
pub(super) struct Control {
    pub(super) destination: Arc<Destination>,
    /// Whether the process ends.
    pub(super) is_draining: bool,
}

/// What all exporters share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The memory budget.
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
    /// Batches use it in order of arrival.
    pub(crate) compressor: Arc<Worker<Compressor>>,
    /// The maximum age of connections to an upstream.
    pub(crate) connection_age: Duration,
}

/// One throttle for each kind of line.
#[derive(Default)]
struct Logs {
    partial: LogThrottle,
    cut: LogThrottle,
    isolating: LogThrottle,
    isolation_spent: LogThrottle,
    wait: LogThrottle,
    /// By signal and reason, so that one does not hide another.
    losses: [[LogThrottle; Lost::ALL.len()]; Signal::COUNT],
}

impl Upstream {
    /// Prepares an exporter.
    pub(crate) fn new(exporter: &Exporter, shared: Shared) -> Result<Arc<Self>, ExportError> {
        let age = shared.connection_age;
        let destination = Destination::new(exporter, age, MissingFiles::Await)?;
        Ok(Arc::new(Self {
            name: exporter.name(),
            control: watch::Sender::new(Control {
                destination,
                is_draining: false,
            }),
            shared,
            deliveries: Deliveries::new(&exporter.name()),
            logs: Logs::default(),
        }))
    }

    pub(super) fn control(&self) -> watch::Receiver<Control> {
        self.control.subscribe()
    }

    /// Replaces the destination of further attempts. Waiting attempts start at once, since the reason for
    /// their wait may be gone.
    pub(crate) fn change(&self, destination: Arc<Destination>) {
        self.control
            .send_modify(|control| control.destination = destination);
    }

    /// The component id, with the signal if the exporter carries only one.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether delivery works.
    pub(crate) fn delivery(&self) -> Delivery {
        self.deliveries.overall()
    }

    /// The number and the address of the endpoint in use.
    pub(crate) fn endpoint(&self) -> (usize, String) {
        let control = self.control.borrow();
        let (index, address) = control.destination.in_use();
        (index, address.to_owned())
    }

    /// Makes waits between attempts short from now on.
    pub(crate) fn drain(&self) {
        self.control
            .send_modify(|control| control.is_draining = true);
    }

    /// Counts the end of an attempt. One to an earlier destination says nothing about delivery now.
    pub(super) fn report(&self, signal: Signal, answer: &UpstreamAnswer, is_current: bool) {
        let UpstreamAnswer {
            outcome,
            fault,
            rejected,
            message,
            ..
        } = answer;
        if outcome.is_retryable() {
            self.shared.metrics.attempt_failed(answer.failure());
            if is_current {
                let is_refused = *outcome == Outcome::Denied || fault.is_some();
                self.deliveries.failed(signal, message, is_refused);
            }
        } else if *outcome == Outcome::Delivered {
            self.deliveries.succeeded(signal);
            if (*rejected > 0 || !message.is_empty())
                && let Some(left_out) = self.logs.partial.due()
            {
                warn!(
                    exporter = self.name(),
                    rejected,
                    upstream = message,
                    left_out,
                    "partial success"
                );
            }
        }
    }

    pub(super) fn log_note(&self, note: Note, why: &str) {
        let (exporter, logs) = (self.name(), &self.logs);
        match note {
            Note::Cut(bytes) => {
                if let Some(left_out) = logs.cut.due() {
                    let reason = Lost::TooLarge.name();
                    info!(
                        exporter,
                        reason, bytes, why, left_out, "sending a batch in halves"
                    );
                }
            }
            Note::Isolating(requests) => {
                if let Some(left_out) = logs.isolating.due() {
                    info!(
                        exporter,
                        requests, why, left_out, "finding the request that the upstream refuses"
                    );
                }
            }
            Note::IsolationSpent(requests) => {
                if let Some(left_out) = logs.isolation_spent.due() {
                    error!(
                        exporter,
                        requests,
                        why,
                        left_out,
                        "too much is refused to find each culprit; requests are lost together"
                    );
                }
            }
            Note::WaitBounded { asked, granted } => {
                if let Some(left_out) = logs.wait.due() {
                    let (asked, granted) = (asked.as_secs(), granted.as_secs());
                    warn!(
                        exporter,
                        asked,
                        granted,
                        left_out,
                        "the upstream asks for too long a wait, in seconds"
                    );
                }
            }
        }
    }

    pub(super) fn log_loss(&self, signal: Signal, items: u64, reason: Lost, why: &str) {
        let logs = self.logs.losses.get(signal.index());
        let log = logs.and_then(|logs| logs.get(reason as usize));
        if let Some(left_out) = log.and_then(LogThrottle::due) {
            error!(
                exporter = self.name(),
                signal = signal.name(),
                items,
                reason = reason.name(),
                why,
                left_out,
                "telemetry lost"
            );
        }
    }
}
