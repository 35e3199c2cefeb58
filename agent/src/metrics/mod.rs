//! Counters of what happens to telemetry, and their Prometheus text under the collector's names. They
//! balance at all times: accepted + recovered = delivered + in queue + lost by reason. Does not know how
//! telemetry is received or sent.

mod counters;
mod help;
mod process;
mod text;

pub(crate) use self::counters::*;
pub(crate) use self::text::Surroundings;
