//! One description of each metric of the operator and its webhook: its name, type, labels and meaning. The metrics are
//! registered from it, and the reference in `docs/metrics.md` is made from it.

use std::fmt::Write as _;

use otelagent_api::CONDITIONS;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
    /// Always 1; its labels say something.
    Info,
}

impl Kind {
    /// The word of the exposition formats.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Its name without the prefix of all metrics and without the suffix of its type.
    pub(super) name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, each with its values.
    pub labels: &'static [(&'static str, &'static str)],
    /// Its meaning.
    pub meaning: &'static str,
}

/// What all names begin with.
pub(super) const PREFIX: &str = "otelagent";

impl Described {
    /// The name of its series; a histogram's have suffixes besides.
    pub fn series(&self) -> String {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{PREFIX}_{}{suffix}", self.name)
    }
}

const fn described(
    name: &'static str,
    kind: Kind,
    labels: &'static [(&'static str, &'static str)],
    meaning: &'static str,
) -> Described {
    Described {
        name,
        kind,
        labels,
        meaning,
    }
}

/// The labels of a metric of an `OtelAgent`; written out, since constants cannot be joined.
macro_rules! of_object {
    ($($label:literal: $values:literal),*) => {
        &[
            ("namespace", "that of the OtelAgent"),
            ("name", "that of the OtelAgent"),
            ("otelagent", "both, as `namespace.name`"),
            $(($label, $values)),*
        ]
    };
}

pub(super) const LEADER: Described = described(
    "leader",
    Kind::Gauge,
    &[],
    "1 while this process holds the Lease, 0 in the other replicas",
);
pub(super) const OBJECTS: Described = described(
    "objects",
    Kind::Gauge,
    &[],
    "OtelAgents that this process knows",
);
pub(super) const RECONCILES: Described = described(
    "reconciles",
    Kind::Counter,
    &[("result", "`success`, `error`")],
    "Reconciles of an OtelAgent by result",
);
pub(super) const RECONCILE_DURATION: Described = described(
    "reconcile_duration_seconds",
    Kind::Histogram,
    &[],
    "Time that one reconcile takes",
);
pub(super) const API_WRITES: Described = described(
    "api_writes",
    Kind::Counter,
    &[
        ("kind", "kind of the object"),
        (
            "verb",
            "`apply`, `delete`, `status`, `update`, `restart`, `release`",
        ),
    ],
    "Writes to the API server; none while nothing changes",
);
pub(super) const ERRORS: Described = described(
    "errors",
    Kind::Counter,
    &[(
        "reason",
        "[reason of an error](status.md#errors), `LeaseUnreachable`",
    )],
    "Errors by reason",
);
pub(super) const DELIVERY_POLLS: Described = described(
    "delivery_polls",
    Kind::Counter,
    &[("result", "`answered`, `unanswered`")],
    "Questions to agents whether they deliver, by result",
);
pub(super) const ORPHANED_PODS: Described = described(
    "orphaned_pods",
    Kind::Gauge,
    &[],
    "Running pods that were injected for an OtelAgent that does not exist, counted each minute by the leader",
);
pub(super) const CONDITION: Described = described(
    "condition",
    Kind::Gauge,
    of_object!(
        "type": "[type of the condition](status.md#conditions)",
        "status": "`True`, `False`, `Unknown`"
    ),
    "1 for the present status of each condition",
);
pub(super) const MODE: Described = described(
    "mode",
    Kind::Gauge,
    of_object!(
        "wanted": "mode that the spec asks for",
        "serving": "mode that new pods get; empty before the first one serves"
    ),
    "1 with the modes of an OtelAgent; two different ones during a switch",
);
pub(super) const AGENTS: Described = described(
    "agents",
    Kind::Gauge,
    of_object!("state": "`desired`, `ready`, `updated`"),
    "Numbers of agents as status.agents has them; with sidecars, of pods",
);
pub(super) const PODS: Described = described(
    "pods",
    Kind::Gauge,
    of_object!(
        "state": "`injected`; of these `current`, `stale`, `uncovered`; `missed`; of these `orphaned`, `uninjectable`"
    ),
    "Numbers of pods as status.pods has them",
);
pub(super) const DELIVERY_AGENTS: Described = described(
    "delivery_agents",
    Kind::Gauge,
    of_object!("state": "`asked`; of these `delivering`, `idle`, `failing`, `unanswered`"),
    "Numbers of agents as status.delivery has them: what they said when the operator last asked",
);
pub(super) const RESTARTING_WORKLOADS: Described = described(
    "restarting_workloads",
    Kind::Gauge,
    of_object!("state": "`running`, `waiting`, `stuck`, `not_restartable`"),
    "Numbers of workloads as status.restarts has them; only with workloads.restart Rolling",
);
pub(super) const WEBHOOK_REVIEWS: Described = described(
    "webhook_reviews",
    Kind::Counter,
    &[(
        "outcome",
        "`Injected`, `Unchanged`, a reason why a pod is not injected; without a proper answer `Busy`, `TooLate`, \
         `Panicked`, `TooLarge`, `BadReview`, `NoOrder`",
    )],
    "Reviews of pods that the webhook answered, by outcome",
);
pub(super) const WEBHOOK_REVIEW_DURATION: Described = described(
    "webhook_review_duration_seconds",
    Kind::Histogram,
    &[],
    "Time that the webhook takes to answer; it gives up after 2 seconds",
);
pub(super) const BUILD: Described = described(
    "build",
    Kind::Info,
    &[("version", "version of the program")],
    "The program",
);

/// All metrics, in the order of the reference.
pub const ALL: [&Described; 17] = [
    &CONDITION,
    &MODE,
    &AGENTS,
    &PODS,
    &DELIVERY_AGENTS,
    &RESTARTING_WORKLOADS,
    &ORPHANED_PODS,
    &LEADER,
    &OBJECTS,
    &RECONCILES,
    &RECONCILE_DURATION,
    &API_WRITES,
    &ERRORS,
    &DELIVERY_POLLS,
    &WEBHOOK_REVIEWS,
    &WEBHOOK_REVIEW_DURATION,
    &BUILD,
];

/// The table in `docs/metrics.md`.
pub fn reference() -> String {
    let mut page = "| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in ALL {
        let labels = metric.labels.iter();
        let labels: Vec<String> = labels
            .map(|(name, values)| format!("`{name}`: {values}"))
            .collect();
        let (name, kind) = (metric.series(), metric.kind.word());
        let (labels, meaning) = (labels.join("<br>"), metric.meaning);
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {meaning} |");
    }
    let types = CONDITIONS.map(|type_| format!("`{type_}`")).join(", ");
    let _ = writeln!(page, "\nTypes of conditions: {types}.");
    page
}
