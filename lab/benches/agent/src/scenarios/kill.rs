//! Ended again and again under load, at random moments, by clients that send again what was not
//! acknowledged. By SIGKILL with the queue on disk, the upstream away every third time so that there is
//! something to lose; by SIGTERM with the queue in memory. What was acknowledged must be upstream.

use std::time::Duration;

use tokio::time::sleep;

use super::{Bench, progress, queue_dir};
use crate::Outcome;
use crate::ledger::Balance;
use crate::load::{Clients, Transport};
use crate::peers::{Kind, Peer, Setup, free_port};
use crate::report::{Line, Report, Verdict, grouped};
use crate::sink::{Behaviour, Sink};
use crate::telemetry::{Encoding, Stock};

const CLIENTS: usize = 8;
const REQUESTS_PER_SECOND: u32 = 500;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// SIGKILL, queue on disk.
    Kill,
    /// SIGTERM, queue in memory.
    Terminate,
}

impl Death {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Terminate => "SIGTERM",
        }
    }

    fn concerns(self, kind: Kind) -> bool {
        self == Self::Terminate || kind.has_disk()
    }
}

pub(super) async fn run(bench: &Bench, death: Death) -> Outcome<Report> {
    let mut report = Report::default();
    let mut figures = Vec::new();
    let mut ours = None;
    for peer in bench.peers.iter().filter(|peer| death.concerns(peer.kind)) {
        let name = peer.kind.name();
        let balance = match sample(bench, peer, death).await {
            Ok(balance) => balance,
            Err(error) => {
                progress(&format!("{}, {name}: {error}", death.name()));
                let summary = format!("{} of {name} could not be measured: {error}", death.name());
                report.details.push(summary);
                continue;
            }
        };
        let summary = format!(
            "{} of {}",
            grouped(count(balance.missing)),
            grouped(count(balance.acked))
        );
        progress(&format!(
            "{}, {name}: missing {summary}, {balance:?}",
            death.name()
        ));
        report.details.push(format!(
            "{}, {name}: {} spans acknowledged, {} received, {} missing, {} duplicates, {} altered.",
            death.name(), balance.acked, balance.received, balance.missing, balance.duplicates, balance.foreign
        ));
        figures.push((peer.kind, summary));
        if peer.kind == Kind::Otelagent {
            ours = Some(balance);
        }
    }
    let what = match death {
        Death::Kill => "kill -9 at random, queue on disk",
        Death::Terminate => "SIGTERM under load, clients retry, queue in memory",
    };
    if let Some(balance) = ours.filter(|balance| balance.missing + balance.foreign > 0) {
        report.failures.push(format!("{what}: {balance:?}"));
    }
    let cannot = Kind::ALL.into_iter().filter(|kind| !death.concerns(*kind));
    figures.extend(cannot.map(|kind| (kind, "no queue on disk".to_owned())));
    report.lines.push(Line {
        measure: format!(
            "{what}, {} times: acknowledged spans missing upstream",
            bench.scale.deaths
        ),
        bar: "0".to_owned(),
        figures,
        ratio: String::new(),
        verdict: ours.map_or(Verdict::Open, |balance| {
            Verdict::from(balance.missing + balance.foreign == 0 && balance.acked > 0)
        }),
    });
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "printed without decimals")]
fn count(spans: u64) -> f64 {
    spans as f64
}

async fn sample(bench: &Bench, peer: &Peer, death: Death) -> Outcome<Balance> {
    let sink = Sink::start(free_port()?)?;
    let mut setup = Setup::new(sink.address)?;
    if death == Death::Kill {
        setup.disk = Some(queue_dir(bench)?);
        setup.queue_bytes = 1 << 30;
    }
    let mut running = peer.start(&setup, &bench.place).await?;
    let target = running.target(Transport::Grpc, Encoding::Identity);
    let stock = Stock::numbered(10, Encoding::Identity)?;
    let clients = Clients::start(target, stock, CLIENTS, REQUESTS_PER_SECOND)?;
    for round in 0..bench.scale.deaths {
        if death == Death::Kill {
            let away = round % 3 == 2;
            sink.behave(if away {
                Behaviour::Away
            } else {
                Behaviour::Take
            });
        }
        // Only one that has taken something has something to lose.
        let before = clients.acked();
        let mut waited = 0;
        while clients.acked() < before + 10 && waited < 2000 {
            sleep(Duration::from_millis(5)).await;
            waited += 1;
        }
        sleep(Duration::from_millis(fastrand::u64(0..400))).await;
        match death {
            Death::Kill => running.kill()?,
            Death::Terminate => {
                running.terminate()?;
                running.end(Duration::from_secs(30)).await?;
            }
        }
        running = peer.start(&setup, &bench.place).await?;
    }
    sink.behave(Behaviour::Take);
    let mut tally = clients.stop(Duration::from_secs(30)).await?;
    sink.quiet(Duration::from_secs(3), Duration::from_mins(1))
        .await;
    sink.settle(&mut tally.ledger);
    if tally.permanent > 0 {
        progress(&format!(
            "{} refused for good: {:?}",
            tally.permanent, tally.complaint
        ));
    }
    Ok(tally.ledger.balance())
}
