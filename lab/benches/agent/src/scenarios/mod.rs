//! What is measured, one file each. Every scenario starts its programs anew, waits for nothing without
//! bound, and leaves nothing running.

mod image;
mod instructions;
mod kill;
mod latency;
mod memory;
mod outage;
mod start;
mod throughput;

use std::fs;
use std::time::Duration;

use crate::Outcome;
use crate::load::Tally;
use crate::peers::{Kind, Peer, Place};
use crate::report::{Report, Verdict};
use crate::sink::Arrived;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Interleaved runs of what is measured by time.
    pub repeats: usize,
    /// Load of one such run.
    pub window: Duration,
    /// How long the upstream is stopped under overload.
    pub overload: Duration,
    /// Starts that are timed.
    pub starts: usize,
    /// Ends by SIGKILL, and by SIGTERM.
    pub deaths: usize,
    /// How long the upstream is away.
    pub away: Duration,
}

impl Scale {
    /// As the bars ask.
    pub const FULL: Self = Self {
        repeats: 3,
        window: Duration::from_secs(8),
        overload: Duration::from_mins(1),
        starts: 20,
        deaths: 50,
        away: Duration::from_mins(10),
    };

    /// For trying out; says little.
    pub const QUICK: Self = Self {
        repeats: 1,
        window: Duration::from_secs(3),
        overload: Duration::from_secs(6),
        starts: 3,
        deaths: 5,
        away: Duration::from_secs(20),
    };
}

/// What every scenario gets.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The programs.
    pub peers: Vec<Peer>,
    /// Where they run.
    pub place: Place,
    /// How long.
    pub scale: Scale,
}

/// The scenarios by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Spans per CPU second.
    Throughput,
    /// Time to an acknowledgement.
    Latency,
    /// Resident memory.
    Memory,
    /// Time from exec to the first acknowledged span.
    Start,
    /// Size of the image.
    Image,
    /// SIGKILL under load, queue on disk.
    Kill,
    /// SIGTERM under load, clients that retry.
    Terminate,
    /// Instructions of one request.
    Instructions,
    /// The upstream away for long, queue on disk.
    Away,
}

/// What is written together: costs need an idle machine, losses do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// CPU, time, memory, size.
    Costs,
    /// What is missing after agents have died.
    Losses,
    /// What is missing after the upstream was away.
    Outage,
}

impl Part {
    /// Its name in the document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Costs => "costs",
            Self::Losses => "losses",
            Self::Outage => "outage",
        }
    }

    /// Whether it holds a scenario.
    pub fn has(self, scenario: Scenario) -> bool {
        let of = match scenario {
            Scenario::Kill | Scenario::Terminate => Self::Losses,
            Scenario::Away => Self::Outage,
            _ => Self::Costs,
        };
        self == of
    }
}

impl Scenario {
    /// Runs it.
    pub async fn run(self, bench: &Bench) -> Outcome<Report> {
        match self {
            Self::Throughput => throughput::run(bench).await,
            Self::Latency => latency::run(bench).await,
            Self::Memory => memory::run(bench).await,
            Self::Start => start::run(bench).await,
            Self::Image => image::run(bench),
            Self::Kill => kill::run(bench, kill::Death::Kill).await,
            Self::Terminate => kill::run(bench, kill::Death::Terminate).await,
            Self::Instructions => instructions::run(bench).await,
            Self::Away => outage::run(bench).await,
        }
    }
}

/// A directory for one queue, emptied.
fn queue_dir(bench: &Bench) -> Outcome<std::path::PathBuf> {
    let dir = bench.place.scratch.join("queue");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(dir)
}

/// Says on stderr what happens; the report goes to stdout.
fn progress(text: &str) {
    eprintln!("bench: {text}");
}

/// What went wrong with a load, in brackets behind its figure; nothing where nothing did.
fn blemishes(tally: &Tally, arrived: Arrived) -> String {
    let balance = tally.ledger.balance();
    let counts = [
        ("missing", balance.missing),
        ("duplicates", balance.duplicates),
        ("altered", balance.foreign),
        ("unreadable", arrived.unreadable),
        ("refused", tally.refused),
        ("unanswered", tally.unanswered),
        ("refused for good", tally.permanent),
        ("skipped", tally.skipped),
    ];
    let summaries: Vec<_> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    summaries.join(", ")
}

/// The figure of one program, if it was measured.
fn of(figures: &[(Kind, f64)], kind: Kind) -> Option<f64> {
    let found = figures.iter().find(|(of, _)| *of == kind);
    found
        .map(|(_, figure)| *figure)
        .filter(|figure| *figure > 0.0)
}

/// How many times a peer's figure the agent's is, and whether that is enough. A peer that could not be
/// measured leaves the bar open.
fn times(figures: &[(Kind, f64)], bars: &[(Kind, f64)]) -> (String, Verdict) {
    let mut summaries = Vec::new();
    let mut verdict = Verdict::Met;
    for (peer, bar) in bars {
        match (of(figures, Kind::Otelagent), of(figures, *peer)) {
            (Some(ours), Some(theirs)) => {
                let ratio = ours / theirs;
                summaries.push(format!("{ratio:.1} × {}", peer.name()));
                if ratio < *bar {
                    verdict = Verdict::NotMet;
                }
            }
            _ if verdict == Verdict::Met => verdict = Verdict::Open,
            _ => {}
        }
    }
    (summaries.join(", "), verdict)
}
