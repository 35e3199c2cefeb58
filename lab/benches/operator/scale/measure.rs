//! Reading what others counted: the audit log and histograms in Prometheus' text format.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

use crate::Outcome;
use crate::operator::USER;

/// The operator's requests since some moment, by verb and resource; the Lease and dry runs apart.
pub(crate) struct Audit {
    place: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) watches: usize,
    pub(crate) reads: BTreeMap<String, usize>,
    pub(crate) lease: usize,
    /// Of the server's version and of the kinds it offers.
    pub(crate) discovery: usize,
    pub(crate) dry_runs: usize,
    pub(crate) writes: BTreeMap<String, usize>,
}

impl Requests {
    pub(crate) fn all_writes(&self) -> usize {
        self.writes.values().sum()
    }

    pub(crate) fn all_reads(&self) -> usize {
        self.reads.values().sum()
    }

    pub(crate) fn status_writes(&self) -> usize {
        let status = |(what, count): (&String, &usize)| what.contains("status").then_some(*count);
        self.writes.iter().filter_map(status).sum()
    }
}

impl Audit {
    pub(crate) fn from_now(log: &Path) -> Outcome<Self> {
        Ok(Self {
            place: std::fs::metadata(log)?.len(),
        })
    }

    /// What the operator asked for since this was made, or last read.
    pub(crate) fn read(&mut self, log: &Path) -> Outcome<Requests> {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(self.place))?;
        let mut requests = Requests::default();
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        loop {
            line.clear();
            let read = reader.read_line(&mut line)?;
            if !line.ends_with('\n') {
                return Ok(requests);
            }
            self.place += u64::try_from(read)?;
            if line.contains(USER) {
                note(&mut requests, &serde_json::from_str(&line)?);
            }
        }
    }
}

fn note(requests: &mut Requests, request: &Value) {
    // A watch is noted when it begins and when it ends.
    if request["stage"] != "ResponseComplete" || request["user"]["username"] != USER {
        return;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (verb, uri) = (text(&request["verb"]), text(&request["requestURI"]));
    let object = &request["objectRef"];
    let resource = text(&object["resource"]);
    let sub = text(&object["subresource"]);
    let what = format!(
        "{verb} {resource}{}{sub}",
        if sub.is_empty() { "" } else { "/" }
    );
    if resource == "leases" {
        requests.lease += 1;
    } else if resource.is_empty() {
        requests.discovery += 1;
    } else if verb == "watch" {
        requests.watches += 1;
    } else if ["get", "list"].contains(&verb.as_str()) {
        *requests.reads.entry(what).or_default() += 1;
    } else if uri.contains("dryRun=All") {
        requests.dry_runs += 1;
    } else {
        *requests.writes.entry(what).or_default() += 1;
    }
}

/// Buckets of one histogram, summed over its series: upper bound in seconds, and how many were at most
/// so long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    pub(crate) fn parse(metrics: &str, name: &str) -> Self {
        let prefix = format!("{name}_bucket{{");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for line in metrics.lines().filter(|line| line.starts_with(&prefix)) {
            let bound = line
                .split("le=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let bound = bound.and_then(|bound| match bound {
                "+Inf" => Some(f64::INFINITY),
                number => number.parse().ok(),
            });
            let count = line
                .split("} ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            let count = count.and_then(|count| count.parse::<f64>().ok());
            let (Some(bound), Some(count)) = (bound, count) else {
                continue;
            };
            match buckets
                .iter_mut()
                .find(|(known, _)| known.total_cmp(&bound).is_eq())
            {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(buckets)
    }

    /// What was added since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| {
            let found = earlier
                .0
                .iter()
                .find(|(known, _)| known.total_cmp(&bound).is_eq());
            found.map_or(0.0, |(_, count)| *count)
        };
        Self(
            self.0
                .iter()
                .map(|(bound, count)| (*bound, count - before(*bound)))
                .collect(),
        )
    }

    /// Adds a later reading of the same buckets.
    pub(crate) fn add(&mut self, more: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&more.0);
            return;
        }
        for ((_, sum), (_, count)) in self.0.iter_mut().zip(&more.0) {
            *sum += count;
        }
    }

    pub(crate) fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The quantile as Prometheus estimates it: linear within its bucket.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count();
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank && *count > 0.0 {
                let within = (rank - below) / (count - below).max(1.0);
                return Some(if bound.is_finite() {
                    low + (bound - low) * within
                } else {
                    low
                });
            }
            (low, below) = (*bound, *count);
        }
        None
    }
}
