//! Reading the ledger: what arrived at the end of the way, by run.
//!
//! Asked through the API server, which works on every cluster without a port being opened.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::Result;
use crate::kubectl::Kubectl;

/// The namespace of the ledger and of the collector before it.
pub const NAMESPACE: &str = "observability";

/// Asks the ledger.
#[derive(Clone, Debug)]
pub struct Client<'a> {
    kubectl: &'a Kubectl,
    base: String,
}

impl<'a> Client<'a> {
    /// The ledger of this package's manifests.
    pub fn new(kubectl: &'a Kubectl) -> Self {
        let base = format!("/api/v1/namespaces/{NAMESPACE}/services/ledger:query/proxy");
        Self { kubectl, base }
    }

    /// All runs.
    pub fn runs(&self) -> Result<Runs> {
        self.kubectl.raw(&format!("{}/runs", self.base))
    }

    /// One run, with the labels it came with; an error where nothing of it came.
    pub fn run(&self, run: &str) -> Result<RunDetail> {
        self.kubectl.raw(&format!("{}/runs/{run}", self.base))
    }

    /// Forgets the longest gaps, and nothing else.
    pub fn forget_gaps(&self) -> Result<()> {
        self.kubectl.post(&format!("{}/gaps/reset", self.base))
    }

    /// Forgets everything.
    pub fn reset(&self) -> Result<()> {
        self.kubectl.post(&format!("{}/reset", self.base))
    }
}

/// All runs.
#[derive(Clone, Debug, Deserialize)]
pub struct Runs {
    /// By name.
    pub runs: Vec<Run>,
    /// Items beyond the ledger's limits: above 0, no number here is complete.
    pub ignored: u64,
}

/// One run of a program.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Run {
    /// Its name; empty for telemetry of programs that do not name their runs.
    pub run: String,
    /// The `service.name` it came with.
    pub service: String,
    /// What arrived, by signal.
    pub signals: BTreeMap<String, Counts>,
}

impl Run {
    /// What arrived of its spans.
    pub fn traces(&self) -> Counts {
        self.signal("traces")
    }

    /// What arrived of a signal: `traces`, `metrics` or `logs`.
    pub fn signal(&self, signal: &str) -> Counts {
        self.signals.get(signal).cloned().unwrap_or_default()
    }
}

/// What arrived of one signal of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Items, numbered or not, repeated or not.
    pub received: u64,
    /// Different numbers.
    pub distinct: u64,
    /// Numbers that came again.
    pub duplicates: u64,
    /// One more than the highest number.
    pub end: u64,
    /// Numbers below the highest that have not come.
    pub missing: u64,
    /// The lowest of these.
    pub first_missing: Vec<u64>,
    /// How many the run made, once its last item has come.
    pub total: Option<u64>,
    /// The highest value of its sums.
    pub highest: u64,
    /// The longest time without an arrival between two, in milliseconds, since these were forgotten last.
    pub longest_gap: u64,
}

/// One run with the labels it came with.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetail {
    /// In numbers.
    #[serde(flatten)]
    pub run: Run,
    /// Labels, with how often and when.
    pub resources: Vec<Resource>,
    /// Items whose labels are not listed, since there were too many kinds.
    pub other_resources: u64,
}

/// Labels that items of a run came with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Resource {
    /// `traces`, `metrics` or `logs`.
    pub signal: String,
    /// Resource attributes; values as text.
    pub attributes: BTreeMap<String, String>,
    /// How many items.
    pub count: u64,
    /// Milliseconds since 1970.
    pub first: u64,
    /// Milliseconds since 1970.
    pub last: u64,
}

impl Resource {
    /// An attribute, if it is there.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }
}
