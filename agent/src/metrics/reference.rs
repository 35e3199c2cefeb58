//! The reference of all metrics in `docs/metrics.md`, made of their descriptions.

use std::fmt::Write as _;

use otlp_wire::Signal;

use super::families::{self, Described, Kind};
use super::labels::{Label, Values};

/// Stands for the name of a signal's items.
const ITEMS: &str = "<items>";

/// A metric as it is documented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRow {
    /// Its name without the suffixes of its unit and its type, as the agents of an `OtelAgent` write it.
    pub name: String,
    /// Its name with them.
    pub suffixed: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: Vec<&'static str>,
    /// Its meaning.
    pub meaning: &'static str,
}

/// All metrics.
pub fn rows() -> Vec<MetricRow> {
    let signals = Signal::ALL.iter().map(|signal| signal.items());
    let of_items = signals.flat_map(|items| families::of_items().map(move |of| row(of, items)));
    of_items
        .chain(families::others().map(|of| row(of, "")))
        .collect()
}

/// `items` is empty for metrics that are not of items.
fn row(of: &Described, items: &str) -> MetricRow {
    let separator = if items.is_empty() { "" } else { "_" };
    let name = format!("{}{separator}{items}", of.name);
    let (kind, total) = match of.kind {
        Kind::Counter => ("counter", "_total"),
        Kind::Gauge => ("gauge", ""),
        Kind::Histogram => ("histogram", ""),
    };
    MetricRow {
        suffixed: format!("{name}{}{total}", of.suffix),
        name,
        kind,
        labels: of.labels.iter().map(|label| label.name).collect(),
        meaning: of.meaning,
    }
}

/// The tables of `docs/metrics.md`: all metrics, then all values of their labels.
pub fn reference() -> String {
    let of_items = families::of_items().map(|of| (of, ITEMS));
    let all: Vec<_> = of_items
        .chain(families::others().map(|of| (of, "")))
        .collect();
    let mut page =
        "| name | with suffixes | type | labels | meaning |\n|---|---|---|---|---|\n".to_owned();
    let mut labels: Vec<(Label, Vec<String>)> = Vec::new();
    for (of, items) in all {
        let MetricRow {
            name,
            suffixed,
            kind,
            labels: names,
            meaning,
        } = row(of, items);
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let names = names.join(", ");
        let _ = writeln!(
            page,
            "| `{name}` | `{suffixed}` | {kind} | {names} | {meaning} |"
        );
        for label in of.labels {
            let is_same = |(known, _): &&mut (Label, Vec<String>)| {
                (known.name, known.values) == (label.name, label.values)
            };
            match labels.iter_mut().find(is_same) {
                Some((_, of)) => of.push(name.clone()),
                None => labels.push((*label, vec![name.clone()])),
            }
        }
    }
    page.push_str("\n| label | of | values |\n|---|---|---|\n");
    for (label, of) in labels {
        let (name, values) = (label.name, values(label.values));
        let _ = writeln!(page, "| `{name}` | {} | {values} |", owners(&of));
    }
    page
}

/// The names of metrics; many are not listed.
fn owners(names: &[String]) -> String {
    if names.len() > 3 {
        return format!("{} metrics", names.len());
    }
    let names = names.iter().map(|name| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}

fn values(values: Values) -> String {
    match values {
        Values::Any(meaning) => meaning.to_owned(),
        Values::OneOf(values) => {
            let values = values
                .iter()
                .map(|(value, meaning)| format!("`{value}`: {}", meaning.trim()));
            values.collect::<Vec<_>>().join("<br>")
        }
    }
}
