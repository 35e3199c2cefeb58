//! Counters of what happens to telemetry, their Prometheus text under the collector's names, and the same as OTLP. They
//! balance at all times: accepted + recovered = delivered + in queue + lost by reason. Does not know how
//! telemetry is received or sent.

mod counters;
mod families;
mod otlp;
mod process;
mod text;

pub(crate) use self::counters::*;
pub(crate) use self::families::Surroundings;
pub(crate) use self::otlp::MetricsOrigin;
