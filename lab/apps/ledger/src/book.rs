//! What arrived, by run: the bookkeeping of the ledger.
//!
//! Knows runs, numbers and labels. Not how they travel, and no clock: the caller says when.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::numbers::Numbers;

/// More runs than this are not kept, nor more kinds of labels per run.
const MAX_RUNS: usize = 1024;
const MAX_RESOURCES: usize = 256;
/// How many missing numbers an answer names.
const NAMED_MISSING: usize = 20;

/// A resource's attributes; values as text.
pub(crate) type Attributes = BTreeMap<String, String>;

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Signal {
    /// Spans.
    Traces,
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
}

/// One span, data point or log record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    /// What it is.
    pub(crate) signal: Signal,
    /// Which run of a program made it; empty where it does not say.
    pub(crate) run: &'a str,
    /// Its number in the run.
    pub(crate) number: Option<u64>,
    /// Whether the run says that this is its last.
    pub(crate) last: bool,
    /// What a sum counts up to here.
    pub(crate) value: Option<u64>,
}

/// Everything that arrived since the last reset.
#[derive(Debug, Default)]
pub(crate) struct Book {
    runs: BTreeMap<String, Run>,
    ignored: u64,
}

#[derive(Debug, Default)]
struct Run {
    service: String,
    tallies: BTreeMap<Signal, Tally>,
    resources: BTreeMap<(Signal, Attributes), Sightings>,
    other_resources: u64,
}

#[derive(Debug, Default)]
struct Tally {
    received: u64,
    numbers: Numbers,
    /// How many the run says it made.
    total: Option<u64>,
    /// The highest value of its sums.
    highest: u64,
    /// When the last one came.
    last: Option<u64>,
    /// The longest time in which none came, between two that did.
    longest_gap: u64,
}

#[derive(Debug)]
struct Sightings {
    count: u64,
    first: u64,
    last: u64,
}

impl Book {
    /// Notes one item that came with these labels at this time (in milliseconds).
    pub(crate) fn note(&mut self, item: Item<'_>, resource: &Attributes, now: u64) {
        if !self.runs.contains_key(item.run) && self.runs.len() >= MAX_RUNS {
            self.ignored += 1;
            return;
        }
        let run = self.runs.entry(item.run.to_owned()).or_default();
        if let Some(service) = resource.get("service.name") {
            run.service.clone_from(service);
        }
        let tally = run.tallies.entry(item.signal).or_default();
        tally.received += 1;
        let gap = tally.last.map_or(0, |last| now.saturating_sub(last));
        tally.longest_gap = tally.longest_gap.max(gap);
        tally.last = Some(now);
        tally.highest = tally.highest.max(item.value.unwrap_or_default());
        if let Some(number) = item.number {
            if !tally.numbers.insert(number) {
                self.ignored += 1;
            }
            if item.last {
                tally.total = Some(number + 1);
            }
        }
        run.sight(item.signal, resource, now);
    }

    /// Begins to look for the longest gaps anew; a gap that is open goes on.
    pub(crate) fn forget_gaps(&mut self) {
        for run in self.runs.values_mut() {
            for tally in run.tallies.values_mut() {
                tally.longest_gap = 0;
            }
        }
    }

    /// All runs.
    pub(crate) fn summaries(&self) -> Summaries {
        let runs = self.runs.iter().map(|(name, run)| run.summary(name));
        Summaries {
            runs: runs.collect(),
            ignored: self.ignored,
        }
    }

    /// One run with its labels.
    pub(crate) fn detail(&self, name: &str) -> Option<Detail> {
        let run = self.runs.get(name)?;
        let resources = run.resources.iter().map(|((signal, attributes), seen)| {
            let attributes = attributes.clone();
            Resource {
                signal: *signal,
                attributes,
                count: seen.count,
                first: seen.first,
                last: seen.last,
            }
        });
        Some(Detail {
            summary: run.summary(name),
            resources: resources.collect(),
            other_resources: run.other_resources,
        })
    }
}

impl Run {
    fn sight(&mut self, signal: Signal, resource: &Attributes, now: u64) {
        let key = (signal, resource.clone());
        if !self.resources.contains_key(&key) && self.resources.len() >= MAX_RESOURCES {
            self.other_resources += 1;
            return;
        }
        let seen = self.resources.entry(key).or_insert(Sightings {
            count: 0,
            first: now,
            last: now,
        });
        seen.count += 1;
        seen.last = now;
    }

    fn summary(&self, name: &str) -> Summary {
        let counts = self.tallies.iter().map(|(signal, tally)| {
            let numbers = &tally.numbers;
            let counts = Counts {
                received: tally.received,
                distinct: numbers.distinct(),
                duplicates: numbers.duplicates(),
                end: numbers.end(),
                missing: numbers.missing(),
                first_missing: numbers.first_missing(NAMED_MISSING),
                total: tally.total,
                highest: tally.highest,
                longest_gap: tally.longest_gap,
            };
            (*signal, counts)
        });
        Summary {
            run: name.to_owned(),
            service: self.service.clone(),
            signals: counts.collect(),
        }
    }
}

/// Answer of `GET /runs`.
#[derive(Debug, Serialize)]
pub(crate) struct Summaries {
    /// By name.
    runs: Vec<Summary>,
    /// Items beyond the limits of this book: above 0, no number here is complete.
    ignored: u64,
}

/// One run in numbers.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    run: String,
    /// The `service.name` it came with most recently.
    service: String,
    signals: BTreeMap<Signal, Counts>,
}

