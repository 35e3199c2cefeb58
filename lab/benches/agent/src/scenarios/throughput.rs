//! Spans per CPU second: as much as a program takes, from the first request until everything is
//! upstream, divided by the CPU time the kernel counted for it. Only what arrived counts.

use std::time::Duration;

use super::{Bench, blemishes, progress, times};
use crate::Outcome;
use crate::load::{self, Transport};
use crate::peers::{Kind, Peer, Setup, free_port};
use crate::report::{Line, Report, grouped, median};
use crate::sink::Sink;
use crate::telemetry::{Encoding, Stock};

/// Connections, and requests in flight on each.
const SHAPE: (usize, usize) = (4, 8);

/// What arrives this late does not arrive.
const DRAIN: Duration = Duration::from_mins(1);
const QUIET: Duration = Duration::from_millis(1500);

struct Case {
    spans: usize,
    inward: Encoding,
    outward: Encoding,
    /// Towards the upstream. The collector sends over HTTP at level 1, over gRPC it has no choice of a level.
    exporter: Transport,
    bars: &'static [(Kind, f64)],
}

const GZIP: &[(Kind, f64)] = &[(Kind::Collector, 5.0), (Kind::Rotel, 2.0)];
const GZIP_LEVEL_1: &[(Kind, f64)] = &[(Kind::Collector, 4.0)];
const ZSTD_SMALL: &[(Kind, f64)] = &[(Kind::Collector, 5.0)];
const ZSTD_LARGE: &[(Kind, f64)] = &[(Kind::Collector, 6.5)];

const CASES: [Case; 6] = [
    Case {
        spans: 10,
        inward: Encoding::Gzip,
        outward: Encoding::Gzip,
        exporter: Transport::Grpc,
        bars: GZIP,
    },
    Case {
        spans: 100,
        inward: Encoding::Gzip,
        outward: Encoding::Gzip,
        exporter: Transport::Grpc,
        bars: GZIP,
    },
    Case {
        spans: 10,
        inward: Encoding::Gzip,
        outward: Encoding::Gzip,
        exporter: Transport::Http,
        bars: GZIP_LEVEL_1,
    },
    Case {
        spans: 100,
        inward: Encoding::Gzip,
        outward: Encoding::Gzip,
        exporter: Transport::Http,
        bars: GZIP_LEVEL_1,
    },
    Case {
        spans: 10,
        inward: Encoding::Identity,
        outward: Encoding::Zstd,
        exporter: Transport::Grpc,
        bars: ZSTD_SMALL,
    },
    Case {
        spans: 100,
        inward: Encoding::Identity,
        outward: Encoding::Zstd,
        exporter: Transport::Grpc,
        bars: ZSTD_LARGE,
    },
];

impl Case {
    fn name(&self) -> String {
        let exporter = match self.exporter {
            Transport::Grpc => "out",
            Transport::Http => "at level 1 out over HTTP",
        };
        format!(
            "gRPC, {} in, {} {exporter}, {} spans a request",
            self.inward.name(),
            self.outward.name(),
            self.spans
        )
    }

    /// Whether this program can be measured.
    fn has(&self, kind: Kind) -> bool {
        match self.exporter {
            Transport::Grpc => kind.sends(self.outward),
            Transport::Http => matches!(kind, Kind::Otelagent | Kind::Collector),
        }
    }

    fn bar(&self) -> String {
        let bars = self.bars.iter();
        let summaries: Vec<_> = bars
            .map(|(peer, bar)| format!("≥ {bar} × {}", peer.name()))
            .collect();
        summaries.join(", ")
    }
}

/// One run of one program.
struct Sample {
    per_cpu_second: f64,
    per_second: f64,
    bytes_per_span: f64,
    spans_per_request: f64,
    blemishes: String,
}

