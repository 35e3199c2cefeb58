//! Sent, received, lost: what applications say they made against what the ledger holds.
//!
//! A run numbers its spans from 0 and marks its last one. While it runs, its log says how many it made;
//! once its last span has come, the ledger knows. Numbers remembered from earlier looks stand for pods
//! that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::apps::{self, Report};
use crate::error::Result;
use crate::kubectl::Kubectl;
use crate::ledger::{Client, Run};

/// Spans of all runs so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Made by the applications, as far as known.
    pub sent: u64,
    /// Of these, those that arrived.
    pub received: u64,
    /// Those that did not.
    pub lost: u64,
    /// Arrivals of what had arrived before.
    pub duplicates: u64,
    /// Runs that ended and whose last span did not arrive: what they sent after the last look is unknown.
    pub unfinished: Vec<String>,
    /// Runs that lost something.
    pub losers: Vec<Loser>,
}

/// A run that lost something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loser {
    /// The run.
    pub run: String,
    /// How many spans did not arrive.
    pub lost: u64,
    /// Of these, how many no agent acknowledged: the application's SDK gave up on them, or had no room for more.
    pub unacknowledged: u64,
}

impl Tally {
    /// Whether everything that was sent arrived.
    pub fn is_complete(&self) -> bool {
        self.lost == 0 && self.unfinished.is_empty()
    }
}

/// Keeps the tally of one namespace over the life of many pods.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    said: BTreeMap<String, Report>,
    /// The last settled tally: what was lost then will not come any more.
    conceded: Tally,
}

impl Tracker {
    /// Notes what running pods say they have made.
    pub fn look(&mut self, kubectl: &Kubectl, namespace: &str) -> Result<()> {
        for pod in apps::pods(kubectl, namespace)? {
            if let Ok(Some(report)) = apps::report(kubectl, namespace, &pod.name) {
                self.said.insert(pod.name, report);
            } else {
                // It has not spoken yet, but it exists: its last span must come some day.
                self.said.entry(pod.name).or_default();
            }
        }
        Ok(())
    }

    /// Looks, and then waits until everything made by then has arrived, or patience ends.
    pub fn settle(
        &mut self,
        kubectl: &Kubectl,
        namespace: &str,
        patience: Duration,
    ) -> Result<Tally> {
        self.look(kubectl, namespace)?;
        let begun = Instant::now();
        loop {
            let pods = apps::pods(kubectl, namespace)?;
            let running: BTreeSet<String> = pods.into_iter().map(|pod| pod.name).collect();
            let arrived = Client::new(kubectl).runs()?.runs;
            let tally = tally(&self.said, &running, &arrived);
            let known =
                tally.lost <= self.conceded.lost && tally.unfinished == self.conceded.unfinished;
            if known || begun.elapsed() >= patience {
                self.conceded = tally.clone();
                return Ok(tally);
            }
            sleep(Duration::from_millis(500));
        }
    }
}

/// The tally, from what was said and what arrived.
fn tally(said: &BTreeMap<String, Report>, running: &BTreeSet<String>, arrived: &[Run]) -> Tally {
    let nothing = Run::default();
    let mut tally = Tally::default();
    let arrivals = arrived
        .iter()
        .map(|run| run.run.as_str())
        .filter(|name| !name.is_empty());
    let names: BTreeSet<&str> = said.keys().map(String::as_str).chain(arrivals).collect();
    for name in names {
        let run = arrived
            .iter()
            .find(|run| run.run == name)
            .unwrap_or(&nothing);
        let counts = run.traces();
        let report = said.get(name).copied().unwrap_or_default();
        let sent = report
            .made
            .max(counts.end)
            .max(counts.total.unwrap_or_default());
        let lost = sent - counts.distinct;
        tally.sent += sent;
        tally.received += counts.distinct;
        tally.lost += lost;
        tally.duplicates += counts.duplicates;
        if lost > 0 {
            let acknowledged = report.exported.saturating_sub(counts.distinct);
            let unacknowledged = lost - lost.min(acknowledged);
            tally.losers.push(Loser {
                run: name.to_owned(),
                lost,
                unacknowledged,
            });
        }
        if counts.total.is_none() && !running.contains(name) {
            tally.unfinished.push(name.to_owned());
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Counts;

    fn run(name: &str, distinct: u64, end: u64, total: Option<u64>) -> Run {
        let counts = Counts {
            received: distinct + 1,
            distinct,
            duplicates: 1,
            end,
            missing: end - distinct,
            total,
            ..Counts::default()
        };
        Run {
            run: name.to_owned(),
            service: String::new(),
            signals: BTreeMap::from([("traces".to_owned(), counts)]),
        }
    }

    fn said(pairs: &[(&str, u64)]) -> BTreeMap<String, Report> {
        let report = |made| Report {
            made,
            exported: made - 1,
            ..Report::default()
        };
        pairs
            .iter()
            .map(|(name, made)| ((*name).to_owned(), report(*made)))
            .collect()
    }

    #[test]
    fn run_is_complete_when_everything_reported_arrived() {
        let running = BTreeSet::from(["new".to_owned()]);
        let arrived = [
            run("old", 10, 10, Some(10)),
            run("new", 7, 7, None),
            run("", 3, 3, None),
        ];
        let tally = tally(&said(&[("old", 8), ("new", 6)]), &running, &arrived);
        assert!(tally.is_complete(), "{tally:?}");
        assert_eq!((tally.sent, tally.received, tally.duplicates), (17, 17, 2));
    }

    #[test]
    fn gaps_and_missing_ends_are_losses() {
        let running = BTreeSet::from(["behind".to_owned()]);
        let arrived = [run("gap", 9, 10, Some(10)), run("behind", 5, 5, None)];
        let tally = tally(&said(&[("behind", 8), ("silent", 4)]), &running, &arrived);
        assert_eq!((tally.sent, tally.received, tally.lost), (22, 14, 8));
        let losers: Vec<_> = tally
            .losers
            .iter()
            .map(|l| (l.run.as_str(), l.lost, l.unacknowledged))
            .collect();
        assert_eq!(losers, [("behind", 3, 1), ("gap", 1, 1), ("silent", 4, 1)]);
        assert_eq!(tally.unfinished, ["silent"]);
    }

    #[test]
    fn run_that_ended_unmarked_is_never_complete() {
        let arrived = [run("killed", 10, 10, None)];
        let tally = tally(&said(&[("killed", 10)]), &BTreeSet::new(), &arrived);
        assert_eq!((tally.lost, tally.is_complete()), (0, false));
    }
}
