//! Counters of what happens to telemetry, their Prometheus text under the collector's names, and the same as OTLP. They
//! balance at all times: accepted + recovered = delivered + in queue + lost by reason. Does not know how
//! telemetry is received or sent.

mod counters;
mod families;
mod labels;
mod otlp;
mod process;
mod reference;
mod text;

pub use self::reference::{MetricRow, reference, rows};

pub(crate) use self::counters::*;
pub(crate) use self::families::{Surroundings, UpstreamNow};
pub(crate) use self::otlp::MetricsOrigin;
