//! Figures that were measured, as the documentation has them: what switches and updates lose, and what an agent takes.
//!
//! `make reference` writes the table of switches and updates from `docs/switching.md`. A test compares the rest with
//! `docs/benchmarks.md`.

use std::time::Duration;

use crate::mode_option::ModeOption;
use crate::mode_option::ModeOption::{
    HostNetwork, HostPort, NodeLocalPrefer, NodeLocalRequire, Sidecar,
};
use crate::quantity::MIB;

/// Where the figures of switches and updates are explained.
pub const SWITCHES: &str = "docs/switching.md";
/// Where the figures of the agent are explained.
pub const BENCHMARKS: &str = "docs/benchmarks.md";

/// Memory of an idle agent.
pub const IDLE_MEMORY: u64 = 39 * MIB / 10;
/// Memory of an agent that takes 10,000 spans per second.
pub const BUSY_MEMORY: u64 = 65 * MIB / 10;
/// Spans that an agent handles with one second of CPU time, in requests of 10 with gzip in and out.
pub const SPANS_PER_CPU_SECOND: u64 = 225_419;

/// What applications lost in a switch, or in an update of the agent, in which nothing else changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// The topology before.
    pub from: ModeOption,
    /// The topology after it; the same for an update.
    pub to: ModeOption,
    /// Spans and log records that were sent.
    pub sent: u32,
    /// Of these, what never arrived.
    pub lost: u32,
    /// The longest time in which nothing of a pod arrived. Programs export twice a second.
    pub gap: Duration,
}

/// What was measured for a change of the topology, or, with two equal ones, for an update.
pub fn measured(from: ModeOption, to: ModeOption) -> Option<&'static Measurement> {
    MEASUREMENTS
        .iter()
        .find(|row| row.from == from && row.to == to)
}

const fn row(from: ModeOption, to: ModeOption, sent: u32, lost: u32, gap_ms: u64) -> Measurement {
    Measurement {
        from,
        to,
        sent,
        lost,
        gap: Duration::from_millis(gap_ms),
    }
}

/// Every switch, then every update.
pub const MEASUREMENTS: [Measurement; 25] = [
    // measured: written by `make reference`, from here
    row(NodeLocalRequire, Sidecar, 29_610, 0, 600),
    row(Sidecar, HostNetwork, 12_939, 0, 900),
    row(HostNetwork, Sidecar, 28_747, 0, 700),
    row(Sidecar, HostPort, 10_492, 0, 700),
    row(HostPort, Sidecar, 31_291, 0, 700),
    row(Sidecar, NodeLocalPrefer, 12_855, 0, 900),
    row(NodeLocalPrefer, Sidecar, 29_282, 0, 700),
    row(Sidecar, NodeLocalRequire, 10_929, 0, 800),
    row(NodeLocalRequire, HostNetwork, 25_354, 0, 700),
    row(HostNetwork, HostPort, 23_970, 0, 700),
    row(HostPort, HostNetwork, 56_388, 201, 1000),
    row(HostNetwork, NodeLocalPrefer, 23_918, 0, 700),
    row(NodeLocalPrefer, HostNetwork, 24_229, 0, 800),
    row(HostNetwork, NodeLocalRequire, 23_316, 0, 800),
    row(NodeLocalRequire, HostPort, 26_427, 0, 700),
    row(HostPort, NodeLocalPrefer, 25_871, 0, 700),
    row(NodeLocalPrefer, HostPort, 24_324, 0, 700),
    row(HostPort, NodeLocalRequire, 25_556, 0, 800),
    row(NodeLocalRequire, NodeLocalPrefer, 5935, 0, 600),
    row(NodeLocalPrefer, NodeLocalRequire, 4393, 0, 600),
    row(NodeLocalRequire, NodeLocalRequire, 10_410, 0, 700),
    row(Sidecar, Sidecar, 14_810, 0, 700),
    row(HostNetwork, HostNetwork, 9610, 0, 700),
    row(HostPort, HostPort, 48_540, 601, 1700),
    row(NodeLocalPrefer, NodeLocalPrefer, 11_227, 0, 700),
    // measured: to here
];
