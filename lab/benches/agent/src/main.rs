//! `agent-bench`: runs the scenarios one after the other and writes the report. `make bench-agent`
//! builds what it needs and calls it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent_bench::Outcome;
use agent_bench::machine::{self, Cores};
use agent_bench::peers::{self, Kind, Place};
use agent_bench::report::{self, About, Report};
use agent_bench::scenarios::{Bench, Part, Scale, Scenario};
use clap::{Parser, ValueEnum};
use tokio::task::LocalSet;

/// Measures the agent against its peers.
#[derive(Parser)]
struct Cli {
    /// The agent's static release binary.
    #[arg(long)]
    agent: PathBuf,
    /// One part of the report, whole.
    #[arg(long)]
    part: Option<Part>,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Only these programs.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Kind>,
    /// Seconds of load of one run.
    #[arg(long)]
    seconds: Option<u64>,
    /// Interleaved runs.
    #[arg(long)]
    repeats: Option<usize>,
    /// Once and shortly, for trying out.
    #[arg(long)]
    quick: bool,
    /// Put the report into this document; needs a full run.
    #[arg(long)]
    document: Option<PathBuf>,
    /// What to print as the command of the report.
    #[arg(long, default_value = "make bench-agent")]
    command: String,
    /// Where programs write while they are measured.
    #[arg(long, default_value = "target/bench-agent")]
    scratch: PathBuf,
}

impl Cli {
    fn scale(&self) -> Scale {
        let mut scale = if self.quick {
            Scale::QUICK
        } else {
            Scale::FULL
        };
        if let Some(seconds) = self.seconds {
            scale.window = Duration::from_secs(seconds);
        }
        if let Some(repeats) = self.repeats {
            scale.repeats = repeats;
        }
        scale
    }

    /// Whether everything is measured, and as long as the bars ask.
    fn is_full(&self) -> bool {
        let shortened = self.quick || self.seconds.is_some() || self.repeats.is_some();
        !shortened && self.only.is_empty() && self.peers.is_empty() && self.part.is_some()
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            for failure in failures {
                eprintln!("bench: failed: {failure}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Outcome<Vec<String>> {
    let begun = Instant::now();
    let load = machine::load_average();
    let (mut peers, missing) = peers::find(&std::path::absolute(&cli.agent)?)?;
    peers.retain(|peer| cli.peers.is_empty() || cli.peers.contains(&peer.kind));
    let scratch = std::path::absolute(&cli.scratch)?.join(std::process::id().to_string());
    std::fs::create_dir_all(&scratch)?;
    let cores = Cores::find()?;
    if let Some(cores) = cores {
        cores.help()?;
    }
    let bench = Bench {
        peers: peers.clone(),
        place: Place {
            cores,
            scratch: scratch.clone(),
        },
        scale: cli.scale(),
    };
    let report = measure(&bench, cli)?;
    // Logs stay where something has failed.
    if report.failures.is_empty() {
        std::fs::remove_dir_all(&scratch)?;
    }
    let about = About {
        command: cli.command.clone(),
        machine: machine::description(),
        load,
        pinning: match cores {
            Some(_) => {
                "The measured program had one core, load generator and sink another".to_owned()
            }
            None => "There is one core, which all programs shared".to_owned(),
        },
        peers,
        missing,
        took: begun.elapsed(),
    };
    let section = report.section(&about);
    println!("{section}");
    if let Some(document) = &cli.document {
        if let Some(part) = cli.part.filter(|_| cli.is_full()) {
            report::write(document, part.name(), &section)?;
        } else {
            let name = document.display();
            eprintln!("bench: {name} is left as it is: not a full run");
        }
    }
    Ok(report.failures)
}

fn measure(bench: &Bench, cli: &Cli) -> Outcome<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::default();
    for scenario in Scenario::value_variants() {
        let wanted = cli.only.is_empty() || cli.only.contains(scenario);
        if wanted && cli.part.is_none_or(|part| part.has(*scenario)) {
            let local = LocalSet::new();
            match local.block_on(&runtime, scenario.run(bench)) {
                Ok(part) => report.add(part),
                Err(error) => report.failures.push(format!("{scenario:?}: {error}")),
            }
        }
    }
    Ok(report)
}
