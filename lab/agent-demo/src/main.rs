//! `agent-demo`: starts the agent between a load and a sink, and shows once a second what goes in and
//! what comes out. `make agent-demo` builds what it needs and calls it. Ctrl-C ends all of it.

mod http;
mod load;
mod screen;
mod sink;

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::load::Load;
use crate::screen::{Moment, Screen};
use crate::sink::Sink;

/// Shows the agent at work.
#[derive(Parser)]
struct Cli {
    /// The agent's binary.
    #[arg(long)]
    agent: PathBuf,
    /// End after this many seconds; without it, on Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// Spans sent per second, in requests of 20.
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// Clients that send them, one connection each.
    #[arg(long, default_value_t = 4)]
    clients: u32,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("agent-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that was acknowledged came out again.
fn run(cli: &Cli) -> io::Result<bool> {
    let sink = Sink::start()?;
    let mut agent = Agent::start(&cli.agent, sink.address)?;
    let load = Load::start(agent.otlp, cli.clients.max(1), cli.rate);
    let mut screen = Screen::new(agent.child.id(), cli.clients, agent.otlp, sink.address);
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        if let Some(status) = agent.child.try_wait()? {
            return Err(io::Error::other(format!("the agent ended: {status}")));
        }
        screen.show(Moment {
            metrics: http::metrics(agent.metrics)?,
            acknowledged: load.acknowledged(),
            refused: load.refused(),
            arrived: sink.arrived(),
            at: Instant::now(),
        });
        let over = |seconds| begun.elapsed() >= Duration::from_secs(seconds);
        if cli.seconds.is_some_and(over) {
            break;
        }
    }
    let acknowledged = load.stop();
    agent.end()?;
    let arrived = sink.arrived();
    println!(
        "acknowledged {acknowledged} spans, of which {} arrived",
        arrived.spans
    );
    Ok(acknowledged > 0 && arrived.spans == acknowledged)
}

/// A running agent.
struct Agent {
    child: Child,
    otlp: SocketAddr,
    metrics: SocketAddr,
    configuration: PathBuf,
}

impl Agent {
    fn start(binary: &Path, sink: SocketAddr) -> io::Result<Self> {
        let name = format!("agent-demo-{}.yaml", std::process::id());
        let configuration = std::env::temp_dir().join(name);
        std::fs::write(&configuration, yaml(sink))?;
        let mut child = Command::new(binary)
            .arg("--config")
            .arg(&configuration)
            // On Ctrl-C the sink is gone, too: there is nothing to wait for.
            .args(["--shutdown-grace", "2"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(stderr).lines();
        let mut metrics = None;
        let mut read = String::new();
        let otlp = loop {
            let Some(line) = lines.next().transpose()? else {
                let message = format!("the agent does not start:\n{read}");
                return Err(io::Error::other(message));
            };
            read.push_str(&line);
            if line.contains("\"topic\":\"metrics\"") {
                metrics = address(&line, "address");
            }
            if let Some(otlp) = address(&line, "otlp") {
                break otlp;
            }
        };
        // What it says from now on goes where this program's errors go.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        Ok(Self {
            child,
            otlp,
            metrics: metrics.ok_or_else(|| io::Error::other("the agent serves no metrics"))?,
            configuration,
        })
    }

    /// Asks it to end, which it does once everything is delivered.
    fn end(&mut self) -> io::Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.configuration);
    }
}

fn yaml(sink: SocketAddr) -> String {
    format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}\n\
         processors:\n  \
           memory_limiter: {{check_interval: 1s, limit_mib: 64}}\n  \
           resource: {{attributes: [{{key: demo, value: agent, action: insert}}]}}\n\
         exporters: {{otlp_http: {{endpoint: 'http://{sink}', retry_on_failure: {{initial_interval: 200ms}}}}}}\n\
         service:\n  \
           pipelines: {{traces: {{receivers: [otlp], processors: [memory_limiter, resource], exporters: [otlp_http]}}}}\n  \
           telemetry:\n    \
             logs: {{level: info, encoding: json}}\n    \
             metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: 0}}}}}}}}]}}\n"
    )
}

/// The address a log line has under `key`.
fn address(line: &str, key: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(&format!("\"{key}\":\""))?;
    rest.split('"').next()?.parse().ok()
}
