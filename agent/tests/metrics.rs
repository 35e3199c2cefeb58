//! The reference of metrics against a running agent, and against the documentation printed from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use otelagent_agent::metrics::{MetricRow, reference, rows};
use prost::Message;

use crate::support::agent::{Agent, Setup, get, temporary};
use crate::support::client::{Grpc, Http, TRACES};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink};
use crate::support::telemetry::spans;

/// A family on a page: its type, and the names of all labels of its series.
#[derive(Debug, Default)]
struct Seen {
    kind: String,
    labels: BTreeSet<String>,
}

/// The families of a page by name.
fn families(agent: &Agent) -> BTreeMap<String, Seen> {
    let page = get(agent.metrics, "/metrics").1;
    let mut families: BTreeMap<String, Seen> = BTreeMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let seen = families.entry(name.to_owned()).or_default();
            kind.clone_into(&mut seen.kind);
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, labels) = line.split_once('{').unwrap_or((line, ""));
        let name = name.split(' ').next().unwrap();
        let parts = ["_bucket", "_sum", "_count"];
        let family = parts.iter().find_map(|part| name.strip_suffix(part));
        let family = family.filter(|family| families.contains_key(*family));
        let seen = families.get_mut(family.unwrap_or(name)).unwrap();
        // No value in these tests has a comma or an equals sign.
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, _)| label.to_owned());
        seen.labels.extend(labels.filter(|label| label != "le"));
    }
    families
}

/// Whether a page has the metric with no other labels.
fn check(row: &MetricRow, name: &str, seen: &Seen) {
    assert_eq!(seen.kind, row.kind, "{name}");
    let labels = row.labels.iter().copied().map(str::to_owned).collect();
    assert_eq!(seen.labels, labels, "{name}");
}

/// An agent without its directory that has delivered something.
async fn delivering(sink: &Sink) -> Agent {
    let directory = temporary("no-directory");
    let agent = Setup::grpc(sink.address)
        .storage(&directory, "create_directory: false")
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(TRACES, &message).await.unwrap().status, 0);
    let sent = || agent.metric("otelcol_exporter_sent_spans_total", "") == 1;
    eventually("it is delivered", sent).await;
    agent
}

/// An agent that holds something of a sender, and has refused something of it.
async fn refusing(sink: &Sink) -> Agent {
    sink.always(Some(Reply::Http(503, Vec::new())));
    let plain = "without_type_suffix: true, without_units: true, port: 0";
    let setup = Setup::http(sink.address).sending_queue("sizer: bytes, queue_size: 4000");
    let agent = setup.start_with(&setup.yaml().replace("port: 0", plain));
    let mut http = Http::connect(agent.port()).await;
    let message = spans("span", 10).encode_to_vec();
    while http.post("/v1/traces", &[], &message).await.unwrap().status == 200 {}
    let failing = || agent.metric("otelagent_exporter_failing", "") > 0;
    eventually("every attempt fails", failing).await;
    agent
}

#[tokio::test]
async fn metrics_of_a_running_agent_are_those_of_the_reference() {
    let (takes, refuses) = (Sink::grpc().await, Sink::http().await);
    let suffixed = families(&delivering(&takes).await);
    let plain = families(&refusing(&refuses).await);
    let mut unseen = Vec::new();
    let rows = rows();
    for row in &rows {
        let both = [(&row.suffixed, &suffixed), (&row.name, &plain)];
        let seen: Vec<_> = both
            .into_iter()
            .filter_map(|(name, page)| Some((name, page.get(name)?)))
            .collect();
        for (name, seen) in &seen {
            check(row, name, seen);
        }
        if seen.is_empty() {
            unseen.push(row.name.as_str());
        }
    }
    // No pipeline here has profiles, and every other metric is there.
    unseen.retain(|name| !name.ends_with("_profile_samples"));
    assert!(unseen.is_empty(), "documented and not there: {unseen:?}");
    let known = |name: &String| {
        rows.iter()
            .any(|row| [&row.name, &row.suffixed].contains(&name))
    };
    let unknown: Vec<_> = suffixed
        .keys()
        .chain(plain.keys())
        .filter(|name| !known(name))
        .collect();
    assert!(unknown.is_empty(), "there and not documented: {unknown:?}");
}

#[tokio::test]
async fn age_and_failure_grow_while_the_upstream_is_away_and_end_with_it() {
    let sink = Sink::http().await;
    sink.always(Some(Reply::Http(503, Vec::new())));
    let agent = Setup::http(sink.address)
        .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
        .start();
    let (age, failing) = (
        "otelagent_queue_age_seconds",
        "otelagent_exporter_failing_seconds",
    );
    assert_eq!((agent.metric(age, ""), agent.metric(failing, "")), (0, 0));
    let mut http = Http::connect(agent.port()).await;
    // Few are in flight to an upstream that fails, and the others wait.
    for number in 0..50 {
        let message = spans(&format!("span{number}"), 1).encode_to_vec();
        let answer = http.post("/v1/traces", &[], &message).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    eventually("both grow", || {
        agent.metric(age, "data_type=\"traces\"") >= 2 && agent.metric(failing, "") >= 2
    })
    .await;
    assert_eq!(agent.metric(age, "data_type=\"logs\""), 0);
    sink.always(None);
    eventually("both end", || {
        agent.metric(age, "") == 0 && agent.metric(failing, "") == 0
    })
    .await;
}

#[test]
fn documentation_has_the_metrics_of_the_agent() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (begin, end) = ("<!-- agent: begin -->\n", "<!-- agent: end -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (written, after) = rest.split_once(end).unwrap();
    let reference = reference();
    if std::env::var_os("OTELAGENT_WRITE_REFERENCE").is_some() {
        let text = format!("{before}{begin}{reference}{end}{after}");
        std::fs::write(&file, text).unwrap();
        return;
    }
    assert!(
        written == reference,
        "docs/metrics.md is not up to date: run `make reference`"
    );
}