/// What arrived of one signal of a run.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    /// Items, numbered or not, repeated or not.
    received: u64,
    /// Different numbers.
    distinct: u64,
    /// Numbers that came again.
    duplicates: u64,
    /// One more than the highest number.
    end: u64,
    /// Numbers below the highest that have not come.
    missing: u64,
    /// The lowest of these.
    first_missing: Vec<u64>,
    /// How many the run made, once its last item (`app.last`) has come.
    total: Option<u64>,
    /// The highest value of its sums.
    highest: u64,
    /// The longest time without an arrival between two, in milliseconds.
    longest_gap: u64,
}

/// Answer of `GET /runs/<run>`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Detail {
    #[serde(flatten)]
    summary: Summary,
    resources: Vec<Resource>,
    /// Items whose labels are not listed, since there were too many kinds.
    other_resources: u64,
}

/// Labels that items of a run came with.
#[derive(Debug, Serialize)]
struct Resource {
    signal: Signal,
    attributes: Attributes,
    count: u64,
    /// Milliseconds since 1970.
    first: u64,
    /// Milliseconds since 1970.
    last: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Attributes {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    fn span(run: &str, number: u64) -> Item<'_> {
        Item {
            signal: Signal::Traces,
            run,
            number: Some(number),
            last: false,
            value: None,
        }
    }

    fn traces(detail: &Detail) -> &Counts {
        &detail.summary.signals[&Signal::Traces]
    }

    #[test]
    fn run_is_complete_when_its_last_came_and_nothing_is_missing() {
        let mut book = Book::default();
        let resource = labels(&[("service.name", "shop")]);
        for number in [0, 2, 2] {
            book.note(span("a", number), &resource, 5);
        }
        let detail = book.detail("a").unwrap();
        let counts = traces(&detail);
        assert_eq!(
            (counts.received, counts.distinct, counts.duplicates),
            (3, 2, 1)
        );
        assert_eq!((counts.missing, counts.total), (1, None));
        assert_eq!(counts.first_missing, [1]);
        assert_eq!(detail.summary.service, "shop");

        book.note(span("a", 1), &resource, 6);
        book.note(
            Item {
                last: true,
                ..span("a", 3)
            },
            &resource,
            6,
        );
        let detail = book.detail("a").unwrap();
        assert_eq!(
            (traces(&detail).missing, traces(&detail).total),
            (0, Some(4))
        );
    }

    #[test]
    fn labels_are_kept_apart_with_their_times() {
        let mut book = Book::default();
        let (one, two) = (labels(&[("node", "n1")]), labels(&[("node", "n2")]));
        for (resource, now) in [(&one, 1), (&one, 4), (&two, 9)] {
            book.note(span("a", now), resource, now);
        }
        let detail = book.detail("a").unwrap();
        let seen: Vec<_> = detail
            .resources
            .iter()
            .map(|r| (r.attributes["node"].as_str(), r.count, r.first, r.last))
            .collect();
        assert_eq!(seen, [("n1", 2, 1, 4), ("n2", 1, 9, 9)]);
    }

    #[test]
    fn runs_and_signals_do_not_mix() {
        let mut book = Book::default();
        let none = Attributes::new();
        book.note(span("a", 0), &none, 0);
        book.note(
            Item {
                signal: Signal::Logs,
                ..span("a", 7)
            },
            &none,
            0,
        );
        book.note(
            Item {
                number: None,
                ..span("b", 0)
            },
            &none,
            0,
        );
        let a = book.detail("a").unwrap();
        assert_eq!(traces(&a).end, 1);
        assert_eq!(a.summary.signals[&Signal::Logs].end, 8);
        let b = book.detail("b").unwrap();
        assert_eq!((traces(&b).received, traces(&b).distinct), (1, 0));
        assert!(book.detail("c").is_none());
    }

    #[test]
    fn longest_gap_is_between_two_arrivals_and_can_be_forgotten() {
        let mut book = Book::default();
        for now in [5, 6, 16, 18] {
            book.note(span("a", now), &Attributes::new(), now);
        }
        assert_eq!(traces(&book.detail("a").unwrap()).longest_gap, 10);
        book.forget_gaps();
        book.note(span("a", 21), &Attributes::new(), 21);
        assert_eq!(traces(&book.detail("a").unwrap()).longest_gap, 3);
    }

    #[test]
    fn of_sums_the_highest_value_is_kept() {
        let mut book = Book::default();
        for value in [3, 9, 4] {
            let sum = Item {
                value: Some(value),
                number: None,
                ..span("a", 0)
            };
            book.note(sum, &Attributes::new(), 0);
        }
        assert_eq!(traces(&book.detail("a").unwrap()).highest, 9);
    }

    #[test]
    fn runs_beyond_the_limits_are_reported() {
        let mut book = Book::default();
        for run in 0..=MAX_RUNS {
            book.note(span(&run.to_string(), 0), &Attributes::new(), 0);
        }
        for node in 0..=MAX_RESOURCES {
            book.note(span("0", 1), &labels(&[("node", &node.to_string())]), 0);
        }
        book.note(span("0", u64::MAX), &Attributes::new(), 0);
        let summaries = book.summaries();
        assert_eq!((summaries.runs.len(), summaries.ignored), (MAX_RUNS, 2));
        let detail = book.detail("0").unwrap();
        assert_eq!(
            (detail.resources.len(), detail.other_resources),
            (MAX_RESOURCES, 2)
        );
    }
}
