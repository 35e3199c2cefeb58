//! What the operator's process and real agents expose is what the dashboard and the alerts ask for. In a real Prometheus,
//! which finds them by the documented configuration, the alerts fire during incidents and end with them.

mod stage;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use otelagent_core::names;
use otelagent_operator::runtime::Metrics;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

use self::stage::Stage;
use self::traffic::{application, flood};
use super::run::Outcome;
use crate::observe::files::{self, Query};
use crate::observe::prometheus::{Prometheus, get, until};
use crate::test_scale::is_full;

/// One stage at a time: the operator has one lease.
static STAGE: Mutex<()> = Mutex::const_new(());
/// How long is waited for a page to be complete: the operator asks agents every half minute.
const PATIENCE: Duration = Duration::from_mins(4);

/// Labels that scraping adds to every series.
const OF_TARGETS: [&str; 4] = ["otelagent", "namespace", "pod", "node"];
/// Metrics that are not on these pages: of another program, and of Prometheus.
const OF_OTHERS: [&str; 1] = ["kube_pod_container_status_restarts_total"];

/// The series on a page: names with the names of their labels.
type Series = BTreeMap<String, BTreeSet<String>>;

fn add(all: &mut Series, page: &str) {
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once('{').unwrap_or((line, ""));
        let name = name.split(' ').next().unwrap_or_default();
        // No value here has a quotation mark before a comma.
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, _)| label.to_owned());
        all.entry(name.to_owned()).or_default().extend(labels);
    }
}

/// What dashboard and alerts ask for and these series do not have.
fn missing(series: &Series) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    for (metric, labels) in files::selectors() {
        if OF_OTHERS.contains(&metric.as_str()) {
            continue;
        }
        let Some(known) = series.get(&metric) else {
            missing.insert(metric);
            continue;
        };
        let wanted = labels
            .iter()
            .filter(|label| !OF_TARGETS.contains(&label.as_str()));
        let unknown = wanted.filter(|label| !known.contains(*label));
        missing.extend(unknown.map(|label| format!("{metric}{{{label}}}")));
    }
    missing
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_ask_for_what_operator_and_agents_expose() {
    if !testbed::skip_unless_possible("metrics of operator and agents") {
        return;
    }
    let _alone = STAGE.lock().await;
    let stage = Stage::set().await.unwrap();
    let outcome = expose(&stage).await;
    stage.end().await;
    outcome.unwrap();
}

async fn expose(stage: &Stage) -> Outcome<()> {
    stage.make_errors().await?;
    // They are counted with Rolling only.
    let rolling = json!({"spec": {"workloads": {"restart": "Rolling"}}});
    stage.run.patch(&stage.run.path(), &rolling).await?;
    stage.upstream.answer(503);
    let sender = Ipv4Addr::new(127, 0, 0, 2);
    let flooded = flood(sender, stage.receiver(0)).await?;
    let operator = SocketAddr::from((Ipv4Addr::LOCALHOST, stage.metrics));
    // Injects only where the API server cannot, so its page is that of the library.
    let webhook = Metrics::new();
    webhook.reviewed("Injected", Duration::from_micros(300));
    let end = Instant::now() + PATIENCE;
    let left = loop {
        let mut series = Series::new();
        let agents = stage.agents.iter().map(stage::AgentProcess::metrics);
        for page in agents.chain([operator]) {
            add(&mut series, &get(page, "/metrics").unwrap_or_default());
        }
        add(&mut series, &webhook.render());
        let missing = missing(&series);
        if missing.is_empty() || Instant::now() > end {
            break missing;
        }
        sleep(Duration::from_secs(1)).await;
    };
    drop(flooded);
    stage.end_errors().await?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("nobody exposes {left:#?}"))
    }
}

/// Panels for which nothing happens here: no endpoint fails over, no webhook runs, no pod is orphaned, and nothing
/// restarts workloads.
const WITHOUT_DATA: [&str; 5] = [
    "Endpoint in use",
    "Missed and uncovered pods",
    "Reviews of the webhook",
    "Duration of reviews",
    "Workloads to restart",
];

/// With `make test-full`: Prometheus takes minutes to build.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_in_prometheus_during_incidents_and_end_with_them() {
    if !is_full() || !testbed::skip_unless_possible("alerts in a real Prometheus") {
        return;
    }
    let _alone = STAGE.lock().await;
    let mut stage = Stage::set().await.unwrap();
    let kubeconfig = stage.run.cluster.kubeconfig().display().to_string();
    let discovery = format!("{{role: pod, kubeconfig_file: {kubeconfig}}}");
    let scrape = files::scrape_configuration().replace("{role: pod}", &discovery);
    // The ports of agents are those of the documentation.
    let prometheus = tokio::task::spawn_blocking(move || Prometheus::start(&scrape));
    let mut watch = Watch {
        prometheus: prometheus.await.unwrap(),
        queries: files::queries(),
        answered: BTreeSet::new(),
    };
    let outcome = incidents(&mut stage, &mut watch).await;
    stage.end().await;
    outcome.unwrap();
}

/// Prometheus, and the queries that have found something so far.
struct Watch {
    prometheus: Prometheus,
    queries: Vec<Query>,
    answered: BTreeSet<usize>,
}

