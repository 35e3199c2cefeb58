//! The life of the agent: bind, serve, look after the configuration, and on SIGTERM end. Must not know
//! protocols.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::log::Level;
use super::source::Source;
use crate::budget::Budget;
use crate::compress::Compressor;
use crate::config::{Config, ReceiverConfig, Storage};
use crate::export::{ExportError, Shared, Upstream};
use crate::health::{self, Report, Topic};
use crate::merge::Edits;
use crate::metrics::Metrics;
use crate::queue::{Keep, Lane, Tender};
use crate::receive::listener::{self, Ending, ListenError, Listener};
use crate::receive::{Door, Intake, Limits, Places, Route};

/// Connections kept at most, less where the system allows fewer files.
const MAX_CONNECTIONS: usize = 10_000;

/// Files the agent needs beside client connections.
const OTHER_FILES: usize = 100;

/// How often the files of the configuration are looked at.
const POLL: Duration = Duration::from_secs(3);

/// A file that was written just now may not be complete.
const SETTLE: Duration = Duration::from_millis(100);

/// What the environment says.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// From the signal to the end of the process at the latest.
    pub(super) grace: Duration,
    /// From the signal to the end of accepting.
    pub(super) lame_duck: Duration,
    pub(super) reuse_port: bool,
    /// Connections to the upstream live this long at most.
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
    /// Stable word for logs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Listen(error) => error.reason(),
            Self::Export { source, .. } => source.reason(),
            Self::HealthSocket { .. } => "health_socket",
            Self::Signals(_) => "signals",
        }
    }
}

/// The parts that live as long as the process.
pub(super) struct Agent {
    pub(super) config: Config,
    pub(super) options: Options,
    pub(super) report: Arc<Report>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Arc<Budget>,
    pub(super) door: Arc<Door>,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) senders: JoinSet<()>,
    /// Tend queues on disk, for as long as the agent lives.
    _keepers: JoinSet<()>,
    pub(super) receivers: JoinSet<()>,
    pub(super) leave: watch::Sender<bool>,
    pub(super) close: watch::Sender<bool>,
    /// Ends once all its senders are dropped.
    pub(super) left: (mpsc::Sender<Infallible>, mpsc::Receiver<Infallible>),
    /// Bound addresses, for the log.
    otlp: String,
}

/// Runs until SIGTERM or SIGINT; whether everything acknowledged was delivered.
pub(super) async fn run(
    config: Config,
    mut source: Source,
    level: Level,
    options: Options,
) -> Result<bool, StartError> {
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    let mut agent = start(config, &options).await?;
    agent.metrics.configured(source.fingerprint);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        otlp = agent.otlp,
        "ready"
    );
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = signals.end() => break,
            _ = hangup.recv() => agent.reload(&mut source, &level),
            _ = poll.tick() => if source.has_changed() {
                sleep(SETTLE).await;
                agent.reload(&mut source, &level);
            }
        }
    }
    let deadline = Instant::now() + options.grace;
    let drained = async {
        let delivered = agent.drain(options.lame_duck, deadline).await;
        Ok(delivered)
    };
    tokio::select! {
        drained = drained => drained,
        () = signals.end() => {
            warn!("second signal: ending at once");
            Ok(false)
        }
    }
}

struct Signals {
    terminate: UnixSignal,
    interrupt: UnixSignal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn start(config: Config, options: &Options) -> Result<Agent, StartError> {
    let metrics = Arc::new(Metrics::default());
    let budget = Budget::new(config.memory.limit, config.memory.spike);
    let upstreams = upstreams(&config, options, &budget, &metrics)?;
    let (mut senders, mut keepers) = (JoinSet::new(), JoinSet::new());
    let mut routes = Vec::new();
    let mut lanes = Vec::new();
    let mut stored = Stored::default();
    for pipeline in &config.pipelines {
        let (Some(upstream), Some(exporter)) = (
            upstreams.get(pipeline.exporter),
            config.exporters.get(pipeline.exporter),
        ) else {
            continue;
        };
        let keep = exporter.storage.as_ref().map(|storage| {
            let (budget, lanes) = (Arc::clone(&budget), config.pipelines.len());
            Keep::new(&exporter.id, storage, &exporter.queue, budget, lanes)
        });
        let lane = Lane::new(pipeline.signal, exporter.queue, Arc::clone(&metrics), keep);
        if let Some(storage) = &exporter.storage {
            stored.add(storage, &lane);
        }
        senders.spawn(Arc::clone(upstream).run(Arc::clone(&lane)));
        lanes.push(Arc::clone(&lane));
        routes.push(Route {
            lane,
            edits: Edits::new(&pipeline.attributes),
        });
    }
    stored.start(&mut keepers);
    let connections = max_connections();
    let report = Report::new(
        &config,
        Arc::clone(&metrics),
        Arc::clone(&budget),
        upstreams.clone(),
        lanes.clone(),
        connections,
    );
    let limit = config.memory.limit;
    let places = Places::new(connections, limit, Arc::clone(&budget));
    let door = Door::new(Intake::new(
        routes,
        Arc::clone(&budget),
        places,
        Arc::clone(&metrics),
        limits(&config.receiver),
        config.receiver.url_paths.clone(),
    ));
    serve_report(&config, options, &report).await?;
    let mut agent = Agent {
        config,
        options: options.clone(),
        report,
        metrics,
        budget,
        door,
        upstreams,
        lanes,
        senders,
        _keepers: keepers,
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

impl Agent {
    async fn listen(&mut self, options: &Options) -> Result<(), ListenError> {
        let mut addresses = Vec::new();
        for configured in &self.config.receiver.listen {
            let listener = Listener::bind(configured, options.reuse_port).await?;
            addresses.push(listener.place());
            let door = Arc::clone(&self.door);
            let ending = Ending {
                leave: self.leave.subscribe(),
                close: self.close.subscribe(),
                left: self.left.0.clone(),
            };
            self.receivers.spawn(listener.run(door, ending));
        }
        self.otlp = addresses.join(",");
        Ok(())
    }
}

/// What a receiver's configuration means for requests and connections.
pub(super) fn limits(receiver: &ReceiverConfig) -> Limits {
    Limits {
        grpc_message: receiver.max_grpc_message,
        http_body: receiver.max_http_body,
        concurrent_streams: receiver.max_concurrent_streams,
        lifetimes: receiver.connections,
    }
}

/// Lanes whose queues are kept on disk, by directory.
#[derive(Default)]
struct Stored(BTreeMap<String, (Storage, Vec<Arc<Lane>>)>);

impl Stored {
    fn add(&mut self, storage: &Storage, lane: &Arc<Lane>) {
        let directory = storage.directory.clone();
        let entry = self.0.entry(directory);
        let (_, lanes) = entry.or_insert_with(|| (storage.clone(), Vec::new()));
        lanes.push(Arc::clone(lane));
    }

    /// Before anything is accepted, so that what an earlier process has left goes first.
    fn start(self, keepers: &mut JoinSet<()>) {
        for (storage, lanes) in self.0.into_values() {
            keepers.spawn(Tender::start(storage, lanes).run());
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

/// Health and metrics ports. They come first, so that a probe finds "starting" rather than nothing.
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

/// The address a listener got, which tells the port where 0 was configured.
fn bound(listener: &TcpListener) -> String {
    listener
        .local_addr()
        .map(|address| address.to_string())
        .unwrap_or_default()
}

/// What the limit of open files leaves for clients.
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
