//! The sentences of the documentation that decide, word for word: a test looks for each on its page.

use std::fmt;

/// A sentence, or the part of one that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    /// The page, as a path in the repository.
    pub(super) page: &'static str,
    /// Its words, with single spaces.
    pub(super) text: &'static str,
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page, text } = self;
        write!(f, "{page}: \"{text}\"")
    }
}

/// Defines each quote, and [`ALL`] of them.
macro_rules! quotes {
    ($($page:literal { $($name:ident: $text:literal,)* })*) => {
        $($(pub(super) const $name: Quote = Quote { page: $page, text: $text };)*)*
        #[cfg(test)]
        pub(super) const ALL: &[Quote] = &[$($($name),*),*];
    };
}

quotes! {
    "crds/otelagents.yaml" {
        OF_GENERATION: "The generation of the spec that this status describes.",
        CONDITION_OF_GENERATION: "observedGeneration represents the .metadata.generation that the condition was set \
            based upon.",
        SERVING: "The serving mode: the mode that new pods use.",
        PATHS: "Node modes whose agents exist: the wanted and the serving mode, and older ones that pods still use. \
            The operator recreates their objects if they are deleted.",
        AGENTS: "The agents of the serving mode; before one serves, those of the wanted mode.",
        AGENTS_DESIRED: "Nodes (Sidecar: pods) that should have an agent.",
        AGENTS_READY: "Nodes (Sidecar: pods) with a ready agent.",
        AGENTS_UPDATED: "Nodes (Sidecar: pods) with an agent of the present spec.",
        PODS_INJECTED: "Running pods that were injected for this agent.",
        PODS_CURRENT: "Of the injected pods, those with the serving mode and configuration.",
        PODS_STALE: "Of the injected pods, those with an older mode or configuration.",
        PODS_MISSED: "Running selected pods that this agent did not inject.",
        PODS_ORPHANED: "Of the missed pods, those that were injected for an OtelAgent that does not exist.",
        PODS_UNINJECTABLE: "Of the missed pods, those that cannot be injected, so that a restart would not help.",
        PODS_UNCOVERED: "Of the injected pods, those on a node without a ready agent of their mode.",
        PODS_BY_MODE: "Injected pods by the mode they were created with.",
        RESTARTS: "Workloads to restart, by their progress. Only with workloads.restart Rolling.",
    }
    "docs/modes.md" {
        NEW_ROUTE: "From then on, every new pod gets the new route.",
        ENDPOINT: "| endpoint of applications | `http://<name>.<namespace>.svc:4317` | `http://<node address>:4317` \
            | `http://<node address>:4317` | `http://127.0.0.1:4317` |",
        USERS: "the condition `Switching` says how many pods still use the old route",
    }
    "docs/status.md" {
        CONDITIONS: "An OtelAgent has the conditions `Accepted`, `Ready`, `Switching`, `Injected` and `Delivering`, \
            and with `restart: Rolling` also `Restarting`.",
        CONDITION: "Every condition has a message that names the objects and says what to do.",
        OVER_QUOTA: "the namespace has 20 older OtelAgents, and the operator uses only 20; delete some",
        READY: "Ready: new pods are served",
        SWITCHING: "Switching: an older route is still in use, or a new one is getting ready",
        INJECTED: "Injected: injection is active, and no selected pod was missed",
        OLDER: "pods of the serving mode run with an older configuration",
        REFUSED: "a LimitRange or ResourceQuota refuses pods because of their sidecar",
        MISSED: "A selected pod counts as missed if this OtelAgent should have injected it and did not.",
        NO_ALARM: "the only missed pods are those that cannot be injected; the message names their owners and the reasons",
        NOTHING: "no namespace has the labels of `workloads.namespaceSelector`; the message has the command that labels one",
        DELIVERING: "Delivering: the upstream takes what agents send",
        DELIVERY_COUNTS: "`status.delivery` has the numbers of agents `asked` (of sidecars, those of the last three \
            turns), `delivering`, `idle`, `failing` and `unanswered`.",
        RECONCILING: "`Reconciling` is present, and True, while the wanted mode does not serve yet or agents have an \
            older configuration",
        STALLED: "`Stalled` is present, and True, while the spec is refused",
        RESTARTING: "Restarting: workloads restart or wait (only with `restart: Rolling`)",
    }
    "docs/restart.md" {
        OWNERS: "The conditions name their owners.",
        IN_VAIN: "It does not restart a workload for missed pods that cannot be injected: their new pods could not be \
            injected either.",
        STUCK: "If the pods are unchanged after a restart, for example because they opt out in a way that labels do \
            not show, `Restarting` reports `StaleAfterRestart`.",
    }
}
