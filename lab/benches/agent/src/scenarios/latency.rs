//! Time from when a request was due until it was acknowledged, at a rate far below saturation, with
//! the queue on disk where there is one.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Bench, blemishes, progress, queue_dir};
use crate::Outcome;
use crate::ledger::Ledger;
use crate::load::{self, Rate, Target, Transport};
use crate::peers::{Kind, Peer, Setup, free_port};
use crate::report::{Line, Report, Verdict, median, time};
use crate::sink::{Arrived, Sink};
use crate::telemetry::{Encoding, Stock};

const RATE: Rate = Rate {
    per_second: 1000.0,
    connections: 4,
    at_most: 1000,
    precise: true,
    warm_up: Duration::from_secs(1),
};

const BAR: Duration = Duration::from_millis(1);

struct Sample {
    p50: Duration,
    p99: Duration,
    max: Duration,
}

/// Another sender that sends as much as it is let: five times as many requests, on as many connections as a pod with
/// several processes has.
const FLOOD: Rate = Rate {
    per_second: 5000.0,
    connections: 6,
    at_most: 64,
    precise: false,
    warm_up: Duration::ZERO,
};
const FLOODING: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

pub(super) async fn run(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::default();
    for flooded in [false, true] {
        let (line, remarks) = measure(bench, flooded).await;
        report.lines.push(line);
        report.details.extend(remarks);
    }
    Ok(report)
}

async fn measure(bench: &Bench, flooded: bool) -> (Line, Vec<String>) {
    let mut samples: Vec<(Kind, Vec<Sample>)> = Vec::new();
    let mut remarks = Vec::new();
    for round in 0..bench.scale.repeats {
        for peer in &bench.peers {
            let name = peer.kind.name();
            let (sample, blemishes) = match sample(bench, peer, flooded).await {
                Ok(found) => found,
                Err(error) => {
                    progress(&format!("latency, {name}: {error}"));
                    remarks.push(format!("Latency of {name} could not be measured: {error}"));
                    continue;
                }
            };
            progress(&format!(
                "latency {round}, flooded {flooded}, {name}: p50 {}, p99 {}, max {} {blemishes}",
                time(sample.p50),
                time(sample.p99),
                time(sample.max)
            ));
            if !blemishes.is_empty() {
                remarks.push(format!("Latency, run {round} of {name}: {blemishes}."));
            }
            match samples.iter_mut().find(|(kind, _)| *kind == peer.kind) {
                Some((_, samples)) => samples.push(sample),
                None => samples.push((peer.kind, vec![sample])),
            }
        }
    }
    (line(&samples, flooded), remarks)
}

fn middle(samples: &[Sample], figure: impl Fn(&Sample) -> Duration) -> Duration {
    let seconds: Vec<_> = samples
        .iter()
        .map(|sample| figure(sample).as_secs_f64())
        .collect();
    Duration::from_secs_f64(median(&seconds))
}

fn line(samples: &[(Kind, Vec<Sample>)], flooded: bool) -> Line {
    let figures = samples.iter().map(|(kind, samples)| {
        let figure = |of: fn(&Sample) -> Duration| time(middle(samples, of));
        let queue = if kind.has_disk() {
            ""
        } else {
            ", queue in memory"
        };
        let summary = format!(
            "{} / {} / {}{queue}",
            figure(|sample| sample.p50),
            figure(|sample| sample.p99),
            figure(|sample| sample.max)
        );
        (*kind, summary)
    });
    let p99 = |samples: &[Sample]| middle(samples, |sample| sample.p99);
    let ours = samples.iter().find(|(kind, _)| *kind == Kind::Otelagent);
    let best_peer = samples
        .iter()
        .filter(|(kind, _)| *kind != Kind::Otelagent)
        .map(|(_, samples)| p99(samples))
        .min();
    let (ratio, verdict) = match (ours.map(|(_, samples)| p99(samples)), best_peer) {
        (Some(ours), Some(best)) => (
            format!(
                "{:.2} of the best peer's",
                ours.as_secs_f64() / best.as_secs_f64()
            ),
            Verdict::from(ours < BAR && ours < best),
        ),
        _ => (String::new(), Verdict::Open),
    };
    let beside = if flooded {
        ", beside a sender of 5,000 requests/s"
    } else {
        ""
    };
    Line {
        measure: format!(
            "acknowledge latency at 1,000 requests/s of 10 spans, queue on disk{beside}: p50 / p99 / max"
        ),
        bar: "p99 < 1 ms and below every peer".to_owned(),
        figures: figures.collect(),
        ratio,
        verdict,
    }
}

async fn sample(bench: &Bench, peer: &Peer, flooded: bool) -> Outcome<(Sample, String)> {
    let sink = Sink::start(free_port()?)?;
    let mut setup = Setup::new(sink.address)?;
    if peer.kind.has_disk() {
        setup.disk = Some(queue_dir(bench)?);
        setup.queue_bytes = 1 << 30;
    }
    let running = peer.start(&setup, &bench.place).await?;
    let target = running.target(Transport::Grpc, Encoding::Identity);
    let stock = Stock::ring(10, Encoding::Identity)?;
    let duration = RATE.warm_up + bench.scale.window;
    let quiet = load::at_rate(target, stock, RATE, duration);
    let (mut tally, _) = if flooded {
        // Numbered apart from the other's, and not counted: some of it may be refused.
        let others = Stock::ring(10, Encoding::Identity)?;
        let from = Target {
            from: Some(FLOODING),
            ..target
        };
        let flood = load::at_rate(from, others, FLOOD, duration);
        let (quiet, _) = tokio::join!(quiet, flood);
        quiet?
    } else {
        quiet.await?
    };
    sink.quiet(Duration::from_secs(1), Duration::from_secs(20))
        .await;
    drop(running);
    let arrived = if flooded {
        // Spans of the two cannot be told apart.
        tally.ledger = Ledger::default();
        Arrived::default()
    } else {
        sink.settle(&mut tally.ledger)
    };
    if tally.acked == 0 {
        return Err(tally.complaint.unwrap_or_default().into());
    }
    let sample = Sample {
        p50: tally.percentile(50.0),
        p99: tally.percentile(99.0),
        max: tally.percentile(100.0),
    };
    Ok((sample, blemishes(&tally, arrived)))
}
