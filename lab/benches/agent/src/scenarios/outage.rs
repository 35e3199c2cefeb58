//! The upstream is away for long and comes back, with the queue on disk: nothing may be missing, and
//! what waits must wait on disk, not in memory.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::{Bench, progress, queue_dir};
use crate::Outcome;
use crate::ledger::Balance;
use crate::load::{Clients, Transport};
use crate::peers::{Kind, Peer, Setup, free_port};
use crate::report::{Line, Report, Verdict, grouped, mib};
use crate::sink::{Behaviour, Sink};
use crate::telemetry::{Encoding, Stock};

const CLIENTS: usize = 4;
const REQUESTS_PER_SECOND: u32 = 200;
const SPANS_PER_REQUEST: u8 = 10;

/// As deployed.
const LIMIT_MIB: u64 = 64;

/// What the index of a queue on disk, and what is being sent, may take.
const EXTRA_MIB: f64 = 8.0;

struct Sample {
    balance: Balance,
    /// Peaks of resident memory, in MiB: with the upstream there, away, and back.
    before: f64,
    away: f64,
    back: f64,
    /// Bytes of a span as it arrives, and on disk by the end of the absence.
    span: f64,
    on_disk: f64,
}

pub(super) async fn run(bench: &Bench) -> Outcome<Report> {
    let ours = bench.peers.iter().find(|peer| peer.kind == Kind::Otelagent);
    let peer = ours.ok_or("no agent")?;
    let minutes = bench.scale.away.as_secs_f64() / 60.0;
    let mut line = Line {
        measure: format!(
            "upstream away {minutes:.1} minutes and back, queue on disk: missing / extra memory"
        ),
        bar: format!("0 / ≤ {EXTRA_MIB} MiB"),
        figures: Vec::new(),
        ratio: String::new(),
        verdict: Verdict::Open,
    };
    let mut report = Report::default();
    let mut size = Line {
        measure: "bytes on disk for each span that waits".to_owned(),
        bar: "≤ a quarter".to_owned(),
        figures: Vec::new(),
        ratio: String::new(),
        verdict: Verdict::Open,
    };
    match sample(bench, peer).await {
        Ok(sample) => {
            let figure = format!("{:.0} of {:.0}", sample.on_disk, sample.span);
            size.figures.push((Kind::Otelagent, figure));
            size.verdict = Verdict::from(sample.on_disk <= sample.span / 4.0);
            let balance = sample.balance;
            let extra = sample.back.max(sample.away) - sample.before;
            let lost = balance.missing + balance.foreign;
            let summary = format!("{} / {extra:.1} MiB", balance.missing);
            line.figures.push((Kind::Otelagent, summary));
            line.verdict = Verdict::from(lost == 0 && extra <= EXTRA_MIB);
            if lost > 0 {
                report
                    .failures
                    .push(format!("{}: {balance:?}", line.measure));
            }
            report.details.push(format!(
                "Upstream away: {} spans a second, {} acknowledged, {} received, {} missing, {} duplicates; peak RSS \
                 {:.1} MiB with the upstream there, {:.1} MiB by the end of its absence, {:.1} MiB by the time all was \
                 delivered.",
                grouped(f64::from(REQUESTS_PER_SECOND) * f64::from(SPANS_PER_REQUEST)),
                balance.acked,
                balance.received,
                balance.missing,
                balance.duplicates,
                sample.before,
                sample.away,
                sample.back
            ));
        }
        Err(error) => report
            .details
            .push(format!("Upstream away could not be measured: {error}")),
    }
    for detail in &report.details {
        progress(detail);
    }
    report.lines.push(line);
    report.lines.push(size);
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "printed without decimals")]
fn decimal(count: u64) -> f64 {
    count as f64
}

/// The bytes of all files in a directory.
fn size_of(directory: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        bytes += if entry.file_type()?.is_dir() {
            size_of(&path)?
        } else {
            // It may have been compressed meanwhile.
            entry.metadata().map_or(0, |metadata| metadata.len())
        };
    }
    Ok(bytes)
}

async fn sample(bench: &Bench, peer: &Peer) -> Outcome<Sample> {
    let sink = Sink::start(free_port()?)?;
    let mut setup = Setup::new(sink.address)?;
    setup.limit_mib = LIMIT_MIB;
    let directory = queue_dir(bench)?;
    setup.disk = Some(directory.clone());
    setup.queue_bytes = 4 << 30;
    let running = peer.start(&setup, &bench.place).await?;
    let target = running.target(Transport::Grpc, Encoding::Identity);
    let stock = Stock::numbered(SPANS_PER_REQUEST.into(), Encoding::Identity)?;
    let request = Stock::numbered(SPANS_PER_REQUEST.into(), Encoding::Identity)?.draw()?;
    let span = decimal(u64::try_from(request.message().len())?) / f64::from(SPANS_PER_REQUEST);
    let clients = Clients::start(target, stock, CLIENTS, REQUESTS_PER_SECOND)?;
    sleep((bench.scale.away / 20).max(Duration::from_secs(5))).await;
    let before = mib(running.memory()?.peak);
    sink.behave(Behaviour::Away);
    let acked = clients.acked();
    sleep(bench.scale.away).await;
    let away = mib(running.memory()?.peak);
    let waiting = decimal(clients.acked() - acked) * f64::from(SPANS_PER_REQUEST);
    let on_disk = decimal(size_of(&directory)?) / waiting;
    sink.behave(Behaviour::Take);
    // Until the backlog is gone new spans go on arriving, as in life; then until all is quiet.
    sleep(Duration::from_secs(5)).await;
    let mut tally = clients.stop(Duration::from_secs(30)).await?;
    sink.quiet(Duration::from_secs(4), Duration::from_mins(5))
        .await;
    sink.settle(&mut tally.ledger);
    Ok(Sample {
        balance: tally.ledger.balance(),
        before,
        away,
        back: mib(running.memory()?.peak),
        span,
        on_disk,
    })
}