pub(super) async fn run(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::default();
    let mut details = String::from(
        "Throughput in detail (medians; rates are those of one saturated core that does everything):\n\n\
         | case | program | spans per CPU second, every run | spans/s | bytes a span upstream | spans a request upstream | remarks |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for case in &CASES {
        let mut samples: Vec<(Kind, Vec<Sample>)> = Vec::new();
        for round in 0..bench.scale.repeats {
            for peer in bench.peers.iter().filter(|peer| case.has(peer.kind)) {
                let sample = match sample(bench, case, peer).await {
                    Ok(sample) => sample,
                    Err(error) => {
                        let name = peer.kind.name();
                        progress(&format!("throughput, {name}: {error}"));
                        let case = case.name();
                        report
                            .details
                            .push(format!("Throughput of {name}, {case}: {error}"));
                        continue;
                    }
                };
                progress(&format!(
                    "throughput {round}, {}: {} {} spans per CPU second, {} spans/s {}",
                    case.name(),
                    peer.kind.name(),
                    grouped(sample.per_cpu_second),
                    grouped(sample.per_second),
                    sample.blemishes
                ));
                match samples.iter_mut().find(|(kind, _)| *kind == peer.kind) {
                    Some((_, samples)) => samples.push(sample),
                    None => samples.push((peer.kind, vec![sample])),
                }
            }
        }
        report.lines.push(line(case, &samples));
        for (kind, samples) in &samples {
            details.push_str(&detail(case, *kind, samples));
        }
    }
    report.details.push(details);
    Ok(report)
}

fn medians(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(&samples.iter().map(figure).collect::<Vec<_>>())
}

fn line(case: &Case, samples: &[(Kind, Vec<Sample>)]) -> Line {
    let figures: Vec<_> = samples
        .iter()
        .map(|(kind, samples)| (*kind, medians(samples, |sample| sample.per_cpu_second)))
        .collect();
    let (ratio, verdict) = times(&figures, case.bars);
    // A ratio says little where one program compresses less than the other.
    let sizes = samples.iter().map(|(kind, samples)| {
        let bytes = medians(samples, |sample| sample.bytes_per_span);
        format!("{} {bytes:.0}", kind.name())
    });
    let sizes: Vec<_> = sizes.collect();
    let ratio = format!("{ratio}; bytes a span: {}", sizes.join(", "));
    let summaries = figures
        .iter()
        .map(|(kind, figure)| (*kind, grouped(*figure)));
    let cannot = Kind::ALL
        .into_iter()
        .filter(|kind| !case.has(*kind) && !kind.sends(case.outward));
    Line {
        measure: format!("spans per CPU second: {}", case.name()),
        bar: case.bar(),
        figures: summaries
            .chain(cannot.map(|kind| (kind, format!("sends no {}", case.outward.name()))))
            .collect(),
        ratio,
        verdict,
    }
}

fn detail(case: &Case, kind: Kind, samples: &[Sample]) -> String {
    let runs: Vec<_> = samples
        .iter()
        .map(|sample| grouped(sample.per_cpu_second))
        .collect();
    let remarks: Vec<_> = samples
        .iter()
        .map(|sample| sample.blemishes.as_str())
        .filter(|remark| !remark.is_empty())
        .collect();
    format!(
        "| {} | {} | {} | {} | {:.0} | {} | {} |\n",
        case.name(),
        kind.name(),
        runs.join(" / "),
        grouped(medians(samples, |sample| sample.per_second)),
        medians(samples, |sample| sample.bytes_per_span),
        grouped(medians(samples, |sample| sample.spans_per_request)),
        remarks.join("; ")
    )
}

#[expect(
    clippy::cast_precision_loss,
    reason = "millions, printed without decimals"
)]
async fn sample(bench: &Bench, case: &Case, peer: &Peer) -> Outcome<Sample> {
    let sink = Sink::start(free_port()?)?;
    let mut setup = Setup::new(sink.address)?;
    setup.encoding = case.outward;
    setup.exporter = case.exporter;
    let running = peer.start(&setup, &bench.place).await?;
    let target = running.target(Transport::Grpc, case.inward);
    let stock = Stock::ring(case.spans, case.inward)?;
    let before = running.cpu()?;
    let (mut tally, _) = load::saturate(target, stock, SHAPE, bench.scale.window).await?;
    let fell_quiet = sink.quiet(QUIET, DRAIN).await;
    let cpu = running.cpu()?.saturating_sub(before);
    drop(running);
    let arrived = sink.settle(&mut tally.ledger);
    if arrived.spans == 0 {
        let why = tally.complaint.unwrap_or_default();
        return Err(format!("nothing arrived through {}: {why}", peer.kind.name()).into());
    }
    let mut blemishes = blemishes(&tally, arrived);
    if !fell_quiet {
        blemishes.push_str(", still sending after a minute");
    }
    let spans = arrived.spans as f64;
    Ok(Sample {
        per_cpu_second: spans / cpu.as_secs_f64().max(0.01),
        per_second: spans / bench.scale.window.as_secs_f64(),
        bytes_per_span: arrived.bytes as f64 / spans,
        spans_per_request: spans / arrived.requests.max(1) as f64,
        blemishes,
    })
}
