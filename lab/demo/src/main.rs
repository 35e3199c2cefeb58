//! The `demo` command: a tour through every topology on a real cluster, its removal, and the measurement of
//! every switch.
//!
//! Reads arguments and speaks; what it does is the library's.

mod down;
mod matrix;
mod show;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::show::Show;

/// Watch applications' spans reach a collector while the topology changes under them.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Bring everything up, tour the topologies, and leave it up.
    Up,
    /// Build every image of the demo and of the cluster tests, and list the files.
    Images,
    /// Make every switch between two topologies under load, and write down what became of the telemetry.
    Matrix(matrix::Options),
    /// Remove all of it.
    Down,
}

fn list_images() -> demo::Result<()> {
    let python = if demo::python::obstacle().is_none() {
        demo::python::ensure()?
    } else {
        None
    };
    for file in demo::images::ensure_all()?.into_iter().chain(python) {
        println!("{}", file.display());
    }
    Ok(())
}

fn main() -> ExitCode {
    let show = Show::new();
    let result = match Cli::parse().command {
        Action::Up => up::up(&show),
        Action::Images => list_images(),
        Action::Matrix(options) => matrix::matrix(&show, &options),
        Action::Down => down::down(&show),
    };
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("\ndemo: {}: {error}", error.reason());
    if let Ok(bed) = testbed::Bed::attach(up::BED) {
        eprintln!(
            "demo: the bed stays up; the logs of its components are in {}",
            bed.log_dir().display()
        );
        eprintln!(
            "demo: to look around: export KUBECONFIG={}",
            bed.kubeconfig().display()
        );
        eprintln!("demo: to remove it: make demo-down");
    }
    ExitCode::FAILURE
}
