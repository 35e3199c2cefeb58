//! The programs that are measured: how each is configured, started, watched and ended. Must not know
//! what is measured.

mod rotel;
mod running;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use testbed::parts::{self, Part};

use crate::Outcome;
use crate::load::Transport;
use crate::machine::Cores;
use crate::telemetry::Encoding;

pub use running::Running;

/// Ports are taken from here on: below those the kernel gives to outgoing connections, so that an
/// upstream that is away cannot be mistaken for one of them.
const PORTS: std::ops::Range<u16> = 21_000..31_000;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Ours.
    Otelagent,
    /// The OpenTelemetry Collector, of the modules the agent replaces.
    Collector,
    /// rotel, from its Python package.
    Rotel,
    /// The plain forwarder of this package.
    Plain,
}

impl Kind {
    /// In the order of the report.
    pub const ALL: [Self; 4] = [Self::Otelagent, Self::Collector, Self::Rotel, Self::Plain];

    /// As the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Otelagent => "agent",
            Self::Collector => "collector",
            Self::Rotel => "rotel",
            Self::Plain => "tonic + prost",
        }
    }

    fn config(self, disk: bool) -> &'static str {
        match (self, disk) {
            (Self::Otelagent, false) => include_str!("../../configs/otelagent.yaml"),
            (Self::Otelagent, true) => include_str!("../../configs/otelagent-disk.yaml"),
            (Self::Collector, false) => include_str!("../../configs/collector.yaml"),
            (Self::Collector, true) => include_str!("../../configs/collector-disk.yaml"),
            (Self::Rotel, _) => include_str!("../../configs/rotel.env"),
            (Self::Plain, _) => include_str!("../../configs/plain.env"),
        }
    }

    /// Whether it has a queue on disk.
    pub fn has_disk(self) -> bool {
        matches!(self, Self::Otelagent | Self::Collector)
    }

    /// Whether it can send what is compressed like this.
    pub fn sends(self, encoding: Encoding) -> bool {
        self != Self::Rotel || encoding != Encoding::Zstd
    }
}

/// A program that can be run here.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Which one.
    pub kind: Kind,
    /// Its binary.
    pub program: PathBuf,
    /// Of which release, and from where.
    pub version: String,
}

/// Finds or makes every program. What is not to be had is left out, with the reason.
pub fn find(agent: &Path) -> Outcome<(Vec<Peer>, Vec<String>)> {
    let own = std::env::current_exe()?;
    let beside = own.parent().ok_or("no directory")?.join("plain-forwarder");
    let mut peers = vec![Peer {
        kind: Kind::Otelagent,
        program: agent.to_owned(),
        version: format!("{}, this tree", env!("CARGO_PKG_VERSION")),
    }];
    let mut missing = Vec::new();
    match parts::ensure(Part::Collector) {
        Ok(program) => peers.push(Peer {
            kind: Kind::Collector,
            version: first_line(Command::new(&program).arg("--version"))?
                .replace("otelcol version", "otelcol")
                + ", built from its Go modules",
            program,
        }),
        Err(error) => missing.push(format!("collector: {error}")),
    }
    match rotel::ensure() {
        Ok(program) => peers.push(Peer {
            kind: Kind::Rotel,
            program,
            version: format!("{} of PyPI", rotel::VERSION),
        }),
        Err(error) => missing.push(format!("rotel: {error}")),
    }
    if beside.is_file() {
        peers.push(Peer {
            kind: Kind::Plain,
            program: beside,
            version: "tonic 0.14, prost 0.14, untuned".to_owned(),
        });
    } else {
        missing.push("tonic + prost: plain-forwarder is not built".to_owned());
    }
    Ok((peers, missing))
}

fn first_line(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// How a program is to be set up. The same for all of them, as far as they can.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where it listens for gRPC.
    pub grpc: SocketAddr,
    /// Where it listens for HTTP.
    pub http: SocketAddr,
    /// Where it sends to.
    pub upstream: SocketAddr,
    /// How it compresses what it sends.
    pub encoding: Encoding,
    /// How it sends.
    pub exporter: Transport,
    /// Where its queue is, if that is on disk.
    pub disk: Option<PathBuf>,
    /// Its memory limit.
    pub limit_mib: u64,
    /// How much may wait.
    pub queue_bytes: u64,
    /// How long requests wait for company.
    pub flush_ms: u64,
}

