//! The metrics as Prometheus text (format 0.0.4), under the collector's names where it has one.
//!
//! Written by hand, because `prometheus-client` writes `OpenMetrics`: it cannot leave `_total` off a counter, which the
//! collector's default reader does.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::counters::Metrics;
use super::families::{Family, Kind, PointValue, Surroundings};

impl Metrics {
    /// All metrics as text.
    pub(crate) fn text(&self, around: &Surroundings<'_>) -> String {
        let mut out = String::with_capacity(32 * 1024);
        for family in self.families(around) {
            write_family(&mut out, around, &family);
        }
        out
    }
}

fn write_family(out: &mut String, around: &Surroundings<'_>, family: &Family<'_>) {
    let reader = around.config.telemetry.metrics.as_ref();
    let without_units = reader.is_some_and(|reader| reader.without_units);
    let without_total = reader.is_some_and(|reader| reader.without_type_suffix);
    let unit = if without_units { "" } else { family.suffix };
    let (total, kind) = match family.kind {
        Kind::Counter if without_total => ("", "counter"),
        Kind::Counter => ("_total", "counter"),
        Kind::Gauge => ("", "gauge"),
        Kind::Histogram => ("", "histogram"),
    };
    let name = format!("{}{unit}{total}", family.name);
    let _ = writeln!(out, "# HELP {name} {}", family.meaning);
    let _ = writeln!(out, "# TYPE {name} {kind}");
    for point in &family.points {
        let labels = labels(&point.labels);
        let _ = match &point.value {
            PointValue::Whole(value) => writeln!(out, "{name}{labels} {value}"),
            PointValue::Signed(value) => writeln!(out, "{name}{labels} {value}"),
            PointValue::Time(time) => {
                let (seconds, hundredths) = (time.as_secs(), time.subsec_millis() / 10);
                writeln!(out, "{name}{labels} {seconds}.{hundredths:02}")
            }
            PointValue::Buckets {
                bounds,
                counts,
                sum,
            } => {
                write_buckets(out, &name, &labels, bounds, counts);
                let count: u64 = counts.iter().sum();
                writeln!(
                    out,
                    "{name}_sum{labels} {sum}\n{name}_count{labels} {count}"
                )
            }
        };
    }
}

fn write_buckets(out: &mut String, name: &str, labels: &str, bounds: &[u64], counts: &[u64]) {
    let open = labels.trim_end_matches('}');
    let bounds = bounds.iter().map(u64::to_string);
    let mut sum = 0;
    for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counts) {
        sum += count;
        let _ = writeln!(out, "{name}_bucket{open},le=\"{bound}\"}} {sum}");
    }
}

/// The labels with braces, or nothing.
fn labels(pairs: &[(&'static str, Cow<'_, str>)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let pairs = pairs.iter();
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// The value of a label as the text format writes it; ids of components may have any characters.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(value);
    }
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(value.replace('\n', "\\n"))
}
