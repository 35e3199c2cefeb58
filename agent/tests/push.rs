//! The agent's own metrics pushed by OTLP: the same as on `/metrics`, and without effect on anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, metric, number_data_point,
};
use prost::Message;

use crate::support::agent::{Agent, Setup, get, temporary};
use crate::support::client::{self, Grpc};
use crate::support::pki::{Ca, Files};
use crate::support::sink::{Reply, Sink, Speaks};
use crate::support::telemetry::spans;
use crate::support::{PATIENCE, eventually};

const UNAVAILABLE: u32 = 14;
const PUSHES: &str = "otelagent_metrics_pushes_total";
const FAILS: &str = "the agent's own metrics cannot be pushed";

async fn send(agent: &Agent, name: &str, count: usize) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans(name, count).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
}

/// A periodic reader that sends to a sink.
fn periodic(sink: &Sink, protocol: &str, interval: u64, fields: &str) -> String {
    let address = sink.address;
    format!(
        "interval: {interval}, exporter: {{otlp: {{protocol: {protocol}, endpoint: 'http://{address}'{fields}}}}}"
    )
}

/// The pushes that a sink took.
fn pushes(sink: &Sink) -> Vec<ResourceMetrics> {
    let taken = sink.taken().into_iter();
    taken
        .map(|request| {
            let request = ExportMetricsServiceRequest::decode(request.message.as_slice()).unwrap();
            let [one] = <[_; 1]>::try_from(request.resource_metrics).unwrap();
            one
        })
        .collect()
}

fn metrics(push: &ResourceMetrics) -> &[Metric] {
    let [scope] = push.scope_metrics.as_slice() else {
        panic!("{} scopes", push.scope_metrics.len());
    };
    &scope.metrics
}

fn texts(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
    let attributes = attributes.iter().map(|attribute| {
        let value = attribute.value.as_ref().unwrap().value.as_ref().unwrap();
        let any_value::Value::StringValue(text) = value else {
            panic!("{value:?}");
        };
        (attribute.key.as_str(), text.as_str())
    });
    attributes.collect()
}

/// A series' name with its labels, as the text has it.
fn series(name: &str, labels: &[(&str, &str)]) -> String {
    let labels = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""));
    let labels: Vec<_> = labels.collect();
    match labels.as_slice() {
        [] => name.to_owned(),
        labels => format!("{name}{{{}}}", labels.join(",")),
    }
}

/// The name that a backend of Prometheus gives a metric.
fn prometheus_name(metric: &Metric) -> String {
    let mut name = metric.name.clone();
    let unit = match metric.unit.as_str() {
        "By" => "_bytes",
        "s" => "_seconds",
        _ => "",
    };
    if !name.ends_with(unit) {
        name.push_str(unit);
    }
    if let Some(metric::Data::Sum(_)) = metric.data {
        name.push_str("_total");
    }
    name
}

