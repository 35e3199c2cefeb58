//! The webhook's metrics and probes, as this process serves them.

use std::time::Duration;

use otelagent_webhook::Observer;

use super::{Metrics, Readiness};

/// Where the webhook reports to.
pub struct Served {
    /// What is counted.
    pub metrics: Metrics,
    /// What the kubelet asks for.
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
