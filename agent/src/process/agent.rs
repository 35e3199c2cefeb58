//! The running agent: its parts, and how they start.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otlp_wire::Edits;
use segment_log::SlotDirectory;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::info;

use super::node_port::{Tried, own_path};
use super::push::{Pusher, Target};
use crate::budget::Budget;
use crate::compress;
use crate::config::{
    BindAddress, Compression, Config, Exporter, Memory, PUSH_READER, Pipeline, Queue,
};
use crate::export::{self, ExportError, MissingFiles, Shared, Upstream};
use crate::health::{self, Report, Status, Topic};
use crate::metrics::{Metrics, MetricsOrigin};
use crate::queue::{DurableQueue, Lane, Maintenance};
use crate::receive::listener::{self, ListenError, OtlpListener};
use crate::receive::{
    ConnectionTable, PortOwner, ReceiverRules, Route, ServerState, SharedState, TokenError,
    connection_memory,
};
use crate::stream::Stream;
use crate::worker::Worker;

/// The maximum number of connections, if the limit of open files allows it.
const MAX_CONNECTIONS: usize = 10_000;

/// The files that the agent needs beside client connections.
const OTHER_FILES: usize = 100;

/// The options of the command line and the environment.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// The maximum time from the signal to the end of the process.
    pub(super) grace: Duration,
    /// The time from the signal to the start of draining.
    pub(super) lame_duck: Duration,
    /// Whose agents may listen on the same ports.
    pub(super) port_owner: Option<PortOwner>,
    /// The maximum age of connections to the upstream.
    pub(super) upstream_age: Duration,
    pub(super) health_socket: Option<PathBuf>,
    /// The port of the node that leads to the agent, if its pod claims one.
    pub(super) node_port: Option<SocketAddr>,
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("tokens of clients")]
    Token(#[from] TokenError),
    #[error("exporter {0}")]
    Export(String, #[source] ExportError),
    #[error("{0}: the metrics cannot be pushed")]
    Push(&'static str, #[source] ExportError),
    #[error("cannot listen on the health socket {0}")]
    HealthSocket(PathBuf, #[source] io::Error),
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
}

impl StartError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Listen(error) => error.reason(),
            Self::Token(error) => error.reason(),
            Self::Export(_, source) | Self::Push(_, source) => source.reason(),
            Self::HealthSocket(..) => "health_socket",
            Self::Signals(_) => "signals",
        }
    }
}

/// The parts of the agent.
pub(super) struct Agent {
    pub(super) config: Arc<Config>,
    pub(super) upstream_age: Duration,
    pub(super) report: Arc<Report>,
    pub(super) pusher: Pusher,
    pub(super) server: Arc<ServerState>,
    pub(super) senders: JoinSet<()>,
    /// The maintenance tasks of queues on disk.
    _maintenance: JoinSet<()>,
    pub(super) receivers: JoinSet<()>,
    pub(super) leave: watch::Sender<bool>,
    pub(super) close: watch::Sender<bool>,
    /// Ends once all its senders are dropped.
    pub(super) left: (mpsc::Sender<Infallible>, mpsc::Receiver<Infallible>),
    /// The bound addresses, for the log.
    pub(super) otlp: String,
}