/// A push as the text would say it: descriptions and types by name, and values by series.
#[derive(Debug, Default, PartialEq)]
struct Page {
    families: BTreeMap<String, (String, &'static str)>,
    values: BTreeMap<String, f64>,
}

fn number(point: &NumberDataPoint) -> f64 {
    match point.value.as_ref().unwrap() {
        number_data_point::Value::AsDouble(value) => *value,
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        number_data_point::Value::AsInt(value) => *value as f64,
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn float(value: u64) -> f64 {
    value as f64
}

fn page(push: &ResourceMetrics) -> Page {
    let mut page = Page::default();
    for metric in metrics(push) {
        let name = prometheus_name(metric);
        let mut put = |name: &str, labels: &[(&str, &str)], value| {
            let before = page.values.insert(series(name, labels), value);
            assert_eq!(before, None, "{name} {labels:?} twice");
        };
        let kind = match metric.data.as_ref().unwrap() {
            metric::Data::Gauge(gauge) => {
                for point in &gauge.data_points {
                    put(&name, &texts(&point.attributes), number(point));
                }
                "gauge"
            }
            metric::Data::Sum(sum) => {
                for point in &sum.data_points {
                    put(&name, &texts(&point.attributes), number(point));
                }
                "counter"
            }
            metric::Data::Histogram(histogram) => {
                for point in &histogram.data_points {
                    let labels = texts(&point.attributes);
                    let mut below = 0;
                    let bounds = point.explicit_bounds.iter().map(f64::to_string);
                    let bounds = bounds.chain(["+Inf".to_owned()]);
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    for (bound, count) in bounds.zip(&point.bucket_counts) {
                        below += count;
                        let labels = [&labels[..], &[("le", bound.as_str())]].concat();
                        put(&format!("{name}_bucket"), &labels, float(below));
                    }
                    put(&format!("{name}_count"), &labels, float(point.count));
                    put(&format!("{name}_sum"), &labels, point.sum.unwrap());
                }
                "histogram"
            }
            other => panic!("{other:?}"),
        };
        let family = (metric.description.clone(), kind);
        assert_eq!(page.families.insert(name, family), None, "{}", metric.name);
    }
    page
}

/// The text of `/metrics`.
fn page_of_text(text: &str) -> Page {
    let mut page = Page::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(help) = line.strip_prefix("# HELP ") else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            page.values.insert(series.into(), value.parse().unwrap());
            continue;
        };
        let (name, meaning) = help.split_once(' ').unwrap();
        let kind = lines.next().unwrap().rsplit_once(' ').unwrap().1;
        let kinds = ["counter", "gauge", "histogram"];
        let kind = kinds.into_iter().find(|known| *known == kind).unwrap();
        page.families.insert(name.into(), (meaning.into(), kind));
    }
    page
}

/// What changes while nothing happens.
const RESTLESS: [&str; 7] = [
    "otelagent_memory_held_bytes",
    "otelagent_metrics_pushes_total{result=\"delivered\"}",
    "otelcol_process_cpu_seconds_total",
    "otelcol_process_memory_rss_bytes",
    "otelcol_process_runtime_heap_alloc_bytes",
    "otelcol_process_runtime_total_sys_memory_bytes",
    "otelcol_process_uptime_seconds_total",
];

/// What one of two pages has and the other does not, in words.
fn difference(pushed: &Page, text: &Page) -> String {
    let mut said = String::new();
    let families: BTreeSet<_> = pushed.families.keys().chain(text.families.keys()).collect();
    for name in families {
        let both = (pushed.families.get(name), text.families.get(name));
        if both.0 != both.1 {
            let _ = writeln!(said, "{name}: {both:?}");
        }
    }
    let series: BTreeSet<_> = pushed.values.keys().chain(text.values.keys()).collect();
    for name in series {
        let both = (pushed.values.get(name), text.values.get(name));
        let is_restless = RESTLESS.contains(&name.as_str()) && both.0.is_some() == both.1.is_some();
        if both.0 != both.1 && !is_restless {
            let _ = writeln!(said, "{name}: {both:?}");
        }
    }
    said
}

/// What is true of every push of a process that started in this second or later.
fn check_form(push: &ResourceMetrics, started: SystemTime) {
    let nanoseconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::try_from(since.as_nanos()).unwrap()
    };
    let (earliest, now) = (nanoseconds(started), nanoseconds(SystemTime::now()));
    let mut starts = BTreeSet::new();
    let mut check = |start: u64, time: u64| {
        assert!((earliest..=now).contains(&time), "{time}");
        assert!((earliest..=time).contains(&start), "{start}");
        starts.insert(start);
    };
    let cumulative = AggregationTemporality::Cumulative as i32;
    for metric in metrics(push) {
        match metric.data.as_ref().unwrap() {
            metric::Data::Gauge(gauge) => {
                for point in &gauge.data_points {
                    assert_eq!(point.start_time_unix_nano, 0, "{}", metric.name);
                    check(earliest, point.time_unix_nano);
                }
            }
            metric::Data::Sum(sum) => {
                assert_eq!(sum.aggregation_temporality, cumulative);
                assert!(sum.is_monotonic, "{}", metric.name);
                for point in &sum.data_points {
                    check(point.start_time_unix_nano, point.time_unix_nano);
                }
            }
            metric::Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, cumulative);
                for point in &histogram.data_points {
                    check(point.start_time_unix_nano, point.time_unix_nano);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    starts.remove(&earliest);
    assert_eq!(starts.len(), 1, "everything counts from one moment");
    let scope = push.scope_metrics[0].scope.as_ref().unwrap();
    assert_eq!(scope.name, "otelagent-agent");
    assert_eq!(scope.version, env!("CARGO_PKG_VERSION"));
}

fn resource(push: &ResourceMetrics) -> BTreeMap<&str, &str> {
    let resource = push.resource.as_ref().unwrap();
    texts(&resource.attributes).into_iter().collect()
}

#[tokio::test]
async fn what_is_pushed_is_what_the_page_says_over_both_protocols() {
    for (protocol, speaks, path) in [
        ("grpc", Speaks::Grpc, client::METRICS),
        ("http/protobuf", Speaks::Http, "/v1/metrics"),
    ] {
        let (upstream, sink) = (Sink::grpc().await, of(speaks).await);
        let started = SystemTime::now();
        let fields = ", compression: gzip, headers: [{name: X-Tenant, value: a}]";
        let agent = Setup::grpc(upstream.address)
            .push(&periodic(&sink, protocol, 100, fields))
            .start();
        send(&agent, "span", 3).await;
        let sent = "otelcol_exporter_sent_spans_total";
        eventually("it is delivered", || agent.metric(sent, "") == 3).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = page_of_text(&get(agent.metrics, "/metrics").1);
            let pushed = pushes(&sink).pop().map(|push| page(&push));
            let difference = difference(&pushed.unwrap_or_default(), &text);
            if difference.is_empty() {
                assert!(text.families.len() > 60, "{}", text.families.len());
                break;
            }
            assert!(Instant::now() < deadline, "{protocol}:\n{difference}");
            // Some counter may have changed between the two; the next push says the same as the page.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let pushes = pushes(&sink);
        for push in &pushes {
            check_form(push, started);
        }
        let (first, last) = (resource(&pushes[0]), resource(pushes.last().unwrap()));
        assert_eq!(first["service.name"], "otelagent-agent");
        assert_eq!(first["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(first["service.instance.id"].len(), 36);
        assert_eq!(first, last, "of one process");
        for request in sink.received() {
            assert_eq!(request.path, path);
            assert_eq!(request.headers["x-tenant"], "a");
            let encoding = ["grpc-encoding", "content-encoding"];
            let encoding = encoding.iter().find_map(|name| request.headers.get(*name));
            assert_eq!(encoding.unwrap(), "gzip");
        }
        let foreign = upstream.received().into_iter();
        let foreign = foreign.filter(|request| request.path != client::TRACES);
        assert_eq!(foreign.count(), 0, "they do not pass through the pipelines");
        assert_eq!(
            agent.metric("otelcol_receiver_accepted_metric_points_total", ""),
            0
        );
    }
}

async fn of(speaks: Speaks) -> Sink {
    Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await
}

#[tokio::test]
async fn metrics_are_pushed_without_a_page_with_attributes_of_the_resource() {
    let (upstream, sink) = (Sink::grpc().await, Sink::grpc().await);
    let mut setup = Setup::grpc(upstream.address).env("NODE", "node-7");
    setup.readers = format!("{{periodic: {{{}}}}}", periodic(&sink, "grpc", 100, ""));
    let resource_of =
        "resource: {k8s.node.name: '${env:NODE}', service.name: edge, service.version: null}, ";
    let yaml = setup
        .yaml()
        .replace("telemetry: {", &format!("telemetry: {{{resource_of}"));
    let agent = setup.start_with(&yaml);
    assert!(
        agent
            .logged("listening")
            .iter()
            .all(|line| line["topic"] != "metrics")
    );
    eventually("they are pushed", || !pushes(&sink).is_empty()).await;
    let pushes = pushes(&sink);
    let resource = resource(&pushes[0]);
    assert_eq!(resource["k8s.node.name"], "node-7");
    assert_eq!(resource["service.name"], "edge");
    assert_eq!(resource.get("service.version"), None);
    assert_eq!(resource.len(), 3, "{resource:?}");
}

#[tokio::test]
async fn failing_endpoint_is_told_once_and_holds_up_nothing() {
    let (upstream, sink) = (Sink::grpc().await, Sink::grpc().await);
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    let agent = Setup::grpc(upstream.address)
        .push(&periodic(&sink, "grpc", 100, ""))
        .start();
    eventually("it fails", || agent.metric(PUSHES, "failed") >= 5).await;
    send(&agent, "span", 2).await;
    eventually("telemetry arrives", || upstream.spans().len() == 2).await;
    let lines = agent.until_logged(FAILS).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let why = lines[0]["why"].as_str().unwrap();
    assert!(why.contains("gRPC status 14"), "{why}");
    assert_eq!(lines[0]["endpoint"], sink.address.to_string());
    let failed_attempts = "otelagent_exporter_failed_attempts_total";
    assert_eq!(agent.metric(failed_attempts, ""), 0, "of exporters");
    assert_eq!(get(agent.health, "/delivery?seconds=0").0, 200);
    sink.always(None);
    eventually("they arrive", || !pushes(&sink).is_empty()).await;
    agent
        .until_logged("the agent's own metrics are pushed again")
        .await;
}

#[tokio::test]
async fn rejected_points_are_told_and_counted() {
    let (upstream, sink) = (Sink::grpc().await, Sink::http().await);
    let answer = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 3,
            error_message: "too many labels".into(),
        }),
    };
    sink.always(Some(Reply::Take(answer.encode_to_vec())));
    let agent = Setup::grpc(upstream.address)
        .push(&periodic(&sink, "http/protobuf", 100, ""))
        .start();
    let message = "the endpoint rejects some of the agent's own metrics";
    let lines = agent.until_logged(message).await;
    assert_eq!(lines[0]["why"], "too many labels");
    assert!(agent.metric(PUSHES, "rejected") > 0);
    assert_eq!(agent.metric(PUSHES, "failed"), 0);
}

#[tokio::test]
async fn hanging_endpoint_holds_up_neither_telemetry_nor_the_end() {
    // The time limit of the reader and that of its exporter.
    for (protocol, speaks, reader, exporter) in [
        ("grpc", Speaks::Grpc, "timeout: 100, ", ""),
        ("grpc", Speaks::Grpc, "", ", timeout: 100"),
        ("http/protobuf", Speaks::Http, "timeout: 100, ", ""),
        ("http/protobuf", Speaks::Http, "", ", timeout: 100"),
    ] {
        let (upstream, sink) = (Sink::grpc().await, of(speaks).await);
        sink.always(Some(Reply::Silence));
        let agent = Setup::grpc(upstream.address)
            .push(&format!(
                "{reader}{}",
                periodic(&sink, protocol, 100, exporter)
            ))
            .start();
        eventually("it hangs", || agent.metric(PUSHES, "failed") >= 20).await;
        eventually("other connections are tried", || sink.connections() > 2).await;
        for number in 0..20 {
            send(&agent, &format!("span{number}"), 1).await;
        }
        eventually("telemetry arrives", || upstream.spans().len() == 20).await;
        let lines = agent.until_logged(FAILS).await;
        assert_eq!(lines.len(), 1);
        let why = lines[0]["why"].as_str().unwrap();
        let is_limit = why.ends_with("within 90ms") || why.ends_with("within 100ms");
        assert!(is_limit, "{why}");
        // Those of one push at most.
        let held = agent.metric("otelagent_memory_held_bytes", "");
        assert!(held < 1 << 20, "{held}");
        let asked = Instant::now();
        agent.terminate();
        let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
        assert_eq!(code, 0);
        assert!(
            asked.elapsed() < Duration::from_mins(1),
            "{:?}",
            asked.elapsed()
        );
    }
}

#[tokio::test]
async fn endpoint_of_nobody_holds_up_nothing() {
    let upstream = Sink::grpc().await;
    let agent = Setup::grpc(upstream.address)
        .push("interval: 100, exporter: {otlp: {protocol: grpc, endpoint: 'http://127.0.0.1:1'}}")
        .start();
    send(&agent, "span", 1).await;
    eventually("telemetry arrives", || upstream.spans().len() == 1).await;
    eventually("it fails", || agent.metric(PUSHES, "failed") >= 2).await;
    assert_eq!(agent.until_logged(FAILS).await.len(), 1);
}

/// The value of a series in a push.
fn value(push: &ResourceMetrics, name: &str) -> Option<f64> {
    page(push).values.get(name).copied()
}

#[tokio::test]
async fn last_push_says_how_everything_ended() {
    for (protocol, speaks) in [("grpc", Speaks::Grpc), ("http/protobuf", Speaks::Http)] {
        let (upstream, sink) = (Sink::grpc().await, of(speaks).await);
        let agent = Setup::grpc(upstream.address)
            .batch("flush_timeout: 1h")
            .push(&periodic(&sink, protocol, 3_600_000, ""))
            .start();
        send(&agent, "span", 3).await;
        agent.terminate();
        let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
        assert_eq!((code, upstream.spans().len()), (0, 3));
        let pushes = pushes(&sink);
        assert_eq!(pushes.len(), 1, "not before the first interval is over");
        let sent = "otelcol_exporter_sent_spans_total{exporter=\"otlp_grpc\"}";
        assert_eq!(value(&pushes[0], sent), Some(3.0));
    }
}

#[tokio::test]
async fn last_push_names_what_was_lost_for_lack_of_time() {
    let (upstream, sink) = (Sink::grpc().await, Sink::grpc().await);
    upstream.always(Some(Reply::Silence));
    let agent = Setup::grpc(upstream.address)
        .env("OTELAGENT_SHUTDOWN_GRACE", "8")
        .push(&periodic(&sink, "grpc", 100, ""))
        .start();
    // A connection that is there already.
    eventually("they are pushed", || !pushes(&sink).is_empty()).await;
    send(&agent, "span", 3).await;
    agent.terminate();
    let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    let series = "otelagent_lost_spans_total{exporter=\"otlp_grpc\",reason=\"shutdown\"}";
    let last = pushes(&sink).pop().unwrap();
    assert_eq!(value(&last, series), Some(3.0));
}

#[tokio::test]
async fn readers_change_while_the_agent_runs() {
    let upstream = Sink::grpc().await;
    let (first, second, third) = (Sink::grpc().await, Sink::http().await, Sink::grpc().await);
    let setup = || Setup::grpc(upstream.address);
    let file = temporary("push.yaml");
    std::fs::write(
        &file,
        setup().push(&periodic(&first, "grpc", 100, "")).yaml(),
    )
    .unwrap();
    let agent = setup().start_from(&file);
    let reloads = "otelagent_config_reloads_total";
    let change = async |yaml: String, result: &str, times: u64| {
        std::fs::write(&file, yaml).unwrap();
        agent.hang_up();
        eventually(result, || agent.metric(reloads, result) >= times).await;
    };
    eventually("the first is used", || !pushes(&first).is_empty()).await;
    // One that hangs is left at once.
    let slow = Reply::Silence;
    first.always(Some(slow));
    let before = first.received().len();
    eventually("it hangs", || first.received().len() > before).await;
    let moved = setup()
        .push(&periodic(&second, "http/protobuf", 100, ""))
        .yaml();
    change(moved.clone(), "applied", 1).await;
    eventually("the second is used", || pushes(&second).len() > 2).await;
    let broken =
        periodic(&second, "grpc", 100, ", certificate: /nowhere").replace("http:", "https:");
    change(setup().push(&broken).yaml(), "refused", 1).await;
    let before = pushes(&second).len();
    eventually("the second stays", || pushes(&second).len() > before + 1).await;
    change(setup().yaml(), "applied", 2).await;
    let before = pushes(&second).len();
    change(
        setup().push(&periodic(&third, "grpc", 100, "")).yaml(),
        "applied",
        3,
    )
    .await;
    eventually("the third is used", || pushes(&third).len() > 2).await;
    // One may have been on its way.
    assert!(pushes(&second).len() <= before + 1);
    let lines = agent.logged("configuration read");
    assert_eq!(lines[0]["changed"], "service.telemetry.metrics.readers");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn endpoint_is_verified_and_sees_the_agents_certificate() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let (files, client) = (Files::new(), clients.client());
    let (ca_file, other_ca, certificate, key) = (
        files.write("ca.pem", &ca.pem()),
        files.write("other.pem", &clients.pem()),
        files.write("client.pem", &client.certificate),
        files.write("client.key", &client.key),
    );
    let upstream = Sink::grpc().await;
    for (protocol, speaks, alpn) in [
        ("grpc", Speaks::Grpc, "h2"),
        ("http/protobuf", Speaks::Http, "http/1.1"),
    ] {
        let sink = Sink::secure(speaks, ca.local().acceptor(&[alpn], Some(&clients))).await;
        let port = sink.address.port();
        let otlp = |fields: &str| {
            format!(
                "interval: 100, exporter: {{otlp: {{protocol: {protocol}, endpoint: 'localhost:{port}', {fields}}}}}"
            )
        };
        let fields = format!(
            "certificate: '{ca_file}', client_certificate: '{certificate}', client_key: '{key}'"
        );
        let agent = Setup::grpc(upstream.address).push(&otlp(&fields)).start();
        eventually("they arrive", || !pushes(&sink).is_empty()).await;
        drop(agent);
        let taken = pushes(&sink).len();
        let fields = format!("client_certificate: '{certificate}', client_key: '{key}'");
        let agent = Setup::grpc(upstream.address)
            .env("SSL_CERT_FILE", &other_ca)
            .push(&otlp(&fields))
            .start();
        let lines = agent.until_logged(FAILS).await;
        let why = lines[0]["why"].as_str().unwrap();
        assert!(why.contains("certificate"), "{why}");
        assert_eq!(pushes(&sink).len(), taken);
    }
}
