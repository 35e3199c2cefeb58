//! What the process counts, and where Prometheus reads it.
//!
//! Labels come from the program's own words, never from objects, so the number of series is bounded:
//! every label is a `&'static str` for that reason. Must not know what is counted for.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::http::{self, Page};

/// Content type of the `OpenMetrics` text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds of reconcile durations, in seconds: a settled object takes milliseconds, one that needs
/// a proof about a second, and a reconcile is given up after a minute.
const DURATIONS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

/// Upper bounds of the webhook's answers, in seconds: the bar is 0.005, and 2 is when it gives up.
const REVIEW_DURATIONS: [f64; 9] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: &'static str,
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// A handle to everything that is counted; clones count into the same place.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<ResultLabel, Counter>,
    reconcile_duration: Histogram,
    writes: Family<WriteLabels, Counter>,
    errors: Family<ReasonLabel, Counter>,
    leader: Gauge,
    objects: Gauge<u64, AtomicU64>,
    reviews: Family<OutcomeLabel, Counter>,
    review_duration: Histogram,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("otelagent");
        let reconciles = Family::default();
        let reconcile_duration = Histogram::new(DURATIONS);
        let writes = Family::default();
        let errors = Family::default();
        let leader = Gauge::default();
        let objects = Gauge::default();
        let reviews = Family::default();
        let review_duration = Histogram::new(REVIEW_DURATIONS);
        registry.register(
            "webhook_reviews",
            "Reviews of pods the webhook answered, by what became of them",
            reviews.clone(),
        );
        registry.register(
            "webhook_review_duration_seconds",
            "Time the webhook takes to answer",
            review_duration.clone(),
        );
        registry.register(
            "reconciles",
            "Passes over an OtelAgent, by result",
            reconciles.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Time one pass over an OtelAgent takes",
            reconcile_duration.clone(),
        );
        registry.register(
            "api_writes",
            "Writes to the API server, by kind and verb",
            writes.clone(),
        );
        registry.register("errors", "Errors, by reason", errors.clone());
        registry.register(
            "leader",
            "1 while this process holds the lease",
            leader.clone(),
        );
        registry.register(
            "objects",
            "OtelAgents this process knows of",
            objects.clone(),
        );
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The program", Info::new(version));
        Self {
            reconciles,
            reconcile_duration,
            writes,
            errors,
            leader,
            objects,
            reviews,
            review_duration,
            registry: Arc::new(registry),
        }
    }

    /// One pass over an object ended.
    pub fn reconciled(&self, succeeded: bool, took: Duration) {
        let result = if succeeded { "success" } else { "error" };
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// An object was written.
    pub fn wrote(&self, kind: &'static str, verb: &'static str) {
        self.writes.get_or_create(&WriteLabels { kind, verb }).inc();
    }

    /// Something failed, for one of a closed set of reasons.
    pub fn failed(&self, reason: &'static str) {
        self.errors.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Whether this process holds the lease.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// How many `OtelAgent`s this process knows of.
    pub fn objects(&self, count: usize) {
        self.objects.set(count.try_into().unwrap_or(u64::MAX));
    }

    /// The webhook answered, in one of a closed set of ways.
    pub fn reviewed(&self, outcome: &'static str, took: Duration) {
        self.reviews.get_or_create(&OutcomeLabel { outcome }).inc();
        self.review_duration.observe(took.as_secs_f64());
    }

    /// Everything in the `OpenMetrics` text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; a partial page would still be the best answer.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Answers `/metrics` for ever.
pub async fn serve(listener: TcpListener, metrics: Metrics) {
    http::serve(listener, move |path| {
        (path == "/metrics").then(|| Page::ok(OPEN_METRICS, metrics.render()))
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_on_the_page() {
        let metrics = Metrics::new();
        metrics.reconciled(true, Duration::from_millis(20));
        metrics.reconciled(false, Duration::from_secs(2));
        metrics.clone().wrote("DaemonSet", "apply");
        metrics.failed("Forbidden");
        metrics.leads(true);
        metrics.objects(3);
        let page = metrics.render();
        for line in [
            r#"otelagent_reconciles_total{result="success"} 1"#,
            r#"otelagent_reconciles_total{result="error"} 1"#,
            r#"otelagent_reconcile_duration_seconds_bucket{le="0.05"} 1"#,
            "otelagent_reconcile_duration_seconds_count 2",
            r#"otelagent_api_writes_total{kind="DaemonSet",verb="apply"} 1"#,
            r#"otelagent_errors_total{reason="Forbidden"} 1"#,
            "otelagent_leader 1",
            "otelagent_objects 3",
            "otelagent_build_info{version=",
            "# EOF",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
