//! Connects the webhook to this process's metrics and probes.

use std::time::Duration;

use otelagent_webhook::Observer;

use super::{Metrics, Readiness};

/// Where the webhook reports to.
pub struct Served {
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's readiness.
    pub readiness: Readiness,
}

impl Observer for Served {
    fn ready(&self, part: &'static str) {
        self.readiness.ready(part);
    }

    fn not_ready(&self, part: &'static str) {
        self.readiness.not_ready(part);
    }

    fn reviewed(&self, outcome: &'static str, took: Duration) {
        self.metrics.reviewed(outcome, took);
    }
}