impl Watch {
    /// Asks everything that the dashboard asks.
    fn ask(&mut self) {
        for (number, query) in self.queries.iter().enumerate() {
            if !self.prometheus.query(&query.with("1m")).is_empty() {
                self.answered.insert(number);
            }
        }
    }

    fn fires(&mut self, alert: &str, labels: &[(&str, &str)]) {
        self.prometheus.until_firing(alert, labels);
        self.ask();
    }
}

async fn incidents(stage: &mut Stage, watch: &mut Watch) -> Outcome<()> {
    let object = stage.run.name.clone();
    let object = [("name", object.as_str())];
    let pods: Vec<String> = stage.agents.iter().map(|agent| agent.pod.clone()).collect();
    let local = Ipv4Addr::LOCALHOST;
    let _applications: Vec<_> = (0..pods.len())
        .map(|agent| application(local, stage.receiver(agent)))
        .collect();

    // Applications that are older than their OtelAgent, and an agent without its disk.
    watch.fires("OtelAgentPodsMissed", &object);
    let last = pods.len() - 1;
    let diskless = [("pod", pods[last].as_str()), ("reason", "missing")];
    watch.fires("OtelAgentStorageFailing", &diskless);
    stage.agents[last].give_disk();
    stage.run.roll().await?;
    watch.prometheus.until_silent();
    let up = watch.prometheus.query("count by (job) (up == 1)");
    let counts: BTreeMap<&str, f64> = up
        .iter()
        .map(|(labels, value)| (labels["job"].as_str(), *value))
        .collect();
    // A pod is one target, although it declares three ports.
    let expected = BTreeMap::from([("otelagent-agents", 3.0), ("otelagent-operator", 1.0)]);
    assert_eq!(counts, expected);

    // A wrong token.
    stage.upstream.answer(401);
    let label = names::agent_label(&stage.run.namespace, &stage.run.name);
    let all = [("otelagent", label.as_str())];
    watch.fires("OtelAgentNotDelivering", &all);
    for pod in &pods {
        watch.fires("OtelAgentAgentNotDelivering", &[("pod", pod.as_str())]);
    }
    stage.upstream.answer(200);
    watch.prometheus.until_silent();

    crowding(stage, watch, &pods[0]).await?;

    // Data that the upstream never takes.
    stage.upstream.answer(400);
    for signal in ["spans", "log records", "metric points"] {
        let labels = [("reason", "permanent"), ("signal", signal)];
        watch.fires("OtelAgentTelemetryLost", &labels);
    }
    watch.fires("OtelAgentLossRateHigh", &all);
    stage.upstream.answer(200);
    watch.prometheus.until_silent();

    topology(stage, watch, &object).await?;

    let silent = watch.queries.iter().enumerate();
    let silent = silent.filter(|(number, query)| {
        !watch.answered.contains(number) && !WITHOUT_DATA.contains(&query.panel.as_str())
    });
    let silent: Vec<String> = silent
        .map(|(_, query)| format!("{}: {}", query.panel, query.expr))
        .collect();
    assert!(silent.is_empty(), "panels without data: {silent:#?}");
    Ok(())
}

/// The upstream is overloaded until queues are full: first by one application, then by two.
async fn crowding(stage: &Stage, watch: &mut Watch, pod: &str) -> Outcome<()> {
    let [first, second] = [2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
    stage.upstream.answer(503);
    let one = flood(first, stage.receiver(0)).await?;
    watch.fires("OtelAgentQueueNearlyFull", &[("pod", pod)]);
    let refused = [("pod", pod), ("sender", "127.0.0.2")];
    watch.fires("OtelAgentSenderRefused", &refused);
    let is_refusing = watch.prometheus.is_firing("OtelAgentRefusesTelemetry");
    assert!(
        !is_refusing,
        "one sender floods, and nobody else is refused"
    );
    let other = flood(second, stage.receiver(0)).await?;
    watch.fires("OtelAgentRefusesTelemetry", &[("pod", pod)]);
    drop((one, other));
    stage.upstream.answer(200);
    watch.prometheus.until_silent();
    Ok(())
}

/// What the operator sees: stale pods, agents that are not ready; and the operator itself.
async fn topology(stage: &mut Stage, watch: &mut Watch, object: &[(&str, &str)]) -> Outcome<()> {
    let change = json!({"spec": {"workloads": {"flushInterval": "3s"}}});
    stage.run.patch(&stage.run.path(), &change).await?;
    watch.fires("OtelAgentPodsStale", object);
    stage.run.roll().await?;
    watch.prometheus.until_silent();

    stage.agents_ready(false).await?;
    watch.fires("OtelAgentPodsUncovered", object);
    watch.fires("OtelAgentNotReady", object);
    stage.agents_ready(true).await?;
    watch.prometheus.until_silent();

    stage.stop_operator();
    watch.fires("OtelAgentOperatorDown", &[]);
    stage.start_operator();
    watch.prometheus.until_silent();

    stage.make_errors().await?;
    until("errors have a rate", || {
        let found = watch.prometheus.query("rate(otelagent_errors_total[1m])");
        (!found.is_empty())
            .then_some(())
            .ok_or_else(|| "none".into())
    });
    watch.ask();
    stage.end_errors().await?;
    watch.prometheus.until_silent();
    Ok(())
}