impl Agent {
    /// Starts every part; health answers first, the OTLP ports open last.
    pub(super) async fn start(config: Config, options: &Options) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::default());
        let limit = config.memory.limit;
        let Memory { limit: most, spike } = beside_compressor(&config);
        let budget = Budget::new(most, spike, connection_memory(limit));
        let rules = ReceiverRules::new(&config.receiver)?;
        let exports = Shared {
            budget: Arc::clone(&budget),
            metrics: Arc::clone(&metrics),
            compressor: Worker::new("compression"),
            connection_age: options.upstream_age,
        };
        let upstreams = upstreams(&config, &exports)?;
        let target = push_target(&config, options)?;
        let pipelines = Pipelines::start(&config, &upstreams, &budget, &metrics).await;
        let connections = max_connections();
        let shared = SharedState {
            connections: ConnectionTable::new(connections, &budget),
            budget: Arc::clone(&budget),
            metrics: Arc::clone(&metrics),
            worker: Worker::new("requests"),
            own_path: own_path(),
        };
        let report = Arc::new(Report {
            status: Mutex::new(Status::Starting),
            started: Instant::now(),
            origin: MetricsOrigin::new(),
            config: Mutex::new(Arc::clone(&config)),
            refused: Mutex::default(),
            metrics,
            budget,
            upstreams,
            lanes: pipelines.lanes,
            connections,
        });
        serve_report(&config, options, &report).await?;
        let mut agent = Self {
            server: ServerState::new(shared, pipelines.routes, rules),
            config,
            upstream_age: options.upstream_age,
            pusher: Pusher::start(target, Arc::clone(&report), exports),
            report,
            senders: pipelines.senders,
            _maintenance: pipelines.maintenance,
            receivers: JoinSet::new(),
            leave: watch::Sender::new(false),
            close: watch::Sender::new(false),
            left: mpsc::channel(1),
            otlp: String::new(),
        };
        agent.listen(options.port_owner.as_ref()).await?;
        agent.become_ready(options.node_port);
        Ok(agent)
    }

    /// At once, or when the node's port leads here.
    fn become_ready(&self, node_port: Option<SocketAddr>) {
        let Some(port) = node_port else {
            self.report.proceed(Status::Ready);
            return;
        };
        let own = Tried {
            port,
            own_path: Arc::clone(&self.server.shared.own_path),
            is_encrypted: is_encrypted(&self.config, port.port()),
        };
        tokio::spawn(own.until_mapped(Arc::clone(&self.report)));
    }

    async fn listen(&mut self, owner: Option<&PortOwner>) -> Result<(), ListenError> {
        let mut addresses = Vec::new();
        for configured in &self.config.receiver.listen {
            let (server, leave) = (Arc::clone(&self.server), self.leave.subscribe());
            let listener = OtlpListener::bind(configured, owner, server, leave).await?;
            addresses.push(listener.place());
            let (close, left) = (self.close.subscribe(), self.left.0.clone());
            self.receivers.spawn(listener.run(close, left));
        }
        self.otlp = addresses.join(",");
        Ok(())
    }
}

/// The lanes of a configuration, their routes, and the tasks that send and maintain them.
#[derive(Default)]
struct Pipelines {
    routes: Vec<Route>,
    lanes: Vec<Arc<Lane>>,
    senders: JoinSet<()>,
    maintenance: JoinSet<()>,
}

impl Pipelines {
    async fn start(
        config: &Config,
        upstreams: &[Arc<Upstream>],
        budget: &Arc<Budget>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let mut started = Self::default();
        // The lanes with queues on disk, by directory.
        let mut durable_lanes = BTreeMap::new();
        for pipeline in &config.pipelines {
            let (Some(upstream), Some(exporter)) = (
                upstreams.get(pipeline.exporter),
                config.exporters.get(pipeline.exporter),
            ) else {
                continue;
            };
            let storage = exporter.storage.as_ref();
            let durable = storage.map(|storage| {
                let (budget, lanes) = (Arc::clone(budget), config.pipelines.len());
                DurableQueue::new(&exporter.id, storage, &exporter.queue, budget, lanes)
            });
            let (signal, metrics) = (pipeline.signal, Arc::clone(metrics));
            let reserve = export_reserve(exporter, &config.memory);
            let queue = bounded(exporter.queue, reserve);
            let lane = Lane::new(signal, queue, metrics, durable);
            if let Some(storage) = storage {
                let entry = durable_lanes.entry(&storage.directory);
                let (_, lanes) = entry.or_insert((storage, Vec::new()));
                lanes.push(Arc::clone(&lane));
            }
            let send = export::send_lane(Arc::clone(upstream), Arc::clone(&lane));
            started.senders.spawn(send);
            started.lanes.push(Arc::clone(&lane));
            started.routes.push(route(lane, pipeline, reserve));
        }
        // Before the ports open, so that records of earlier processes go first.
        for (storage, lanes) in durable_lanes.into_values() {
            let directory = SlotDirectory {
                path: storage.directory.clone().into(),
                create: storage.create_directory,
                mode: storage.directory_permissions,
            };
            Maintenance::start(directory, &lanes).await;
            for lane in lanes {
                started.maintenance.spawn(Maintenance::watch(lane));
            }
        }
        started
    }
}

