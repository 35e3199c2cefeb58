//! The running agent: its parts, and how they start.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otlp_wire::Edits;
use segment_log::SlotDirectory;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::info;

use crate::budget::Budget;
use crate::compress::Compressor;
use crate::config::{Config, Storage};
use crate::export::{ExportError, Shared, Upstream, send_lane};
use crate::health::{self, Report, Topic};
use crate::metrics::Metrics;
use crate::queue::{DurableQueue, Lane, Maintenance};
use crate::receive::listener::{self, ListenError, OtlpListener, StopSignals};
use crate::receive::{ConnectionTable, OtlpReceiver, Route, ServerState};

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
    pub(super) reuse_port: bool,
    /// The maximum age of connections to the upstream.
    pub(super) upstream_age: Duration,
    pub(super) health_socket: Option<PathBuf>,
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("exporter {id}")]
    Export {
        id: String,
        #[source]
        source: ExportError,
    },
    #[error("cannot listen on the health socket {path}")]
    HealthSocket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
}

impl StartError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Listen(error) => error.reason(),
            Self::Export { source, .. } => source.reason(),
            Self::HealthSocket { .. } => "health_socket",
            Self::Signals(_) => "signals",
        }
    }
}

/// The parts of the agent.
pub(super) struct Agent {
    pub(super) config: Config,
    pub(super) options: Options,
    pub(super) report: Arc<Report>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Arc<Budget>,
    pub(super) server: Arc<ServerState>,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    pub(super) lanes: Vec<Arc<Lane>>,
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
        let metrics = Arc::new(Metrics::default());
        let budget = Budget::new(config.memory.limit, config.memory.spike);
        let upstreams = upstreams(&config, options, &budget, &metrics)?;
        let pipelines = Pipelines::start(&config, &upstreams, &budget, &metrics);
        let connections = max_connections();
        let report = Report::new(
            &config,
            Arc::clone(&metrics),
            Arc::clone(&budget),
            upstreams.clone(),
            pipelines.lanes.clone(),
            connections,
        );
        let limit = config.memory.limit;
        let connections = ConnectionTable::new(connections, limit, Arc::clone(&budget));
        let server = ServerState::new(OtlpReceiver::new(
            pipelines.routes,
            Arc::clone(&budget),
            connections,
            Arc::clone(&metrics),
            &config.receiver,
        ));
        serve_report(&config, options, &report).await?;
        let mut agent = Self {
            config,
            options: options.clone(),
            report,
            metrics,
            budget,
            server,
            upstreams,
            lanes: pipelines.lanes,
            senders: pipelines.senders,
            _maintenance: pipelines.maintenance,
            receivers: JoinSet::new(),
            leave: watch::Sender::new(false),
            close: watch::Sender::new(false),
            left: mpsc::channel(1),
            otlp: String::new(),
        };
        agent.listen(options).await?;
        agent.report.set_listening();
        Ok(agent)
    }

    async fn listen(&mut self, options: &Options) -> Result<(), ListenError> {
        let mut addresses = Vec::new();
        for configured in &self.config.receiver.listen {
            let listener = OtlpListener::bind(configured, options.reuse_port).await?;
            addresses.push(listener.place());
            let server = Arc::clone(&self.server);
            let signals = StopSignals {
                leave: self.leave.subscribe(),
                close: self.close.subscribe(),
                left: self.left.0.clone(),
            };
            self.receivers.spawn(listener.run(server, signals));
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
    fn start(
        config: &Config,
        upstreams: &[Arc<Upstream>],
        budget: &Arc<Budget>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let mut started = Self::default();
        let mut durable_lanes = DurableLanes::default();
        for pipeline in &config.pipelines {
            let (Some(upstream), Some(exporter)) = (
                upstreams.get(pipeline.exporter),
                config.exporters.get(pipeline.exporter),
            ) else {
                continue;
            };
            let durable = exporter.storage.as_ref().map(|storage| {
                let (budget, lanes) = (Arc::clone(budget), config.pipelines.len());
                DurableQueue::new(&exporter.id, storage, &exporter.queue, budget, lanes)
            });
            let lane = Lane::new(
                pipeline.signal,
                exporter.queue,
                Arc::clone(metrics),
                durable,
            );
            if let Some(storage) = &exporter.storage {
                durable_lanes.add(storage, &lane);
            }
            let send = send_lane(Arc::clone(upstream), Arc::clone(&lane));
            started.senders.spawn(send);
            started.lanes.push(Arc::clone(&lane));
            started.routes.push(Route {
                lane,
                edits: Edits::new(&pipeline.attributes),
            });
        }
        durable_lanes.start(&mut started.maintenance);
        started
    }
}

/// The lanes with queues on disk, by directory.
#[derive(Default)]
struct DurableLanes(BTreeMap<String, (Storage, Vec<Arc<Lane>>)>);

impl DurableLanes {
    fn add(&mut self, storage: &Storage, lane: &Arc<Lane>) {
        let directory = storage.directory.clone();
        let entry = self.0.entry(directory);
        let (_, lanes) = entry.or_insert_with(|| (storage.clone(), Vec::new()));
        lanes.push(Arc::clone(lane));
    }

    /// Starts before the ports open, so that records of earlier processes go first.
    fn start(self, maintenance: &mut JoinSet<()>) {
        for (storage, lanes) in self.0.into_values() {
            let directory = SlotDirectory {
                path: storage.directory.into(),
                create: storage.create_directory,
                mode: storage.directory_permissions,
            };
            maintenance.spawn(Maintenance::start(directory, lanes).run());
        }
    }
}

fn upstreams(
    config: &Config,
    options: &Options,
    budget: &Arc<Budget>,
    metrics: &Arc<Metrics>,
) -> Result<Vec<Arc<Upstream>>, StartError> {
    let shared = Shared {
        budget: Arc::clone(budget),
        metrics: Arc::clone(metrics),
        compressor: Arc::new(Compressor::default()),
        connection_age: options.upstream_age,
    };
    let new = |exporter| Upstream::new(exporter, shared.clone());
    config
        .exporters
        .iter()
        .map(|exporter| {
            new(exporter).map_err(|source| StartError::Export {
                id: exporter.id.clone(),
                source,
            })
        })
        .collect()
}

/// Serves health and metrics. They start first, so that a probe gets "starting" as an answer.
async fn serve_report(
    config: &Config,
    options: &Options,
    report: &Arc<Report>,
) -> Result<(), StartError> {
    if let Some(path) = &options.health_socket {
        let failed = |source| StartError::HealthSocket {
            path: path.clone(),
            source,
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        tokio::spawn(health::serve_unix(listener, Arc::clone(report)));
    }
    let ports = [
        (
            config.health.as_ref().map(|health| &health.listen),
            Topic::Health,
        ),
        (
            config
                .telemetry
                .metrics
                .as_ref()
                .map(|reader| &reader.listen),
            Topic::Metrics,
        ),
    ];
    for (address, topic) in ports {
        if let Some(address) = address {
            let listener = listener::bind(address, options.reuse_port).await?;
            info!(
                address = bound(&listener),
                topic = topic.name(),
                "listening"
            );
            tokio::spawn(health::serve_tcp(listener, Arc::clone(report), topic));
        }
    }
    Ok(())
}

/// The bound address, with the actual port for a configured 0.
fn bound(listener: &TcpListener) -> String {
    listener
        .local_addr()
        .map(|address| address.to_string())
        .unwrap_or_default()
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
