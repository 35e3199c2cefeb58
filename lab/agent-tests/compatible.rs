//! The configuration an orchestrator writes starts this agent and an unmodified collector alike.
//!
//! The files are golden files of their own, of every shape that is generated. Nothing is changed in them
//! but what another machine would have: the upstream's address, the address to listen on, and folders.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;

use crate::support::agent::{Setup, get, temporary};
use crate::support::client::{Grpc, Http, METRICS, TRACES};
use crate::support::eventually;
use crate::support::pki::Ca;
use crate::support::sink::{Sink, Speaks};
use crate::support::telemetry::{logs, spans};

/// Either program.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Program {
    Collector,
    Agent,
}

static COLLECTOR: LazyLock<PathBuf> =
    LazyLock::new(|| testbed::parts::ensure(testbed::parts::Part::Collector).unwrap());

/// The CA of the upstream and of both agents.
static CA: LazyLock<Ca> = LazyLock::new(Ca::new);

impl Program {
    const BOTH: [Self; 2] = [Self::Collector, Self::Agent];

    /// Says whether it would start with the file.
    fn check(self, file: &Path) -> Command {
        match self {
            Self::Collector => {
                let mut command = Command::new(&*COLLECTOR);
                command.args(["validate", "--config"]).arg(file);
                command
            }
            Self::Agent => {
                let mut command = Command::new(crate::program());
                command.arg("check").arg(file);
                command
            }
        }
    }

    /// Starts with the file, by the same words.
    fn run(self, file: &Path) -> Command {
        let mut command = match self {
            Self::Collector => Command::new(&*COLLECTOR),
            Self::Agent => Command::new(crate::program()),
        };
        command.arg("--config").arg(file);
        command
    }
}

/// The generated files, by name.
fn generated() -> Vec<(String, String)> {
    let folder = demo::repository().join("tests/golden");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix("configuration-") {
            let text = std::fs::read_to_string(&path).unwrap();
            // A golden file says first where it comes from.
            let (_, text) = text.split_once("\n---\n").unwrap();
            files.push((name.to_owned(), text.to_owned()));
        }
    }
    assert!(files.len() >= 12, "the files were found: {}", files.len());
    files
}

/// A place for one program to run in: folders and a loopback address of its own, so that it has every
/// port of the file to itself.
struct Place {
    folder: PathBuf,
    address: Ipv4Addr,
    upstream: SocketAddr,
}