/// Whether the agent's socket of this port speaks TLS.
fn is_encrypted(config: &Config, port: u16) -> bool {
    let mut sockets = config.receiver.listen.iter();
    sockets.any(|socket| {
        let is_it = matches!(&socket.address, BindAddress::Tcp(address) if address.port == port);
        is_it && socket.tls.is_some()
    })
}

/// The smallest bound of a batch.
const SMALLEST_BATCH: usize = 64 * 1024;

/// The memory for everything but the compressor, which keeps what it has.
pub(super) fn beside_compressor(config: &Config) -> Memory {
    let kinds = config.exporters.iter().map(|exporter| exporter.compression);
    let context = kinds.map(compress::context).max().unwrap_or_default();
    Memory {
        limit: config.memory.limit.saturating_sub(context),
        spike: config.memory.spike.saturating_sub(context),
    }
}

/// The largest batch that can be compressed whatever else is held.
pub(super) fn export_reserve(exporter: &Exporter, memory: &Memory) -> usize {
    match exporter.compression {
        Compression::None => usize::MAX,
        kind => memory.spike.saturating_sub(compress::context(kind)),
    }
}

/// The route of a pipeline's requests to its queue.
pub(super) fn route(lane: Arc<Lane>, pipeline: &Pipeline, reserve: usize) -> Route {
    Route {
        lane,
        edits: Arc::new(Edits::new(&pipeline.attributes)),
        reserve,
    }
}

/// A queue whose batches are no larger than that, with a floor.
pub(super) fn bounded(queue: Queue, reserve: usize) -> Queue {
    let most = reserve.max(SMALLEST_BATCH);
    Queue {
        min_size: queue.min_size.min(most),
        max_size: queue.max_size.min(most),
        ..queue
    }
}

fn upstreams(config: &Config, shared: &Shared) -> Result<Vec<Arc<Upstream>>, StartError> {
    let upstreams = config.exporters.iter().map(|exporter| {
        let failed = |source| StartError::Export(exporter.id.clone(), source);
        Upstream::new(exporter, shared.clone()).map_err(failed)
    });
    upstreams.collect()
}

/// Where the metrics are pushed, if they are.
fn push_target(config: &Config, options: &Options) -> Result<Option<Arc<Target>>, StartError> {
    let push = config.telemetry.push.as_ref();
    let target = push.map(|push| Target::new(push, options.upstream_age, MissingFiles::Await));
    let failed = |source| StartError::Push(PUSH_READER, source);
    target.transpose().map_err(failed)
}

/// Serves health and metrics. They start first, so that a probe gets "starting" as an answer.
async fn serve_report(
    config: &Config,
    options: &Options,
    report: &Arc<Report>,
) -> Result<(), StartError> {
    if let Some(path) = &options.health_socket {
        let failed = |source| StartError::HealthSocket(path.clone(), source);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let accept = async move || Ok(Box::new(listener.accept().await?.0) as Stream);
        tokio::spawn(health::serve(accept, Arc::clone(report), Topic::Health));
    }
    let health = config.health.as_ref();
    let health = health.map(|health| (&health.listen, Topic::Health));
    let reader = config.telemetry.metrics.as_ref();
    let reader = reader.map(|reader| (&reader.listen, Topic::Metrics));
    for (address, topic) in health.into_iter().chain(reader) {
        let listener = listener::bind(address, options.port_owner.as_ref()).await?;
        let address = listener.place();
        info!(address, topic = topic.name(), "listening");
        let accept = async move || Ok(Box::new(listener.accept().await?.0) as Stream);
        tokio::spawn(health::serve(accept, Arc::clone(report), topic));
    }
    Ok(())
}

/// The number of clients that the limit of open files allows.
fn max_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|soft| soft.parse::<usize>().ok())
        .unwrap_or(MAX_CONNECTIONS);
    files.saturating_sub(OTHER_FILES).clamp(16, MAX_CONNECTIONS)
}
