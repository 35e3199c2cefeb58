//! Spans, log records and counters: what programs made against what the ledger holds, between two moments.
//!
//! Spans and log records are numbered. Of a counter the last value must be what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Sub;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::apps;
use crate::error::Result;
use crate::follow::{Follower, Said};
use crate::kubectl::Kubectl;
use crate::ledger::{Client, Run};

/// Sums over all runs so far; the difference of two is what happened in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Spans and log records made.
    pub sent: u64,
    /// Of these, those that did not arrive.
    pub lost: u64,
    /// Of these, those that no agent acknowledged: an SDK gave up on them, had no room for more, or ended before.
    pub unacknowledged: u64,
    /// Arrivals of what had arrived before.
    pub duplicates: u64,
    /// By how much the counters of runs that ended fall short.
    pub counters_short: u64,
    /// Runs that ended without their last span or log record arriving.
    pub unfinished: u64,
}

impl Sub for Account {
    type Output = Self;

    /// What is lost in one moment may have arrived by the next, so differences end at 0.
    fn sub(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            lost: self.lost.saturating_sub(before.lost),
            unacknowledged: self.unacknowledged.saturating_sub(before.unacknowledged),
            duplicates: self.duplicates.saturating_sub(before.duplicates),
            counters_short: self.counters_short.saturating_sub(before.counters_short),
            unfinished: self.unfinished.saturating_sub(before.unfinished),
        }
    }
}

/// The account, from what was said and what arrived.
fn account(said: &BTreeMap<String, Said>, running: &BTreeSet<String>, arrived: &[Run]) -> Account {
    let nothing = Run::default();
    let mut account = Account::default();
    for (name, said) in said {
        let run = arrived.iter().find(|run| run.run == *name);
        let run = run.unwrap_or(&nothing);
        let ended = !running.contains(name);
        let report = said.report;
        for (signal, acknowledged) in [("traces", report.exported), ("logs", report.exported_logs)]
        {
            let counts = run.signal(signal);
            let total = counts.total.unwrap_or_default();
            let sent = report.made.max(counts.end).max(total);
            let lost = sent - counts.distinct;
            account.sent += sent;
            account.lost += lost;
            account.unacknowledged += lost - lost.min(acknowledged.saturating_sub(counts.distinct));
            account.duplicates += counts.duplicates;
            account.unfinished += u64::from(ended && counts.total.is_none());
        }
        if ended {
            let counted = run.signal("metrics").highest;
            account.counters_short += report.made.saturating_sub(counted);
        }
    }
    account
}

/// Waits until everything that programs have said they made has arrived, but for what was missing `before`, or
/// until patience ends.
pub fn settle(
    kubectl: &Kubectl,
    namespace: &str,
    follower: &Follower,
    before: Account,
    patience: Duration,
) -> Result<Account> {
    let begun = Instant::now();
    let said = follower.said();
    loop {
        let pods = apps::pods(kubectl, namespace)?;
        let running: BTreeSet<String> = pods.into_iter().map(|pod| pod.name).collect();
        let now = account(&said, &running, &Client::new(kubectl).runs()?.runs);
        let more = now - before;
        let complete = (more.lost, more.unfinished, more.counters_short) == (0, 0, 0);
        if complete || begun.elapsed() >= patience {
            return Ok(now);
        }
        sleep(Duration::from_millis(500));
    }
}

/// The longest time in milliseconds without an arrival of spans or log records, by application.
pub fn longest_gaps(kubectl: &Kubectl) -> Result<BTreeMap<String, u64>> {
    let mut gaps = BTreeMap::new();
    for run in Client::new(kubectl).runs()?.runs {
        let longest = run.traces().longest_gap.max(run.signal("logs").longest_gap);
        let entry = gaps.entry(run.service).or_insert(0);
        *entry = longest.max(*entry);
    }
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::Report;
    use crate::ledger::Counts;

    fn said(made: u64, exported: u64, exported_logs: u64) -> Said {
        let report = Report {
            made,
            exported,
            exported_logs,
            ..Report::default()
        };
        Said {
            report,
            ..Said::default()
        }
    }

    fn run(name: &str, distinct: u64, total: Option<u64>, highest: u64) -> Run {
        let counts = Counts {
            distinct,
            total,
            highest,
            end: distinct,
            ..Counts::default()
        };
        let signals =
            ["traces", "logs", "metrics"].map(|signal| (signal.to_owned(), counts.clone()));
        Run {
            run: name.to_owned(),
            service: String::new(),
            signals: BTreeMap::from(signals),
        }
    }

    #[test]
    fn complete_account_has_no_loss() {
        let said = BTreeMap::from([("a".to_owned(), said(10, 10, 10))]);
        let account = account(&said, &BTreeSet::new(), &[run("a", 10, Some(10), 10)]);
        assert_eq!((account.sent, account.lost), (20, 0));
        assert_eq!((account.counters_short, account.unfinished), (0, 0));
    }

    #[test]
    fn spans_log_records_and_counters_are_missed() {
        let said = BTreeMap::from([
            ("ended".to_owned(), said(10, 10, 8)),
            ("runs".to_owned(), said(10, 10, 10)),
        ]);
        let running = BTreeSet::from(["runs".to_owned()]);
        let arrived = [run("ended", 9, None, 7), run("runs", 10, None, 3)];
        let account = account(&said, &running, &arrived);
        // Both spans and logs of 9 arrived: one span was acknowledged and is lost.
        assert_eq!((account.lost, account.unacknowledged), (2, 1));
        assert_eq!((account.counters_short, account.unfinished), (3, 2));
    }

    #[test]
    fn late_arrivals_are_no_negative_loss() {
        let more = Account {
            lost: 3,
            ..Account::default()
        };
        assert_eq!((Account::default() - more).lost, 0);
    }
}
