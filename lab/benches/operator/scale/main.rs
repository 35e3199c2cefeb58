//! What the operator costs in a large cluster: memory, requests at rest, time of a switch.
//!
//! `make bench-scale`. Control plane and operator are real, the nodes simulated: nothing runs in their
//! pods. Sizes are options, so that a small run is quick. Figures say little across machines, and API
//! server, controllers, simulator and operator share this machine's cores.

#![allow(clippy::cast_precision_loss)] // counts of things in one cluster

mod agents;
mod load;
mod measure;
mod operator;
mod phases;
mod report;
mod webhook;
mod world;

use std::path::PathBuf;

use clap::Parser;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Measures the operator in a large simulated cluster.
#[derive(Parser)]
struct Args {
    /// Simulated nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: u16,
    /// Pods of all kinds, agents included.
    #[arg(long, default_value_t = 20_000)]
    pods: usize,
    /// `OtelAgent`s; the first four are of node modes, the others sidecars.
    #[arg(long, default_value_t = 50)]
    agents: usize,
    /// Namespaces with workloads.
    #[arg(long, default_value_t = 500)]
    namespaces: usize,
    /// Leaves the bed up, filled, for a later run with `--bed`; `testbed down` ends it.
    #[arg(long)]
    keep: bool,
    /// Measures on a bed that an earlier run of the same sizes has filled and kept.
    #[arg(long)]
    bed: Option<String>,
    /// How long the operator is watched at rest; settled objects are looked at every five minutes.
    #[arg(long, default_value_t = 330)]
    rest_seconds: u64,
    /// Document whose section between the markers is written anew.
    #[arg(long)]
    document: Option<PathBuf>,
    /// Which section of the document.
    #[arg(long, default_value = "scale")]
    section: String,
    /// The command as it is named in the document.
    #[arg(long, default_value = "make bench-scale")]
    command: String,
    /// What cargo tells every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let args = Args::parse();
    let before = phases::load_average();
    let mut world = match &args.bed {
        None => world::World::start(&args).await?,
        Some(name) => world::World::attach(name).await?,
    };
    if args.keep {
        world.bed.keep()?;
    }
    let report = phases::run(&world, &args, &before).await?;
    println!("{report}");
    if let Some(document) = &args.document {
        report::write(document, &args.section, &report)?;
    }
    if !args.keep && args.bed.is_none() {
        tokio::task::spawn_blocking(move || world.bed.stop()).await??;
    }
    Ok(())
}
