//! An application as anybody would write it with the OpenTelemetry SDK for Rust: exporters with default
//! settings, which take everything from the standard `OTEL_*` variables.
//!
//! What it sends is numbered, so that a receiver can tell what is missing. It does not know where its
//! telemetry goes, nor by which way.

mod counting;
mod ending;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::counting::Counts;
use crate::ending::Ending;
use crate::signals::Signals;

/// Sends numbered telemetry until SIGTERM, and says once a second how much.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The name of this run, on everything it sends.
    #[arg(long)]
    run: String,
    /// Spans per second.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// End after so many; without it, at SIGTERM.
    #[arg(long)]
    count: Option<u64>,
    /// OTLP transport; without it the SDK decides, by `OTEL_EXPORTER_OTLP_PROTOCOL`.
    #[arg(long)]
    protocol: Option<Protocol>,
    /// What to send.
    #[arg(long, value_delimiter = ',', default_value = "traces")]
    signals: Vec<SignalKindName>,
    /// How to end once enough was sent.
    #[arg(long, default_value = "clean")]
    ending: Ending,
}

/// An OTLP transport.
#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Grpc,
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

/// A kind of telemetry.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SignalKindName {
    Traces,
    Metrics,
    Logs,
}

/// What ends the program early, besides having sent enough.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rust-sdk: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut stop = Stop {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let counts = Counts::default();
    let signals = Signals::start(&args.run, args.protocol, &args.signals, &counts)?;
    let made = produce(&args, &signals, &counts, &mut stop).await;
    // The last one says so: a receiver then knows how many there are.
    signals.emit(made, true);
    // Flushing blocks, and the exporter may need this runtime.
    let signals = tokio::task::spawn_blocking(move || {
        signals.flush();
        signals
    })
    .await?;
    args.ending.come_unexpectedly();
    tokio::task::spawn_blocking(move || signals.shut_down()).await?;
    report("end", &args.run, made + 1, &counts);
    Ok(())
}

/// Sends at the wanted rate, and returns how many.
async fn produce(args: &Args, signals: &Signals, counts: &Counts, stop: &mut Stop) -> u64 {
    let mut due = interval(Duration::from_secs(1) / args.rate);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let second = Duration::from_secs(1);
    let mut reports = tokio::time::interval_at(Instant::now() + second, second);
    let mut made = 0;
    let enough = args.count.map_or(u64::MAX, |count| count.saturating_sub(1));
    while made < enough {
        tokio::select! {
            biased;
            _ = stop.terminate.recv() => break,
            _ = stop.interrupt.recv() => break,
            _ = reports.tick() => report("second", &args.run, made, counts),
            _ = due.tick() => {
                signals.emit(made, false);
                made += 1;
            }
        }
    }
    made
}

/// One line for people and scripts.
fn report(event: &str, run: &str, made: u64, counts: &Counts) {
    let line = json!({
        "event": event,
        "run": run,
        "made": made,
        "exported": counts.exported(),
        "exportedLogs": counts.exported_logs(),
        "failed": counts.failed(),
    });
    println!("{line}");
}