impl Setup {
    /// Queue in memory, gzip, and limits that no run reaches by accident.
    pub fn new(upstream: SocketAddr) -> Outcome<Self> {
        Ok(Self {
            grpc: free_port()?,
            http: free_port()?,
            upstream,
            encoding: Encoding::Gzip,
            exporter: Transport::Grpc,
            disk: None,
            limit_mib: 512,
            queue_bytes: 64 * 1024 * 1024,
            flush_ms: 200,
        })
    }

    /// What the configurations refer to.
    fn variables(&self, scratch: &Path) -> [(&'static str, String); 10] {
        let disk = self.disk.as_deref().unwrap_or(Path::new("/nowhere"));
        let exporter = match self.exporter {
            Transport::Grpc => "otlp_grpc",
            Transport::Http => "otlp_http",
        };
        [
            ("BENCH_GRPC", self.grpc.to_string()),
            ("BENCH_HTTP", self.http.to_string()),
            ("BENCH_UPSTREAM", self.upstream.to_string()),
            ("BENCH_COMPRESSION", self.encoding.name().to_owned()),
            ("BENCH_EXPORTER", exporter.to_owned()),
            ("BENCH_LIMIT_MIB", self.limit_mib.to_string()),
            ("BENCH_QUEUE_BYTES", self.queue_bytes.to_string()),
            ("BENCH_FLUSH", format!("{}ms", self.flush_ms)),
            ("BENCH_DISK", disk.display().to_string()),
            ("BENCH_SCRATCH", scratch.display().to_string()),
        ]
    }
}

/// A port of the loopback interface that no process listens on.
pub fn free_port() -> Outcome<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two benchmarks at a time begin apart: a port whose sink is away looks free.
    let _ = NEXT.compare_exchange(0, beginning(), Ordering::Relaxed, Ordering::Relaxed);
    for _ in PORTS {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if !PORTS.contains(&port) {
            NEXT.store(PORTS.start, Ordering::Relaxed);
            continue;
        }
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port is free".into())
}

fn beginning() -> u16 {
    let places = std::process::id() % 50;
    PORTS.start + u16::try_from(places * 200).unwrap_or_default()
}

/// Where programs are run: which core, which directory.
#[derive(Clone, Debug)]
pub struct Place {
    /// None on a machine with one core.
    pub cores: Option<Cores>,
    /// For configurations, logs and queues.
    pub scratch: PathBuf,
}

impl Peer {
    /// Writes the configuration and starts the program, without waiting for anything.
    pub fn spawn(&self, setup: &Setup, place: &Place) -> Outcome<Running> {
        self.spawn_under(&[], setup, place)
    }

    /// The same, ended by the kernel when this process dies; takes a millisecond longer.
    pub fn spawn_bound(&self, setup: &Setup, place: &Place) -> Outcome<Running> {
        self.spawn_under(&["setpriv", "--pdeathsig", "KILL"], setup, place)
    }

    /// The same, as argument of another program.
    pub fn spawn_under(&self, wrapper: &[&str], setup: &Setup, place: &Place) -> Outcome<Running> {
        let name = self.kind.name().replace(' ', "");
        let config = self.kind.config(setup.disk.is_some());
        let variables = setup.variables(&place.scratch);
        let mut command = match wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        match self.kind {
            Kind::Otelagent | Kind::Collector => {
                let file = place.scratch.join(format!("{name}.yaml"));
                fs::write(&file, config)?;
                command.arg(format!("--config={}", file.display()));
                command.envs(variables);
            }
            Kind::Rotel | Kind::Plain => {
                let filled = |value: &str| {
                    variables
                        .iter()
                        .fold(value.to_owned(), |text, (name, value)| {
                            text.replace(&format!("${{env:{name}}}"), value)
                        })
                };
                let lines = config.lines().filter(|line| !line.starts_with('#'));
                let pairs = lines.filter_map(|line| line.split_once('='));
                command.envs(pairs.map(|(name, value)| (name, filled(value))));
            }
        }
        if self.kind == Kind::Rotel {
            command.arg("start");
        }
        let log = place.scratch.join(format!("{name}.log"));
        Running::start(command, log, setup, place.cores)
    }

    /// Starts it and waits until it accepts connections.
    pub async fn start(&self, setup: &Setup, place: &Place) -> Outcome<Running> {
        let mut running = self.spawn_bound(setup, place)?;
        running.accepting().await?;
        Ok(running)
    }
}
