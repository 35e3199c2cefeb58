//! Resident memory: idle, under a steady load, and under twice what the program can take while the
//! upstream is stopped: first silent, then away.

use std::time::Duration;

use tokio::time::sleep;

use super::{Bench, progress};
use crate::Outcome;
use crate::load::{self, Rate, Transport};
use crate::peers::{Kind, Peer, Running, Setup, free_port};
use crate::report::{Line, Report, Verdict, grouped, mib};
use crate::sink::{Behaviour, Sink};
use crate::telemetry::{Encoding, Stock};

/// As deployed.
const LIMIT_MIB: u64 = 64;

const IDLE_BAR: f64 = 5.0;
const LOADED_BAR: f64 = 24.0;
const OVERLOAD_BAR: f64 = 64.0 * 1.1;

/// A program that holds more is ended, before it takes the whole machine.
const TOO_MUCH_MIB: f64 = 4096.0;

const STEADY: Rate = Rate {
    per_second: 1000.0,
    connections: 4,
    at_most: 1000,
    precise: false,
    warm_up: Duration::ZERO,
};

/// MiB.
struct Sample {
    kind: Kind,
    idle: f64,
    loaded: f64,
    overload: f64,
    offered: f64,
    /// Share of what was offered that was taken; none where the program had to be ended.
    taken: Option<f64>,
}

impl Sample {
    fn summary(&self) -> String {
        let outcome = match self.taken {
            Some(share) => format!("took {:.1} % of it", share * 100.0),
            None => "was ended before it took the whole machine".to_owned(),
        };
        format!(
            "{}: idle {:.1} MiB, 10,000 spans/s {:.1} MiB, overload {:.1} MiB; offered {} spans/s while the upstream \
             was stopped, twice what it had taken before, it {outcome}",
            self.kind.name(),
            self.idle,
            self.loaded,
            self.overload,
            grouped(self.offered)
        )
    }
}

pub(super) async fn run(bench: &Bench) -> Outcome<Report> {
    let mut samples = Vec::new();
    let mut details = String::new();
    for peer in &bench.peers {
        let name = peer.kind.name();
        match sample(bench, peer).await {
            Ok(sample) => {
                let summary = sample.summary();
                progress(&format!("memory, {summary}"));
                details = format!("{details}- Memory of {summary}.\n");
                samples.push(sample);
            }
            Err(error) => {
                progress(&format!("memory, {name}: {error}"));
                details = format!("{details}- Memory of {name} could not be measured: {error}\n");
            }
        }
    }
    let lines = vec![
        line("RSS, idle", IDLE_BAR, "< 5 MiB", &samples, |sample| {
            sample.idle
        }),
        line(
            "peak RSS, 10,000 spans/s",
            LOADED_BAR,
            "< 24 MiB",
            &samples,
            |sample| sample.loaded,
        ),
        line(
            &format!(
                "peak RSS, upstream stopped for {} s at 2 × saturation, limit {LIMIT_MIB} MiB",
                bench.scale.overload.as_secs()
            ),
            OVERLOAD_BAR,
            "≤ limit + 10 %",
            &samples,
            |sample| sample.overload,
        ),
    ];
    Ok(Report {
        lines,
        details: vec![details],
        ..Report::default()
    })
}

fn line(
    measure: &str,
    bar: f64,
    told_bar: &str,
    samples: &[Sample],
    figure: impl Fn(&Sample) -> f64,
) -> Line {
    let of = |kind| {
        let found = samples.iter().find(|sample| sample.kind == kind);
        found.map(&figure)
    };
    let ours = of(Kind::Otelagent);
    let ratio = match (ours, of(Kind::Collector)) {
        (Some(ours), Some(theirs)) => format!("{:.2} of collector", ours / theirs),
        _ => String::new(),
    };
    Line {
        measure: measure.to_owned(),
        bar: told_bar.to_owned(),
        figures: samples
            .iter()
            .map(|sample| (sample.kind, format!("{:.1} MiB", figure(sample))))
            .collect(),
        ratio,
        verdict: ours.map_or(Verdict::Open, |ours| Verdict::from(ours < bar)),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rates, printed without decimals"
)]
async fn sample(bench: &Bench, peer: &Peer) -> Outcome<Sample> {
    let sink = Sink::start(free_port()?)?;
    let mut setup = Setup::new(sink.address)?;
    setup.limit_mib = LIMIT_MIB;
    let running = peer.start(&setup, &bench.place).await?;
    sleep(Duration::from_secs(2)).await;
    let idle = mib(running.memory()?.now);

    let target = running.target(Transport::Grpc, Encoding::Gzip);
    let stock = Stock::ring(10, Encoding::Gzip)?;
    load::at_rate(target, stock, STEADY, bench.scale.window * 2).await?;
    let loaded = mib(running.memory()?.peak);

    let stock = Stock::ring(100, Encoding::Gzip)?;
    let seconds = bench.scale.window.as_secs_f64() / 2.0;
    let (tally, stock) =
        load::saturate(target, stock, (4, 8), Duration::from_secs_f64(seconds)).await?;
    let per_second = tally.acked as f64 * 2.0 / seconds;
    sink.settle(&mut crate::ledger::Ledger::default());
    let overload = Rate {
        per_second,
        connections: 16,
        at_most: 1024,
        precise: false,
        warm_up: Duration::ZERO,
    };
    let half = bench.scale.overload / 2;
    let stopped = async {
        sink.behave(Behaviour::Silent);
        let (silent, stock) = load::at_rate(target, stock, overload, half).await?;
        sink.behave(Behaviour::Away);
        let (away, _) = load::at_rate(target, stock, overload, half).await?;
        Outcome::Ok(Some(silent.acked_spans + away.acked_spans))
    };
    let acked = tokio::select! {
        acked = stopped => acked?,
        () = too_much(&running) => None,
    };
    let memory = running.memory().map_err(|_| running.complain("died"))?;
    let offered = per_second * 100.0;
    let seconds = bench.scale.overload.as_secs_f64();
    Ok(Sample {
        kind: peer.kind,
        idle,
        loaded,
        overload: mib(memory.peak),
        offered,
        taken: acked.map(|spans| spans as f64 / (offered * seconds)),
    })
}

/// Ends when the program holds too much.
async fn too_much(running: &Running) {
    while running
        .memory()
        .is_ok_and(|memory| mib(memory.now) < TOO_MUCH_MIB)
    {
        sleep(Duration::from_millis(200)).await;
    }
}
