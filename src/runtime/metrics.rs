//! The process's metrics, and their page.
//!
//! Labels are `&'static str`, so the number of series is bounded. Only what a status says is shown by object, by the
//! holder of the lease: a few dozen series for each `OtelAgent`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ::http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use tokio::net::TcpListener;

use super::described::{self, Described};
use super::http::{self, page};
use super::shown::{ShownAgent, ShownAgents};

/// Content type of the `OpenMetrics` text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds of reconcile durations, in seconds: a settled object takes milliseconds, a verification
/// about a second, and a reconcile times out after a minute.
const DURATIONS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

/// Upper bounds of the webhook's answers, in seconds: the target is 0.005, its own deadline 2.
const REVIEW_DURATIONS: [f64; 9] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0];

/// Names of labels and their values.
type LabelSet<const N: usize> = [(&'static str, &'static str); N];

/// A handle to all metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<LabelSet<1>, Counter>,
    reconcile_duration: Histogram,
    writes: Family<LabelSet<2>, Counter>,
    errors: Family<LabelSet<1>, Counter>,
    leader: Gauge,
    objects: Gauge<u64, AtomicU64>,
    orphaned_pods: Gauge<u64, AtomicU64>,
    reviews: Family<LabelSet<1>, Counter>,
    review_duration: Histogram,
    delivery_polls: Family<LabelSet<1>, Counter>,
    agents: ShownAgents,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(described::PREFIX);
        let to = &mut registry;
        Self {
            reviews: shown(to, &described::WEBHOOK_REVIEWS, Family::default()),
            review_duration: shown(
                to,
                &described::WEBHOOK_REVIEW_DURATION,
                Histogram::new(REVIEW_DURATIONS),
            ),
            reconciles: shown(to, &described::RECONCILES, Family::default()),
            reconcile_duration: shown(
                to,
                &described::RECONCILE_DURATION,
                Histogram::new(DURATIONS),
            ),
            writes: shown(to, &described::API_WRITES, Family::default()),
            errors: shown(to, &described::ERRORS, Family::default()),
            leader: shown(to, &described::LEADER, Gauge::default()),
            objects: shown(to, &described::OBJECTS, Gauge::default()),
            orphaned_pods: shown(to, &described::ORPHANED_PODS, Gauge::default()),
            delivery_polls: shown(to, &described::DELIVERY_POLLS, Family::default()),
            agents: ShownAgents::on(to),
            registry: {
                let version = vec![("version", env!("CARGO_PKG_VERSION"))];
                let build = &described::BUILD;
                to.register(build.name, build.meaning, Info::new(version));
                Arc::new(registry)
            },
        }
    }

    /// A reconcile ended.
    pub fn reconciled(&self, succeeded: bool, took: Duration) {
        let result = if succeeded { "success" } else { "error" };
        self.reconciles.get_or_create(&[("result", result)]).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// An object was written.
    pub fn wrote(&self, kind: &'static str, verb: &'static str) {
        self.writes
            .get_or_create(&[("kind", kind), ("verb", verb)])
            .inc();
    }

    /// An error, by one of a closed set of reasons.
    pub fn failed(&self, reason: &'static str) {
        self.errors.get_or_create(&[("reason", reason)]).inc();
    }

    /// Notes whether this process holds the lease.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Notes how many pods were injected for an `OtelAgent` that does not exist; returns how many there were.
    pub fn orphaned_pods(&self, count: usize) -> u64 {
        self.orphaned_pods.set(count.try_into().unwrap_or(u64::MAX))
    }

    /// Notes how many `OtelAgent`s this process knows.
    pub fn objects(&self, count: usize) {
        self.objects.set(count.try_into().unwrap_or(u64::MAX));
    }

    /// The webhook answered, with one of a closed set of outcomes.
    pub fn reviewed(&self, outcome: &'static str, took: Duration) {
        self.reviews.get_or_create(&[("outcome", outcome)]).inc();
        self.review_duration.observe(took.as_secs_f64());
    }

    /// An agent was asked whether it delivers.
    pub fn polled(&self, answered: bool) {
        let result = if answered { "answered" } else { "unanswered" };
        self.delivery_polls
            .get_or_create(&[("result", result)])
            .inc();
    }

    /// Shows these objects from now on, as they are when the page is read.
    pub fn show_agents(&self, source: impl Fn() -> Vec<ShownAgent> + Send + Sync + 'static) {
        self.agents.read_from(Box::new(source));
    }

    /// All metrics in the `OpenMetrics` text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; a partial page would still be the best answer.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Registers a metric as it is described.
fn shown<M: Metric + Clone>(registry: &mut Registry, of: &Described, metric: M) -> M {
    registry.register(of.name, of.meaning, metric.clone());
    metric
}

/// Serves `/metrics`; never returns.
pub async fn serve(listener: TcpListener, metrics: Metrics) {
    http::serve(listener, move |path| {
        (path == "/metrics").then(|| page(StatusCode::OK, OPEN_METRICS, metrics.render()))
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::super::shown::Counted;
    use super::*;

    /// Everything there is, counted once at least.
    fn busy() -> Metrics {
        let metrics = Metrics::new();
        metrics.reconciled(true, Duration::from_millis(20));
        metrics.reconciled(false, Duration::from_secs(2));
        metrics.clone().wrote("DaemonSet", "apply");
        metrics.failed("Forbidden");
        metrics.leads(true);
        metrics.objects(3);
        metrics.polled(true);
        metrics.orphaned_pods(2);
        metrics.reviewed("Injected", Duration::from_micros(300));
        metrics.show_agents(|| {
            vec![ShownAgent {
                namespace: "shop".into(),
                name: "cart".into(),
                label: "shop.cart".into(),
                conditions: vec![("Ready", "True"), ("Delivering", "False")],
                modes: Some(("NodeLocal", "HostPort")),
                counts: vec![
                    (Counted::Agents, "ready", 2),
                    (Counted::Pods, "stale", 5),
                    (Counted::Delivery, "failing", 1),
                    (Counted::Restarts, "waiting", 4),
                ],
            }]
        });
        metrics
    }

    #[test]
    fn what_was_counted_is_on_the_page() {
        assert!(!Metrics::new().render().contains("otelagent_condition"));
        let page = busy().render();
        for line in [
            r#"otelagent_reconciles_total{result="success"} 1"#,
            r#"otelagent_reconciles_total{result="error"} 1"#,
            r#"otelagent_reconcile_duration_seconds_bucket{le="0.05"} 1"#,
            "otelagent_reconcile_duration_seconds_count 2",
            r#"otelagent_api_writes_total{kind="DaemonSet",verb="apply"} 1"#,
            r#"otelagent_errors_total{reason="Forbidden"} 1"#,
            "otelagent_leader 1",
            "otelagent_objects 3",
            r#"otelagent_delivery_polls_total{result="answered"} 1"#,
            "# TYPE otelagent_condition gauge",
            r#"otelagent_condition{namespace="shop",name="cart",otelagent="shop.cart",type="Delivering",status="False"} 1"#,
            r#"otelagent_mode{namespace="shop",name="cart",otelagent="shop.cart",wanted="NodeLocal",serving="HostPort"} 1"#,
            r#"otelagent_agents{namespace="shop",name="cart",otelagent="shop.cart",state="ready"} 2"#,
            r#"otelagent_pods{namespace="shop",name="cart",otelagent="shop.cart",state="stale"} 5"#,
            r#"otelagent_delivery_agents{namespace="shop",name="cart",otelagent="shop.cart",state="failing"} 1"#,
            r#"otelagent_restarting_workloads{namespace="shop",name="cart",otelagent="shop.cart",state="waiting"} 4"#,
            "otelagent_build_info{version=",
            "# EOF",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    /// The names of a series' labels, but for that of a histogram's buckets.
    fn labels(series: &str) -> Vec<&str> {
        let Some((_, labels)) = series.split_once('{') else {
            return Vec::new();
        };
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split('=').next());
        labels.filter(|label| *label != "le").collect()
    }

    #[test]
    fn every_metric_on_the_page_is_described_as_it_is() {
        let page = busy().render();
        let mut families = page.matches("# TYPE ").count();
        for metric in described::ALL {
            let family = format!("{}_{}", described::PREFIX, metric.name);
            let kind = format!("# TYPE {family} {}\n", metric.kind.word());
            assert!(page.contains(&kind), "{kind} is not in\n{page}");
            let series = metric.series();
            let is_its = |line: &&str| {
                let rest = line.strip_prefix(series.as_str());
                let rest = rest.map(|rest| rest.trim_start_matches("_bucket"));
                rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            let first = page.lines().find(is_its);
            let first = first.unwrap_or_else(|| panic!("{series} is not in\n{page}"));
            let expected: Vec<_> = metric.labels.iter().map(|(name, _)| *name).collect();
            assert_eq!(labels(first), expected, "{first}");
            families -= 1;
        }
        assert_eq!(families, 0, "some are not described:\n{page}");
    }
}
