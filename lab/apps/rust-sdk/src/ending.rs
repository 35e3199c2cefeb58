//! The ways programs end: as they should, and as they do.

use std::hint::black_box;

use clap::ValueEnum;

/// How the program ends once its last telemetry was acknowledged.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Ending {
    /// It shuts its pipelines down and succeeds.
    Clean,
    /// It aborts, as after a broken invariant.
    Abort,
    /// It leaves with an error, and shuts nothing down.
    Fail,
    /// It takes memory until the system kills it.
    Hoard,
}

impl Ending {
    /// Ends the process at once, unless it shall end cleanly.
    pub(crate) fn come_unexpectedly(self) {
        match self {
            Self::Clean => {}
            Self::Abort => std::process::abort(),
            Self::Fail => std::process::exit(1),
            Self::Hoard => hoard(),
        }
    }
}

fn hoard() -> ! {
    let mut hoard = Vec::new();
    loop {
        // Not zeros, which the system would only promise.
        hoard.push(vec![1_u8; 1 << 20]);
        black_box(&hoard);
    }
}