impl Place {
    fn new(upstream: SocketAddr) -> Self {
        let folder = temporary("place");
        std::fs::create_dir_all(folder.join("queue")).unwrap();
        let client = CA.client();
        for (file, content) in [
            ("header-0/token", "Bearer secret"),
            ("header-1/token", "Bearer secret"),
            ("ca/ca.crt", &CA.pem()),
            ("client/tls.crt", &client.certificate),
            ("client/tls.key", &client.key),
        ] {
            let file = folder.join("mounts").join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        Self {
            folder,
            address: crate::own_address(),
            upstream,
        }
    }

    /// The file as it is read here.
    fn write(&self, text: &str) -> PathBuf {
        let within = |name: &str| self.folder.join(name).display().to_string();
        let address = self.address.to_string();
        let mut text = text
            .replace("/var/lib/otelagent", &within("queue"))
            .replace("/etc/otelagent-mounts", &within("mounts"))
            .replace("[::]", &address)
            .replace("127.0.0.1", &address);
        for upstream in [
            "otel-collector.observability.svc:4317",
            "otel-collector.observability.svc:4318",
            "telemetry.example.com:443",
        ] {
            text = text.replace(upstream, &self.upstream.to_string());
        }
        let file = self.folder.join("config.yaml");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// What the pod's environment says.
    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("OTELAGENT_HOST_IP", self.address.to_string()),
            ("OTELAGENT_NODE_NAME", "node-1".to_owned()),
            ("OTELAGENT_POD_NAME", "agent-1".to_owned()),
            ("OTELAGENT_NODE_ZONE", "zone-1".to_owned()),
            ("OTELAGENT_NODE_REGION", "region-1".to_owned()),
        ]
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn collector_and_agent_accept_every_generated_configuration() {
    let place = Place::new("127.0.0.1:4317".parse().unwrap());
    for (name, text) in generated() {
        let file = place.write(&text);
        for program in Program::BOTH {
            let mut check = program.check(&file);
            let output = check.envs(place.environment()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}: {program:?}: {said}");
        }
    }
}

/// A program that runs; killed when the test ends.
struct Running {
    child: Child,
    place: Place,
    grpc: u16,
    http: u16,
}

impl Running {
    async fn start(program: Program, name: &str, upstream: SocketAddr) -> Self {
        let place = Place::new(upstream);
        let (_, text) = generated()
            .into_iter()
            .find(|(known, _)| known == name)
            .unwrap();
        let mut run = program.run(&place.write(&text));
        run.envs(place.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = run.spawn().unwrap();
        let health = place.at(13133);
        eventually(&format!("{name}: {program:?} is healthy"), || {
            if let Some(status) = child.try_wait().unwrap() {
                let mut said = String::new();
                let stderr = child.stderr.as_mut().unwrap();
                stderr.read_to_string(&mut said).unwrap();
                panic!("{name}: {program:?} ended with {status}: {said}");
            }
            std::net::TcpStream::connect(health).is_ok() && get(health, "/").0 == 200
        })
        .await;
        let config: Value = serde_saphyr::from_str(&text).unwrap();
        let port = |protocol: &str| {
            let protocols = &config["receivers"]["otlp"]["protocols"];
            let endpoint = protocols[protocol]["endpoint"].as_str().unwrap();
            endpoint.rsplit_once(':').unwrap().1.parse().unwrap()
        };
        Self {
            child,
            place,
            grpc: port("grpc"),
            http: port("http"),
        }
    }

    /// Sends traces by gRPC and logs by HTTP.
    async fn send(&self) {
        let message = spans("either", 3).encode_to_vec();
        let mut grpc = Grpc::connect(self.place.at(self.grpc)).await;
        let answer = grpc.call(TRACES, &message).await.unwrap();
        assert_eq!(answer.status, 0, "{answer:?}");
        let message = logs("either", 2).encode_to_vec();
        let mut http = Http::connect(self.place.at(self.http)).await;
        let answer = http.post("/v1/logs", &[], &message).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The books of what was sent, by the names that dashboards know.
    async fn check_metrics(&self) {
        let metrics = get(self.place.at(8888), "/metrics").1;
        for expected in [
            "otelcol_receiver_accepted_spans{receiver=\"otlp\",transport=\"grpc\"} 3",
            "otelcol_receiver_accepted_log_records{receiver=\"otlp\",transport=\"http\"} 2",
        ] {
            assert!(metrics.contains(expected), "{expected}: {metrics}");
        }
        for expected in [
            "otelcol_exporter_sent_spans",
            "otelcol_exporter_queue_size",
            "otelcol_exporter_queue_capacity",
            "otelcol_process_uptime",
        ] {
            let is_told = |metrics: &str| {
                let mut names = metrics
                    .lines()
                    .filter_map(|line| line.split(['{', ' ']).next());
                names.any(|name| name == expected)
            };
            // What was sent is counted a moment after it has arrived.
            eventually(expected, || {
                is_told(&get(self.place.at(8888), "/metrics").1)
            })
            .await;
        }
    }

    /// Ends it as an orchestrator does.
    fn end(mut self) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(kill.unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What each program says of itself and of one request.
const OWN_HEADERS: [&str; 6] = [
    "accept-encoding",
    "content-length",
    "grpc-accept-encoding",
    "grpc-timeout",
    "host",
    "user-agent",
];

/// What arrived upstream, without what depends on how it was cut into requests: items, resource
/// attributes and headers.
#[derive(Debug, Default, PartialEq)]
struct Arrived {
    items: BTreeSet<String>,
    attributes: BTreeSet<String>,
    headers: BTreeSet<String>,
}

fn arrived(sink: &Sink) -> Arrived {
    let mut arrived = Arrived::default();
    for request in sink.taken() {
        let message = request.message.as_slice();
        let resources: Vec<_> = if request.path.contains("race") {
            let decoded = ExportTraceServiceRequest::decode(message).unwrap();
            let spans = decoded.resource_spans.iter().flat_map(|r| &r.scope_spans);
            let names = spans.flat_map(|scope| &scope.spans).map(|s| s.name.clone());
            arrived.items.extend(names);
            let entries = decoded.resource_spans.into_iter();
            entries.filter_map(|entry| entry.resource).collect()
        } else {
            let decoded = ExportLogsServiceRequest::decode(message).unwrap();
            let records = decoded.resource_logs.iter().flat_map(|r| &r.scope_logs);
            let bodies = records.flat_map(|scope| &scope.log_records);
            arrived
                .items
                .extend(bodies.map(|r| format!("{:?}", r.body)));
            let entries = decoded.resource_logs.into_iter();
            entries.filter_map(|entry| entry.resource).collect()
        };
        let attributes = resources.iter().flat_map(|resource| &resource.attributes);
        arrived
            .attributes
            .extend(attributes.map(|attribute| format!("{attribute:?}")));
        let mut headers = request.headers;
        for own in OWN_HEADERS {
            headers.remove(own);
        }
        let headers = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value:?}"));
        arrived.headers.extend(headers);
    }
    arrived
}

/// Both programs run with one of the files in turn, and what arrives is the same.
async fn same_through_either(name: &str, sink: impl AsyncFn() -> Sink) -> Arrived {
    let mut both = Vec::new();
    for program in Program::BOTH {
        let sink = sink().await;
        let running = Running::start(program, name, sink.address).await;
        running.send().await;
        let what = format!("{name}: telemetry through {program:?}");
        eventually(&what, || arrived(&sink).items.len() == 5).await;
        running.check_metrics().await;
        running.end();
        both.push(arrived(&sink));
    }
    assert_eq!(both[0], both[1], "{name}");
    both.remove(0)
}

#[tokio::test]
async fn same_telemetry_arrives_by_grpc_with_node_attributes() {
    let arrived = same_through_either("host-network", Sink::grpc).await;
    let attributes = format!("{:?}", arrived.attributes);
    for expected in ["host.name", "node-1", "k8s.node.name", "production", "$5"] {
        assert!(attributes.contains(expected), "{expected}: {attributes}");
    }
}

#[tokio::test]
async fn same_telemetry_arrives_by_http_with_secret_headers() {
    let arrived = same_through_either("sidecar", Sink::http).await;
    for expected in ["authorization: \"Bearer secret\"", "x-tenant: \"a\""] {
        assert!(arrived.headers.contains(expected), "{:?}", arrived.headers);
    }
}

#[tokio::test]
async fn same_telemetry_arrives_with_encryption_and_an_own_certificate() {
    let sink = async || {
        let server = CA.server(&["collector.example.com"]);
        let clients = Some(&*CA);
        Sink::secure(Speaks::Grpc, server.acceptor(&["h2"], clients)).await
    };
    same_through_either("tls", sink).await;
}

#[tokio::test]
async fn same_telemetry_arrives_by_https_with_a_queue_on_disk() {
    let sink = async || {
        let tls = CA.local().acceptor(&["http/1.1"], None);
        Sink::secure(Speaks::Http, tls).await
    };
    same_through_either("tls-http-disk", sink).await;
}

#[tokio::test]
async fn same_telemetry_arrives_with_a_queue_on_disk() {
    same_through_either("disk", Sink::grpc).await;
}

#[tokio::test]
async fn same_telemetry_arrives_with_values_of_ambiguous_type() {
    same_through_either("odd", Sink::grpc).await;
}

#[tokio::test]
async fn same_telemetry_arrives_with_a_queue_smaller_than_a_batch() {
    same_through_either("tight", Sink::http).await;
}

/// What was pushed so far: the attributes of resources, and the names of metrics with what they count in all.
fn pushed(sink: &Sink) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let (mut attributes, mut metrics) = (BTreeSet::new(), BTreeMap::new());
    let taken = sink.taken().into_iter();
    for request in taken.filter(|request| request.path == METRICS) {
        let decoded = ExportMetricsServiceRequest::decode(request.message.as_slice()).unwrap();
        for entry in decoded.resource_metrics {
            let resource = entry.resource.unwrap_or_default().attributes;
            let named = resource.iter().map(|attribute| {
                let value = attribute
                    .value
                    .as_ref()
                    .and_then(|value| value.value.as_ref());
                format!("{}: {value:?}", attribute.key)
            });
            attributes.extend(named);
            let of_scopes = entry.scope_metrics.into_iter();
            for metric in of_scopes.flat_map(|scope| scope.metrics) {
                metrics.insert(metric.name, format!("{:?}", metric.data));
            }
        }
    }
    (attributes, metrics)
}

#[tokio::test]
async fn either_pushes_its_own_metrics_as_configured() {
    for program in Program::BOTH {
        let sink = Sink::grpc().await;
        let running = Running::start(program, "push", sink.address).await;
        running.send().await;
        let counted = |value: u32| {
            let (_, metrics) = pushed(&sink);
            let spans = metrics.get("otelcol_receiver_accepted_spans");
            spans.is_some_and(|data| data.contains(&format!("AsInt({value})")))
        };
        eventually(&format!("{program:?} pushes them"), || counted(3)).await;
        for name in ["otelcol_exporter_sent_spans", "otelcol_process_uptime"] {
            // What was sent is counted a moment after it has arrived.
            let what = format!("{program:?} pushes {name}");
            eventually(&what, || pushed(&sink).1.contains_key(name)).await;
        }
        let (attributes, _) = pushed(&sink);
        let attributes = format!("{attributes:?}");
        for expected in [
            "k8s.node.name",
            "node-1",
            "k8s.pod.name",
            "agent-1",
            "service.name",
            "service.instance.id",
        ] {
            assert!(
                attributes.contains(expected),
                "{program:?}: {expected}: {attributes}"
            );
        }
        let pushes = sink
            .taken()
            .into_iter()
            .filter(|request| request.path == METRICS);
        assert!(
            pushes
                .clone()
                .all(|request| request.headers["x-tenant"] == "a")
        );
        running.check_metrics().await;
        // Meanwhile the sink answers the last push.
        let ended = tokio::task::spawn_blocking(|| running.end());
        ended.await.unwrap();
    }
}

#[tokio::test]
async fn collector_takes_every_metric_that_the_agent_pushes() {
    let (upstream, sink) = (Sink::grpc().await, Sink::grpc().await);
    let collector = Running::start(Program::Collector, "host-network", sink.address).await;
    for (protocol, port) in [("grpc", collector.grpc), ("http/protobuf", collector.http)] {
        let endpoint = collector.place.at(port);
        let otlp = format!("protocol: {protocol}, endpoint: 'http://{endpoint}'");
        let agent = Setup::grpc(upstream.address)
            .push(&format!("interval: 100, exporter: {{otlp: {{{otlp}}}}}"))
            .start();
        let pushes = "otelagent_metrics_pushes_total";
        eventually("it takes them", || agent.metric(pushes, "delivered") > 0).await;
        assert_eq!(agent.metric(pushes, "rejected"), 0, "{protocol}");
        assert_eq!(agent.metric(pushes, "failed"), 0, "{protocol}");
        let page = get(agent.metrics, "/metrics").1;
        let families = page
            .lines()
            .filter(|line| line.starts_with("# TYPE "))
            .count();
        eventually("all of them arrive", || pushed(&sink).1.len() == families).await;
    }
    collector.end();
}
