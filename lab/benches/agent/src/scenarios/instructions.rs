//! Instructions the whole agent executes for one request, counted by callgrind: everything from the
//! socket to the compressed batch upstream. Unlike time they hardly depend on what else the machine
//! does, so they guard the hot path: more than a tenth above the reference fails.

use std::fs;
use std::time::Duration;

use super::{Bench, progress};
use crate::Outcome;
use crate::load::{Link, Reply, Transport};
use crate::peers::{Kind, Peer, Setup, free_port};
use crate::report::{Line, Report, Verdict, grouped};
use crate::sink::Sink;
use crate::telemetry::{Encoding, Stock};

/// Requests of the shorter of two runs; the longer has twice as many.
const REQUESTS: u64 = 300;

/// How far a count may rise above its reference.
const TOLERANCE: f64 = 0.10;

/// Below this share of the reference it should be lowered.
const STALE: f64 = 0.95;

const REFERENCE: &str = include_str!("../../instructions.toml");

pub(super) async fn run(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::default();
    let ours = bench.peers.iter().find(|peer| peer.kind == Kind::Otelagent);
    let peer = ours.ok_or("no agent")?;
    for (spans, encoding) in [
        (10, Encoding::Gzip),
        (100, Encoding::Gzip),
        (10, Encoding::Identity),
        (100, Encoding::Identity),
    ] {
        let outward = match encoding {
            Encoding::Gzip => Encoding::Gzip,
            _ => Encoding::Zstd,
        };
        let name = format!("{}_{}_{spans}", encoding.name(), outward.name());
        let reference = reference(&name)?;
        let mut line = Line {
            measure: format!(
                "instructions of one request, {} in, {} out, {spans} spans",
                encoding.name(),
                outward.name()
            ),
            bar: format!(
                "≤ reference + 10 %: {}",
                grouped(reference * (1.0 + TOLERANCE))
            ),
            figures: Vec::new(),
            ratio: String::new(),
            verdict: Verdict::Open,
        };
        match count(bench, peer, spans, encoding, outward).await {
            Ok(counted) => {
                progress(&format!("instructions, {name}: {}", grouped(counted)));
                line.figures.push((Kind::Otelagent, grouped(counted)));
                line.ratio = format!("{:.2} of the reference", counted / reference);
                line.verdict = Verdict::from(counted <= reference * (1.0 + TOLERANCE));
                report.failures.extend(complaint(&name, counted, reference));
            }
            Err(error) => {
                progress(&format!("instructions: {error}"));
                report
                    .details
                    .push(format!("Instructions were not counted: {error}"));
            }
        }
        report.lines.push(line);
    }
    Ok(report)
}

/// Why the benchmark fails, if it does; a reference that is too high by now is only mentioned.
fn complaint(name: &str, counted: f64, reference: f64) -> Option<String> {
    if counted < reference * STALE {
        progress(&format!(
            "{name} has become cheaper: note {counted:.0} in benches/agent/instructions.toml"
        ));
    }
    (counted > reference * (1.0 + TOLERANCE)).then(|| {
        format!(
            "{name} takes {} instructions, {} were noted; if that is meant, change \
             benches/agent/instructions.toml and say why",
            grouped(counted),
            grouped(reference)
        )
    })
}

fn reference(name: &str) -> Outcome<f64> {
    let lines = REFERENCE.lines().filter_map(|line| line.split_once('='));
    let found = lines
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| *key == name);
    let (_, value) = found.ok_or_else(|| format!("instructions.toml has no {name}"))?;
    Ok(value.replace('_', "").parse()?)
}

/// The difference between two runs, so that start and end do not count.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn count(
    bench: &Bench,
    peer: &Peer,
    spans: usize,
    encoding: Encoding,
    outward: Encoding,
) -> Outcome<f64> {
    let mut totals = Vec::new();
    for requests in [REQUESTS, REQUESTS * 2] {
        let mut setup = Setup::new(free_port()?)?;
        setup.encoding = outward;
        // Batches are cut by size alone: where time cut them would differ from run to run.
        setup.flush_ms = 600_000;
        totals.push(total(bench, peer, &setup, (spans, encoding), requests).await?);
    }
    match totals.as_slice() {
        [short, long] => Ok((long - short) as f64 / REQUESTS as f64),
        _ => Err("not counted".into()),
    }
}

async fn total(
    bench: &Bench,
    peer: &Peer,
    setup: &Setup,
    (spans, encoding): (usize, Encoding),
    requests: u64,
) -> Outcome<i64> {
    let sink = Sink::start(setup.upstream)?;
    let out = bench.place.scratch.join("callgrind.out");
    let _ = fs::remove_file(&out);
    let file = format!("--callgrind-out-file={}", out.display());
    let wrapper = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        // The agent starts itself again once.
        "--trace-children=yes",
        &file,
    ];
    let spawned = peer.spawn_under(&wrapper, setup, &bench.place);
    let mut running = spawned.map_err(|error| format!("valgrind does not start: {error}"))?;
    running.accepting().await?;
    let link = Link::new(running.target(Transport::Grpc, encoding))?;
    let mut stock = Stock::ring(spans, encoding)?;
    for _ in 0..requests {
        let reply = link.send(&stock.draw()?).await;
        if reply != Reply::Acked {
            return Err(running.complain(&format!("{reply:?}")));
        }
    }
    drop(link);
    running.terminate()?;
    running.end(Duration::from_mins(2)).await?;
    let mut ledger = crate::ledger::Ledger::default();
    let arrived = sink.settle(&mut ledger);
    if arrived.spans != requests * spans as u64 {
        return Err(format!("only {} spans arrived", arrived.spans).into());
    }
    let text = fs::read_to_string(&out)?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals:"));
    Ok(totals.ok_or("callgrind noted no total")?.trim().parse()?)
}
