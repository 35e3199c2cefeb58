//! Compression with zstd towards the collector as it is, and towards one that does not take it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message;
use testbed::parts::{self, Part};

use crate::own_address;
use crate::support::agent::{Agent, Setup, get, temporary};
use crate::support::client::{Grpc, TRACES};
use crate::support::eventually;
use crate::support::sink::Sink;
use crate::support::telemetry::{span_names, spans};

/// Requests of each test, and spans of each.
const REQUESTS: usize = 40;
const SPANS: usize = 50;

/// Bytes of the first span, which nothing can compress: a server of HTTP that refuses the encoding answers before it
/// has read all of them.
const LARGE: usize = 2 << 20;

const FELL_BACK: &str =
    "the upstream does not take the configured compression; another is used for now";

/// A collector that passes on what it gets, call by call; killed when the test ends.
struct Collector {
    child: Child,
    address: Ipv4Addr,
    folder: PathBuf,
}

impl Collector {
    /// `http` is more settings of its receiver for HTTP.
    async fn start(part: Part, http: &str, sink: &Sink) -> Self {
        let program = parts::ensure(part).unwrap();
        let (address, folder) = (own_address(), temporary("collector"));
        std::fs::create_dir(&folder).unwrap();
        let config = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{address}:4317'}}, \
             http: {{endpoint: '{address}:4318'{http}}}}}}}}}\n\
             exporters: {{otlp_grpc: {{endpoint: '{}', tls: {{insecure: true}}, compression: none, \
             sending_queue: {{enabled: false}}, retry_on_failure: {{enabled: false}}}}}}\n\
             extensions: {{health_check: {{endpoint: '{address}:13133'}}}}\n\
             service:\n  extensions: [health_check]\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_grpc]}}}}\n  \
             telemetry: {{metrics: {{level: detailed, \
             readers: [{{pull: {{exporter: {{prometheus: {{host: {address}, port: 8888}}}}}}}}]}}}}\n",
            sink.address
        );
        let [file, log] = ["config.yaml", "log"].map(|name| folder.join(name));
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program)
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        let mut collector = Self {
            child,
            address,
            folder,
        };
        let health = collector.at(13133);
        eventually("the collector is healthy", || {
            assert_eq!(collector.child.try_wait().unwrap(), None, "it runs");
            std::net::TcpStream::connect(health).is_ok() && get(health, "/").0 == 200
        })
        .await;
        collector
    }

    /// The calls that it has answered, by status.
    fn calls(&self) -> BTreeMap<String, u64> {
        let mut calls = BTreeMap::new();
        for line in get(self.at(8888), "/metrics").1.lines() {
            let count = ["http_server_request", "rpc_server_call"]
                .iter()
                .find_map(|name| line.strip_prefix(name)?.strip_prefix("_duration_count{"));
            let status = count.and_then(|labels| labels.split_once("response_status_code=\""));
            if let Some((_, status)) = status {
                let (status, rest) = status.split_once('"').unwrap();
                let count: u64 = rest.rsplit_once(' ').unwrap().1.parse().unwrap();
                *calls.entry(status.to_owned()).or_default() += count;
            }
        }
        calls
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log"));
            println!("log of the collector:\n{}", log.unwrap_or_default());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Spans one request after the other, of which the first is large, and what arrives of them.
async fn all_arrive(kind: &str, built: Part, http: &str, expected: BTreeMap<String, u64>) -> Agent {
    let sink = Sink::grpc().await;
    let collector = Collector::start(built, http, &sink).await;
    let port = if kind == "otlp_grpc" { 4317 } else { 4318 };
    // An attempt that has no answer in time is made again, on a slow machine as well.
    let agent = Setup::to_with_timeout(kind, collector.at(port), "300s")
        .exporter("compression: zstd")
        .batch("flush_timeout: 1ms, sizer: bytes, min_size: 1, max_size: 1")
        .start();
    let mut client = Grpc::connect(agent.port()).await;
    let mut names = Vec::new();
    for number in 0..REQUESTS {
        let mut request = spans(&format!("request-{number}"), SPANS);
        if number == 0 {
            let large = &mut request.resource_spans[0].scope_spans[0].spans[0];
            large.attributes.push(incompressible(LARGE));
        }
        names.extend(span_names(&request));
        let answer = client.call(TRACES, &request.encode_to_vec()).await;
        assert_eq!(answer.unwrap().status, 0);
    }
    eventually("the agent has delivered all", || {
        agent.metric("otelcol_exporter_sent_spans_total", "") == names.len() as u64
    })
    .await;
    let all: u64 = expected.values().sum();
    // A call is counted a moment after it is answered.
    let calls = || collector.calls().values().sum::<u64>();
    eventually("the collector has counted all calls", || calls() >= all).await;
    assert_eq!(collector.calls(), expected);
    let mut arrived = sink.spans();
    names.sort();
    arrived.sort();
    assert!(arrived == names, "each arrives once: {}", arrived.len());
    for nothing in [
        "otelagent_lost_spans_total",
        "otelagent_exporter_failed_attempts_total",
    ] {
        assert_eq!(agent.metric(nothing, ""), 0, "{nothing}");
    }
    assert_eq!(agent.books("spans"), 0);
    agent
}

fn incompressible(bytes: usize) -> KeyValue {
    let mut state = 1_u64;
    let mut bits = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let random = std::iter::repeat_with(&mut bits).flatten().take(bytes);
    KeyValue {
        key: "large".into(),
        value: Some(AnyValue {
            value: Some(any_value::Value::BytesValue(random.collect())),
        }),
        ..KeyValue::default()
    }
}

#[tokio::test]
async fn collector_takes_all_with_zstd() {
    for (kind, taken) in [("otlp_grpc", "OK"), ("otlp_http", "200")] {
        let calls = BTreeMap::from([(taken.to_owned(), REQUESTS as u64)]);
        let agent = all_arrive(kind, Part::Collector, "", calls).await;
        assert!(agent.logged(FELL_BACK).is_empty(), "{kind}");
    }
}

/// All arrive with gzip after a single call that is refused, since calls begin one at a time.
async fn gzip_follows_refusal(kind: &str, built: Part, http: &str, statuses: [&str; 2], why: &str) {
    let [refused, taken] = statuses;
    let calls = [(refused, 1), (taken, REQUESTS as u64)];
    let calls = calls.map(|(status, count)| (status.to_owned(), count));
    let agent = all_arrive(kind, built, http, calls.into()).await;
    let lines = agent.until_logged(FELL_BACK).await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["encoding"], "gzip");
    assert_eq!(lines[0]["why"], why);
}

#[tokio::test]
async fn gzip_is_sent_to_collector_built_without_zstd() {
    let why = "gRPC status 12: grpc: Decompressor is not installed for grpc-encoding \"zstd\"";
    let statuses = ["UNIMPLEMENTED", "OK"];
    gzip_follows_refusal("otlp_grpc", Part::CollectorWithoutZstd, "", statuses, why).await;
}

#[tokio::test]
async fn gzip_is_sent_to_collector_configured_without_zstd() {
    let http = ", compression_algorithms: ['', gzip]";
    let why = "HTTP status 400: unsupported Content-Encoding: zstd";
    gzip_follows_refusal("otlp_http", Part::Collector, http, ["400", "200"], why).await;
}
