//! The life of the agent: bind, serve, and on SIGTERM drain in order. Must not know protocols.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::budget::Budget;
use crate::config::Config;
use crate::export::{ExportError, Upstream};
use crate::health::{self, Report, Topic};
use crate::merge::Edits;
use crate::metrics::Metrics;
use crate::queue::Lane;
use crate::receive::listener::{self, ListenError};
use crate::receive::{Intake, Limits, Places, Route};
use crate::scan::Signal;

/// Connections kept at most, less where the system allows fewer files.
const MAX_CONNECTIONS: usize = 10_000;

/// Files the agent needs beside client connections.
const OTHER_FILES: usize = 100;

/// What the environment says.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// From the signal to the end of the process at the latest.
    pub(super) grace: Duration,
    /// From the signal to the end of accepting.
    pub(super) lame_duck: Duration,
    pub(super) reuse_port: bool,
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
struct Agent {
    report: Arc<Report>,
    metrics: Arc<Metrics>,
    upstreams: Vec<Arc<Upstream>>,
    lanes: Vec<Arc<Lane>>,
    senders: JoinSet<()>,
    receivers: JoinSet<()>,
    stop: watch::Sender<bool>,
    /// Bound addresses, for the log.
    otlp: String,
}

/// Runs until SIGTERM or SIGINT; whether everything acknowledged was delivered.
pub(super) async fn run(config: Config, options: Options) -> Result<bool, StartError> {
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let agent = start(&config, &options).await?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        otlp = agent.otlp,
        "ready"
    );
    signals.next().await;
    let deadline = Instant::now() + options.grace;
    let drained = async {
        let delivered = agent.drain(options.lame_duck, deadline).await;
        Ok(delivered)
    };
    tokio::select! {
        drained = drained => drained,
        () = signals.next() => {
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

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn start(config: &Config, options: &Options) -> Result<Agent, StartError> {
    let metrics = Arc::new(Metrics::default());
    let budget = Budget::new(config.memory.limit, config.memory.spike);
    let upstreams = upstreams(config, &budget, &metrics)?;
    let mut senders = JoinSet::new();
    let mut routes = Vec::new();
    let mut lanes = Vec::new();
    for pipeline in &config.pipelines {
        let Some(upstream) = upstreams.get(pipeline.exporter) else {
            continue;
        };
        let Some(exporter) = config.exporters.get(pipeline.exporter) else {
            continue;
        };
        let lane = Lane::new(pipeline.signal, exporter.queue, Arc::clone(&metrics));
        senders.spawn(Arc::clone(upstream).run(Arc::clone(&lane)));
        let capacity = exporter.queue.capacity;
        lanes.push((Arc::clone(&lane), exporter.id.clone(), capacity));
        routes.push(Route {
            lane,
            edits: Edits::new(&pipeline.attributes),
        });
    }
    let limits = Limits {
        grpc_message: config.receiver.max_grpc_message,
        http_body: config.receiver.max_http_body,
        concurrent_streams: config.receiver.max_concurrent_streams,
    };
    let report = Arc::new(Report {
        listening: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        metrics: Arc::clone(&metrics),
        budget: Arc::clone(&budget),
        upstreams: upstreams.clone(),
        lanes: lanes.clone(),
        path: config
            .health
            .as_ref()
            .map_or_else(|| "/".to_owned(), |health| health.path.clone()),
        reader: config.telemetry.metrics.clone(),
    });
    let places = Places::new(max_connections(), config.memory.limit, Arc::clone(&budget));
    let intake = Intake::new(
        routes,
        budget,
        Arc::clone(&places),
        Arc::clone(&metrics),
        limits,
    );
    serve_report(config, options, &report).await?;
    let (stop, stopped) = watch::channel(false);
    let mut receivers = JoinSet::new();
    let mut otlp = Vec::new();
    for address in &config.receiver.listen {
        let listener = listener::bind(address, options.reuse_port).await?;
        otlp.push(bound(&listener));
        let (intake, places) = (Arc::clone(&intake), Arc::clone(&places));
        receivers.spawn(listener::run(listener, intake, places, stopped.clone()));
    }
    report.listening.store(true, Ordering::Relaxed);
    Ok(Agent {
        report,
        metrics,
        upstreams,
        lanes: lanes.into_iter().map(|(lane, _, _)| lane).collect(),
        senders,
        receivers,
        stop,
        otlp: otlp.join(","),
    })
}

fn upstreams(
    config: &Config,
    budget: &Arc<Budget>,
    metrics: &Arc<Metrics>,
) -> Result<Vec<Arc<Upstream>>, StartError> {
    let new = |exporter| Upstream::new(exporter, Arc::clone(budget), Arc::clone(metrics));
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

impl Agent {
    /// Readiness off, listeners closed, open requests answered, everything held sent; whether nothing
    /// was lost on the way.
    async fn drain(mut self, lame_duck: Duration, deadline: Instant) -> bool {
        info!("draining");
        self.report.draining.store(true, Ordering::Relaxed);
        sleep(lame_duck).await;
        for lane in &self.lanes {
            lane.flush();
        }
        for upstream in &self.upstreams {
            upstream.drain();
        }
        self.stop.send_replace(true);
        let now = Instant::now();
        let answered = now + deadline.saturating_duration_since(now) / 2;
        let all = async { while self.receivers.join_next().await.is_some() {} };
        if timeout_at(answered, all).await.is_err() {
            warn!("some connections did not end; closing them");
            self.receivers.shutdown().await;
        }
        for lane in &self.lanes {
            lane.close();
        }
        let all = async { while self.senders.join_next().await.is_some() {} };
        if timeout_at(deadline, all).await.is_err() {
            // Batches that are dropped count as lost in shutdown.
            self.senders.shutdown().await;
        }
        for lane in &self.lanes {
            lane.abandon();
        }
        self.tell_losses()
    }

    fn tell_losses(&self) -> bool {
        for (signal, reason, items) in self.metrics.losses() {
            warn!(signal = signal.name(), reason, items, "telemetry lost");
        }
        let mut left = 0;
        for signal in Signal::ALL {
            let books = self.metrics.books(signal);
            left += books.lost;
            if books.accepted > 0 {
                info!(
                    signal = signal.name(),
                    accepted = books.accepted,
                    delivered = books.delivered,
                    lost = books.lost,
                    "done"
                );
            }
        }
        left == 0
    }
}
