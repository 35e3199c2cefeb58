//! Time from right before the program is executed until its first span is acknowledged.

use std::time::Duration;

use tokio::task::yield_now;

use super::{Bench, progress};
use crate::Outcome;
use crate::load::{Link, Reply, Transport};
use crate::peers::{Kind, Peer, Setup, free_port};
use crate::report::{Line, Report, Verdict, median, time};
use crate::sink::Sink;
use crate::telemetry::{Encoding, Stock};

const BAR: Duration = Duration::from_millis(10);

/// A program that takes nothing by then is broken.
const AT_MOST: Duration = Duration::from_secs(20);

pub(super) async fn run(bench: &Bench) -> Outcome<Report> {
    let sink = Sink::start(free_port()?)?;
    let mut samples: Vec<(Kind, Vec<f64>)> = Vec::new();
    for _ in 0..bench.scale.starts {
        for peer in &bench.peers {
            let took = sample(bench, peer, &sink).await?.as_secs_f64();
            match samples.iter_mut().find(|(kind, _)| *kind == peer.kind) {
                Some((_, samples)) => samples.push(took),
                None => samples.push((peer.kind, vec![took])),
            }
        }
    }
    let middle = |samples: &[f64]| Duration::from_secs_f64(median(samples));
    for (kind, samples) in &samples {
        progress(&format!(
            "start, {}: {}",
            kind.name(),
            time(middle(samples))
        ));
    }
    let of = |kind| {
        let found = samples.iter().find(|(of, _)| *of == kind);
        found.map(|(_, samples)| middle(samples))
    };
    let ours = of(Kind::Otelagent);
    let ratio = match (ours, of(Kind::Collector)) {
        (Some(ours), Some(theirs)) => {
            format!(
                "{:.2} of collector",
                ours.as_secs_f64() / theirs.as_secs_f64()
            )
        }
        _ => String::new(),
    };
    let line = Line {
        measure: format!(
            "exec to first acknowledged span, median of {} starts",
            bench.scale.starts
        ),
        bar: "< 10 ms".to_owned(),
        figures: samples
            .iter()
            .map(|(kind, samples)| (*kind, time(middle(samples))))
            .collect(),
        ratio,
        verdict: ours.map_or(Verdict::Open, |ours| Verdict::from(ours < BAR)),
    };
    Ok(Report {
        lines: vec![line],
        ..Report::default()
    })
}

async fn sample(bench: &Bench, peer: &Peer, sink: &Sink) -> Outcome<Duration> {
    let setup = Setup::new(sink.address)?;
    let request = Stock::numbered(1, Encoding::Identity)?.draw()?;
    let running = peer.spawn(&setup, &bench.place)?;
    let link = Link::new(running.target(Transport::Grpc, Encoding::Identity))?;
    while running.begun.elapsed() < AT_MOST {
        if link.send(&request).await == Reply::Acked {
            return Ok(running.begun.elapsed());
        }
        yield_now().await;
    }
    Err(running.complain("takes nothing"))
}
